"""The clock: one visit to one network.

A visit runs the network once unmeasured, so that its weights and code are back in the caches that
other networks have emptied since, then a few times as it is, then a few times with the time of each
kernel. Garbage collection is off meanwhile, so that no pause falls into a run.

What one thread takes is wall time less the time in which it was ready and another process had the
CPU,

    t = wall - wait,    wait = wall - CPU time of the thread,               (1)

where the wait is told from noise: it is a context switch or nothing. With several threads the main
one sleeps while others work, so there t is the wall time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwcost.measure import MeasurementError, Timing
from hwcost.measure.machine import Disturbance, Watch
from hwcost.measure.statistics import summarise
from hwcost.runtimes.base import SWITCH, Session

_VISIT = 0.025  # s of whole runs that a visit aims at
_RUNS = (2, 12)  # whole runs a visit, least and most
_PROFILES = (1, 4)
_SHARE = 0.05  # of a visit that may be stolen or waited before it counts as disturbed
_STABLE = 0.05  # relative change between runs that ends the warm-up
_WARM_RUNS = (3, 20)


@dataclass(frozen=True, slots=True)
class Round:
    """What one visit saw; times in s."""

    whole: NDArray[np.float32]  # [runs], wall time
    waits: NDArray[np.float32]  # [runs], eq. (1)
    kernels: NDArray[np.float32]  # [profiles, kernels]
    disturbance: Disturbance
    seconds: float  # the measured part of the visit

    @property
    def disturbed(self) -> bool:
        """Whether others took so much of the visit that it should be repeated."""
        return self.disturbance.waited + self.disturbance.steal > _SHARE * self.seconds


def warm_up(session: Session) -> float:
    """Run until two runs agree within 5 % with the best so far; returns that best (s)."""
    best, agreed = timed(session)[0], 0
    for done in range(1, _WARM_RUNS[1]):
        seconds = timed(session)[0]
        agreed = agreed + 1 if abs(seconds - best) <= _STABLE * best else 0
        best = min(best, seconds)
        if agreed >= 2 and done + 1 >= _WARM_RUNS[0]:
            break
    return best


def take_round(session: Session, expected: float, *, threads: int) -> Round:
    """Visit a network that takes about `expected` seconds on `threads` threads.

    Raises:
        MeasurementError: a profile gave another number of kernels than before, or no finite times.
    """
    runs = int(np.clip(_VISIT / expected, *_RUNS))
    profiles = int(np.clip(_VISIT / 2 / expected, *_PROFILES))
    session.run()
    watch, start = Watch(), time.perf_counter()
    times = np.array([timed(session) for _ in range(runs)])
    kernels = session.profile(profiles).astype(np.float32)
    seconds = time.perf_counter() - start
    if not np.isfinite(kernels).all():
        raise MeasurementError("every kernel must have a finite time, but the profile of the runtime has gaps")
    whole, waits = times.T.astype(np.float32)
    return Round(whole, waits if threads == 1 else np.zeros_like(whole), kernels, watch.stop(), seconds)


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
    """No garbage collection inside."""
    was = gc.isenabled()
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
    unloaded = [w - r.waits[:, None].astype(float) for w, r in zip(walls, rounds, strict=True)]
    return summarise(unloaded, [r.disturbed for r in rounds], met=walls, target=target)[0]


def kernel_timings(rounds: Sequence[Round], *, target: float = np.inf) -> list[Timing]:
    """Timing of each kernel, in the order they run."""
    return summarise([r.kernels.astype(float) for r in rounds], [r.disturbed for r in rounds], target=target)
