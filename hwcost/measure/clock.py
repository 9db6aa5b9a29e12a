"""One visit to a network: how its runs and profiles are timed, and how rounds become latencies.

A visit
1. waits up to 0.3 s until the CPU is calm (`hwcost.measure.pace`);
2. runs the network a few times without timing it. Other networks have emptied the caches since the last visit, and
   for a network whose weights fit into L3 the first run took 7 % longer than the tenth, the sixth still 1 %;
3. times whole runs;
4. takes profiles, with the time of each kernel.

Runs that were not calm are kept but do not count. Up to twice as many runs are added to replace them, unless step 1
waited in vain: then the CPU is unlikely to become calm soon. Profiles are taken again only if none of them was calm.
Garbage collection is off during a visit.

On one thread, the time of a run is its wall time without the time in which the thread was ready to run and other
processes had the CPU,

    t = wall - wait,    wait = wall - CPU time of the thread,               (1)

where a wait below 50 us counts as 0: a context switch takes longer, what is shorter is noise of the two clocks. With
several threads, or a device such as a GPU, the thread that calls the network sleeps while others work, so (1) does not
hold: t is the wall time, and the visit counts as disturbed by what any thread waited during the whole runs. (Not
during the profiles, for which some runtimes start threads of their own.)
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwcost.measure.disturbance import Disturbance, Watch
from hwcost.measure.pace import CALM, Pace
from hwcost.measure.statistics import summarise
from hwcost.measure.types import MeasurementError, Timing
from hwcost.runtimes.base import SWITCH, Session

WAIT = 0.3  # s that a visit waits for a calm CPU, at most
_VISIT = 0.06  # s of whole runs that a visit aims at
_RUNS = (2, 32)  # whole runs of a visit, least and most
_PROFILES = (1, 12)  # profiles of a visit, least and most
_WARM = 0.012  # s of untimed runs that fill the caches; also some scheduler ticks, in which threads spread over CPUs
_WARM_RUNS = (1, 6)  # untimed runs of one thread, least and most
_TRIES = 3  # at most so many times the wanted runs are taken, to replace those that were not calm
_DISTURBED = 0.05  # share of a visit that may be stolen or waited before it counts as disturbed
_STABLE = 0.05  # relative difference between runs that ends the first warm-up
_FIRST_RUNS = (3, 20)  # runs of the first warm-up, least and most


def _none() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Round:
    """What one visit measured; times in s."""

    whole: NDArray[np.float32]  # [runs], wall time
    waits: NDArray[np.float32]  # [runs], wait of eq. (1)
    kernels: NDArray[np.float32]  # [profiles, kernels]
    disturbance: Disturbance
    seconds: float  # that the runs and profiles took together
    paces: NDArray[np.float32] = field(default_factory=_none)  # [runs + profiles]; empty in stores of version 1 and 2
    running: float = 0.0  # time in which the network ran, timed or not; not kept in a store

    @property
    def disturbed(self) -> bool:
        """Whether no run was calm, or others took too much of the visit: it should be repeated."""
        taken = self.disturbance.waited + self.disturbance.steal > _DISTURBED * self.seconds
        return taken or not self._calm()[0].any()

    @property
    def pace_of_whole(self) -> float:
        """1 where a run was calm, else the least pace of the runs."""
        return _least(self.paces[: len(self.whole)], self._calm()[0])

    @property
    def pace_of_kernels(self) -> float:
        """1 where a profile was calm, else the least pace of the profiles."""
        return _least(self.paces[len(self.whole) :], self._calm()[1])

    def calm_whole(self) -> NDArray[np.float64]:
        """Times of the calm runs by eq. (1), [runs, 1]; of all runs where none was calm."""
        return _chosen((self.whole - self.waits)[:, None], self._calm()[0])

    def calm_kernels(self) -> NDArray[np.float64]:
        """Times of the calm profiles, [profiles, kernels]; of all profiles where none was calm."""
        return _chosen(self.kernels, self._calm()[1])

    def _calm(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which runs and which profiles were calm; all of them where no paces were recorded."""
        runs = len(self.whole)
        if not len(self.paces):
            return np.ones(runs, dtype=bool), np.ones(len(self.kernels), dtype=bool)
        return self.paces[:runs] <= CALM, self.paces[runs:] <= CALM


def _chosen(values: NDArray[np.float32], calm: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(values[calm] if calm.any() else values, dtype=np.float64)


def _least(paces: NDArray[np.float32], calm: NDArray[np.bool_]) -> float:
    return 1.0 if calm.any() else float(paces.min())


class Laps:
    """Wall time, wait and pace of runs that follow one another: call it before the first run and after each.

    With `unbroken`, a run in which the thread waited gets an infinite pace, so that it never counts as calm: the wait
    can be subtracted from the time of a whole run, but in a profile nobody knows which kernel it fell into.
    """

    def __init__(self, pace: Pace, *, unbroken: bool = False) -> None:
        self._pace, self._unbroken = pace, unbroken
        self._start: tuple[float, float] | None = None  # wall and CPU time at the start of the run, None between runs
        self._before = np.inf  # pace at that start
        self.walls: list[float] = []
        self.waits: list[float] = []
        self.paces: list[float] = []  # of each run the larger of the paces before and after it

    def __call__(self) -> None:
        """End the run that is going on, if any, and start the next."""
        wall, cpu = time.perf_counter(), time.thread_time()
        pace = self._pace.read()
        if self._start:
            took = wall - self._start[0]
            wait = took - (cpu - self._start[1])
            waited = wait > SWITCH
            self.walls.append(took)
            self.waits.append(wait if waited else 0.0)
            self.paces.append(np.inf if waited and self._unbroken else max(self._before, pace))
        self._before = pace
        self._start = time.perf_counter(), time.thread_time()

    def pause(self) -> None:
        """Forget the run that was started: the time until the next call belongs to no run."""
        self._start = None

    def calm(self) -> int:
        """How many runs were calm."""
        return sum(pace <= CALM for pace in self.paces)


def warm_up(session: Session) -> float:
    """Run a newly loaded network until two runs in a row are within 5 % of the best so far; returns that best (s)."""
    best, agreed = timed(session)[0], 0
    for done in range(1, _FIRST_RUNS[1]):
        seconds = timed(session)[0]
        agreed = agreed + 1 if abs(seconds - best) <= _STABLE * best else 0
        best = min(best, seconds)
        if agreed >= 2 and done + 1 >= _FIRST_RUNS[0]:
            break
    return best


def take_round(session: Session, expected: float, *, threads: int, pace: Pace) -> Round:
    """Visit a network that takes about `expected` seconds on `threads` threads.

    Raises:
        MeasurementError: the profile of the runtime has no finite time for some kernel.
    """
    runs = int(np.clip(_VISIT / expected, *_RUNS))
    profiles = int(np.clip(_VISIT / 2 / expected, *_PROFILES))
    waits_known = threads == 1 and not session.sleeps  # eq. (1) holds
    calm = pace.wait(WAIT)
    warming = _warm(session, threads)

    watch, in_runs, start = Watch(), Watch(all_threads=threads > 1), time.perf_counter()
    laps = _runs(session, runs, Laps(pace), most=_TRIES * runs if calm else runs)
    waited_in_runs = in_runs.stop().waited
    pace.settle()  # profilers work on threads of their own
    # The CPU is hardly ever calm throughout a run of more than 60 ms. So profiles of such a network are not repeated;
    # each of its kernels meets calm moments in some of them.
    tries = _TRIES if calm and expected < _VISIT else 1
    kernels, profiled = _profiles(session, profiles, Laps(pace, unbroken=waits_known), tries=tries)
    seconds = time.perf_counter() - start
    if not np.isfinite(kernels).all():
        raise MeasurementError("every kernel must have a finite time, but the profile of the runtime has gaps")

    whole, waits = np.array(laps.walls, dtype=np.float32), np.array(laps.waits, dtype=np.float32)
    lost = watch.stop()
    return Round(
        whole,
        waits if waits_known else np.zeros_like(whole),
        kernels,
        replace(lost, waited=max(lost.waited, waited_in_runs)),
        seconds,
        np.array([*laps.paces, *profiled.paces], dtype=np.float32),
        warming + sum(laps.walls) + sum(profiled.walls) + len(kernels) / profiles * session.warm_ups * expected,
    )


def _warm(session: Session, threads: int) -> float:
    """Run without timing, for about `_WARM` seconds, on one thread six times at most; returns how long it took (s)."""
    start, done = time.perf_counter(), 0
    least, most = _WARM_RUNS
    while done < least or (time.perf_counter() - start < _WARM and (threads > 1 or done < most)):
        session.run()
        done += 1
    return time.perf_counter() - start


def _runs(session: Session, wanted: int, laps: Laps, most: int) -> Laps:
    """Time runs until `wanted` of them were calm, `most` at most."""
    laps()
    while laps.calm() < wanted and len(laps.walls) < most:
        session.run()
        laps()
    return laps


def _profiles(session: Session, wanted: int, laps: Laps, tries: int) -> tuple[NDArray[np.float32], Laps]:
    """Take `wanted` profiles, and as many again while none was calm, `tries` times at most.

    Returns:
        Times (s), [profiles, kernels], and the laps of the profiles.
    """
    found = list[NDArray[np.float32]]()
    while not laps.calm() and len(found) < tries:
        laps.pause()
        found.append(session.profile(wanted, laps).astype(np.float32))
    return np.concatenate(found), laps


class Runs(Protocol):
    """Anything that can be run."""

    def run(self) -> Any:
        """Run it once."""


def timed(session: Runs) -> tuple[float, float]:
    """Wall time and wait of one run (s), eq. (1)."""
    start, cpu = time.perf_counter(), time.thread_time()
    session.run()
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - start
    wait = wall - cpu
    return wall, wait if wait > SWITCH else 0.0


@contextmanager
def quiet_interpreter() -> Iterator[None]:
    """Turn garbage collection off inside, after one collection; does nothing where it is off already."""
    was = gc.isenabled()
    if was:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def whole_timing(rounds: Sequence[Round], *, target: float = np.inf) -> Timing:
    """Timing of the network; flagged "unstable" where its spread is above `target`, the spread asked for."""
    walls = [r.whole[:, None].astype(float) for r in rounds]
    calm, disturbed = [r.calm_whole() for r in rounds], [r.disturbed for r in rounds]
    return summarise(calm, disturbed, all_runs=walls, paces=[r.pace_of_whole for r in rounds], target=target)[0]


def kernel_timings(rounds: Sequence[Round], *, target: float = np.inf) -> list[Timing]:
    """Timing of each kernel, in the order they run.

    The low quantiles of single kernels sum to less than the low quantile of their sum, by 5 % for a network of a
    hundred kernels, because no profile is the quickest for each of them. So that the latencies of kernels add up, all
    are multiplied by one factor: their sum is then the low quantile of the sums of profiles.
    """
    every = [r.kernels.astype(float) for r in rounds]
    calm, disturbed = [r.calm_kernels() for r in rounds], [r.disturbed for r in rounds]
    together = summarise([r.sum(axis=1, keepdims=True) for r in calm], disturbed)[0].latency
    timings = summarise(calm, disturbed, all_runs=every, paces=[r.pace_of_kernels for r in rounds], target=target)
    single = sum(t.latency for t in timings)
    return [replace(t, latency=t.latency * together / single) for t in timings] if single > 0 else timings
