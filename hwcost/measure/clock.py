"""The clock: one visit to one network.

A visit waits until the CPU is at its pace, for a while, runs the network a little unmeasured, so that its
weights and code are back in the caches that other networks have emptied since (weights that L3 holds take
half a dozen runs: the first took 7 % longer than the tenth, the sixth 1 %), then a few times as it
is, then a few times with the time of each kernel. Runs that the pace (`hwcost.measure.pace`) shows
to be slowed are kept, but do not count, and up to twice as many are added to make up for them, where
the CPU was at its pace when the visit began: one that was waited for in vain will not be for longer.
Garbage collection is off meanwhile, so that no pause falls into a run.

What one thread takes is wall time less the time in which it was ready and another process had the
CPU,

    t = wall - wait,    wait = wall - CPU time of the thread,               (1)

where the wait is told from noise: it is a context switch or nothing. With several threads, or a device,
the main one sleeps while others work, so there t is the wall time, and a visit is disturbed by what any
thread waited during the whole runs. (Not during profiles: some runtimes start threads for these.)
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

from hwcost.measure.machine import Disturbance, Watch
from hwcost.measure.pace import CALM, Pace
from hwcost.measure.statistics import summarise
from hwcost.measure.types import MeasurementError, Timing
from hwcost.runtimes.base import SWITCH, Session

_VISIT = 0.06  # s of whole runs that a visit aims at
_RUNS = (2, 32)  # whole runs a visit, least and most
_PROFILES = (1, 12)
_WARM = 0.012  # s of runs after which caches hold what they can: a few ticks of the system, too, after which it has
# spread several threads over CPUs
_WARM_RUNS = (1, 6)  # of one thread before a visit, least and most
_TRIES = 3  # times the runs wanted, at most
WAIT = 0.3  # s for the CPU to find its pace
_SHARE = 0.05  # of a visit that may be stolen or waited before it counts as disturbed
_STABLE = 0.05  # relative change between runs that ends the warm-up
_FIRST_RUNS = (3, 20)


def _none() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Round:
    """What one visit saw; times in s."""

    whole: NDArray[np.float32]  # [runs], wall time
    waits: NDArray[np.float32]  # [runs], eq. (1)
    kernels: NDArray[np.float32]  # [profiles, kernels]
    disturbance: Disturbance
    seconds: float  # the measured part of the visit
    paces: NDArray[np.float32] = field(default_factory=_none)  # [runs + profiles], none from an older clock
    running: float = 0.0  # in which the network ran, for the clock or to warm up; no store keeps it

    @property
    def disturbed(self) -> bool:
        """Whether others took so much of the visit that it should be repeated."""
        taken = self.disturbance.waited + self.disturbance.steal > _SHARE * self.seconds
        return taken or not self._calm()[0].any()

    @property
    def pace_of_whole(self) -> float:
        """How much slower than it can be the machine was at the calmest whole run; 1 where one was calm."""
        return _least(self.paces[: len(self.whole)], self._calm()[0])

    @property
    def pace_of_kernels(self) -> float:
        """The same of the calmest profile."""
        return _least(self.paces[len(self.whole) :], self._calm()[1])

    def calm_whole(self) -> NDArray[np.float64]:
        """Whole runs at the machine's pace, without their waits, [runs, 1]; all of them where none was."""
        return _chosen((self.whole - self.waits)[:, None], self._calm()[0])

    def calm_kernels(self) -> NDArray[np.float64]:
        """Profiles taken at the machine's pace, [profiles, kernels]; all of them where none was."""
        return _chosen(self.kernels, self._calm()[1])

    def _calm(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        runs = len(self.whole)
        if not len(self.paces):
            return np.ones(runs, dtype=bool), np.ones(len(self.kernels), dtype=bool)
        return self.paces[:runs] <= CALM, self.paces[runs:] <= CALM


def _chosen(values: NDArray[np.float32], calm: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(values[calm] if calm.any() else values, dtype=np.float64)


def _least(paces: NDArray[np.float32], calm: NDArray[np.bool_]) -> float:
    return 1.0 if calm.any() else float(paces.min())


class Laps:
    """Wall time, wait and pace of runs, read between them: call it before each run and after the last.

    Where runs must be `unbroken`, one that waited is of infinite pace: of a wait among kernels nobody knows which
    of them bears it.
    """

    def __init__(self, pace: Pace, *, unbroken: bool = False) -> None:
        self._pace, self._unbroken = pace, unbroken
        self._start: tuple[float, float] | None = None
        self._before = np.inf
        self.walls: list[float] = []
        self.waits: list[float] = []
        self.paces: list[float] = []

    def __call__(self) -> None:
        """The end of one run and the start of the next."""
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
        """What comes now, until the next call, is no run."""
        self._start = None

    def calm(self) -> int:
        """How many runs were calm."""
        return sum(pace <= CALM for pace in self.paces)


def warm_up(session: Session) -> float:
    """Run until two runs agree within 5 % with the best so far; returns that best (s)."""
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
        MeasurementError: a profile gave another number of kernels than before, or no finite times.
    """
    runs = int(np.clip(_VISIT / expected, *_RUNS))
    profiles = int(np.clip(_VISIT / 2 / expected, *_PROFILES))
    works = threads == 1 and not session.sleeps  # so that a thread that has no CPU waits for one
    hopeful = pace.wait(WAIT)
    warming = _warm(session, threads)
    watch, in_runs, start = Watch(), Watch(all_threads=threads > 1), time.perf_counter()
    laps = _runs(session, runs, Laps(pace), most=_TRIES * runs if hopeful else runs)
    waited = in_runs.stop().waited
    pace.settle()  # profilers work on threads of their own
    kernels, profiled = _profiles(
        session, profiles, Laps(pace, unbroken=works), tries=_TRIES if hopeful and expected < _VISIT else 1
    )
    seconds = time.perf_counter() - start
    if not np.isfinite(kernels).all():
        raise MeasurementError("every kernel must have a finite time, but the profile of the runtime has gaps")
    whole, waits, paces = (
        np.array(x, dtype=np.float32) for x in (laps.walls, laps.waits, [*laps.paces, *profiled.paces])
    )
    lost = watch.stop()
    lost = replace(lost, waited=max(lost.waited, waited))
    running = warming + sum(laps.walls) + sum(profiled.walls) + len(kernels) / profiles * session.warm_ups * expected
    return Round(whole, waits if works else np.zeros_like(whole), kernels, lost, seconds, paces, running)


def _warm(session: Session, threads: int) -> float:
    """Run for a while, several threads as often as that takes; returns how long it took (s)."""
    start, done = time.perf_counter(), 0
    least, most = _WARM_RUNS
    while done < least or (time.perf_counter() - start < _WARM and (threads > 1 or done < most)):
        session.run()
        done += 1
    return time.perf_counter() - start


def _runs(session: Session, wanted: int, laps: Laps, most: int) -> Laps:
    laps()
    while laps.calm() < wanted and len(laps.walls) < most:
        session.run()
        laps()
    return laps


def _profiles(session: Session, wanted: int, laps: Laps, tries: int) -> tuple[NDArray[np.float32], Laps]:
    """Profiles until one was calm; of a long network, whose kernels find calm moments by themselves, one try."""
    found = list[NDArray[np.float32]]()
    while not laps.calm() and len(found) < tries:
        laps.pause()
        found.append(session.profile(wanted, laps).astype(np.float32))
    return np.concatenate(found), laps


class Runs(Protocol):
    """Anything that can be run."""

    def run(self) -> Any:
        """Once."""


def timed(session: Runs) -> tuple[float, float]:
    """Wall time and wait of one run (s), eq. (1)."""
    start, cpu = time.perf_counter(), time.thread_time()
    session.run()
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - start
    wait = wall - cpu
    return wall, wait if wait > SWITCH else 0.0


@contextmanager
def quiet_interpreter() -> Iterator[None]:
    """No garbage collection inside, and one before: none where it is off already."""
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
    """Timing of the network; flagged "unstable" where its spread is above `target`."""
    walls = [r.whole[:, None].astype(float) for r in rounds]
    calm, disturbed = [r.calm_whole() for r in rounds], [r.disturbed for r in rounds]
    return summarise(calm, disturbed, met=walls, paces=[r.pace_of_whole for r in rounds], target=target)[0]


def kernel_timings(rounds: Sequence[Round], *, target: float = np.inf) -> list[Timing]:
    """Timing of each kernel, in the order they run.

    No run of a network is the quickest of each of its kernels: low quantiles of single kernels sum to less than
    that of their sum, by 5 % where there are a hundred. Kernels are what a network consists of, so their
    latencies are raised, all by the same factor, to sum to the low quantile of what a profile holds together.
    """
    every = [r.kernels.astype(float) for r in rounds]
    calm, disturbed = [r.calm_kernels() for r in rounds], [r.disturbed for r in rounds]
    together = summarise([r.sum(axis=1, keepdims=True) for r in calm], disturbed)[0].latency
    timings = summarise(calm, disturbed, met=every, paces=[r.pace_of_kernels for r in rounds], target=target)
    single = sum(t.latency for t in timings)
    return [replace(t, latency=t.latency * together / single) for t in timings] if single > 0 else timings
