"""The pace of the CPU: how much slower it is at the moment than it can be.

On a shared machine another tenant's thread on the same core, a lower clock frequency or heat make everything a tenth or
a fifth slower, for milliseconds or for minutes, and no counter that a guest system can read shows it. The time of a
fixed piece of arithmetic whose data stay in the first-level cache does show it: it has a sharp lowest value, and is
longer whenever the CPU is slowed. The pace is

    pace = time of the piece now / lowest time of the piece,               (1)

1 for a CPU that is left alone. A run counts as calm if the pace right before and right after it is at most 1.05.

The lowest time. The minimum over all readings will not do: the longer one looks the lower it gets, and after some hours
it was 2 to 3 % below what any few hundred readings reached again, so that a machine 2 % slower than in its best moments
counted as slowed in nearly every visit. So readings are taken in series of 500, the first one in half a second when the
process begins; the value of a series is its tenth percentile, and the lowest time is the least of these values.
A process that begins while the machine is slowed would never know. The lowest time of this machine is therefore kept in
a file, for two weeks, for the user's later processes.

Several threads of torch. The piece then runs on these threads: each writes its part of an array and reads a part that
another thread wrote. So it also shows what exchanging data between CPUs costs: on a shared machine it took three times
as long for minutes on end, and small layers 1.8 times as long, while each CPU alone was at full speed (as if one of
them had been moved to where it shares no cache with the others). Each reading is the second lowest of five, since the
first ones find caches that a network has emptied. The lowest time of a process varies by up to 4 % with where its
memory pages lie, so a reading is divided by 1.04 before it is compared with 1.05. A reading that is not calm even then
is reported undivided, because the spread is derived from it (`hwcost.measure.statistics`, p of eq. (3)).

Several threads of another runtime. Runtimes with threads of their own keep them spinning for a while after each
inference, torch for 8 ms and ONNX Runtime for 45 ms, which slows whatever runs next. So the piece is timed only before
a visit, and its pace holds for all runs of the visit. The piece begins only when the threads of the runtime sleep, and
the visit only when those of the piece do.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from hwcost.measure.machine import cpu_name
from hwcost.paths import cache_folder

CALM = 1.05  # pace up to which a run counts

_SIZE = 48  # of the matrices: 27 kB in the first-level cache, and too small to be shared out among threads
_REPEATS = 8  # products in a piece, about 30 us together
_PART = 32768  # elements for each thread; torch gives no thread fewer (at::internal::GRAIN_SIZE)
_TOLERANCE = 1.04  # by which the lowest time of a piece of several threads varies from process to process
_SERIES = 500  # readings
_LOW = 10  # one reading in so many: the tenth percentile
_LEARN = 0.5  # s of readings when a process begins
_DOZE = 0.005  # s; longer than a tick at 250 Hz, when systems update the CPU time of threads on other CPUs
_DOZES = 20  # of these sleeps, at most
_KEPT = 14 * 86400.0  # s; a machine that was not as fast for so long has probably changed
_AGAIN = 1.02  # a lowest time up to this factor above the kept one renews the kept one's date

_FILE = "pace.json"
Piece = Callable[[], float]  # does the arithmetic and returns how long it took (s)


class Pace:
    """Tells the pace, eq. (1), of the CPU that this thread runs on.

    Args:
        piece: the arithmetic; by default products of small matrices on this thread.
        learn: how long the first series of readings takes (s).
        earlier: the lowest time (s) that earlier processes reached.
        tolerance: factor by which the lowest times of equal processes differ; paces of calm readings are divided by it.
    """

    def __init__(
        self, piece: Piece | None = None, *, learn: float = _LEARN, earlier: float = math.inf, tolerance: float = 1.0
    ) -> None:
        self._piece = piece or _multiplication()
        self._earlier = earlier
        self._tolerance = tolerance
        self._series: list[float] = []
        self._patience = 1.0  # share of the limit that the next wait may take
        end = time.perf_counter() + learn
        while len(self._series) < _LOW or time.perf_counter() < end:
            self._series.append(self._piece())
        self._lowest = self._low_of_series()

    def read(self) -> float:
        """The pace now, from one reading; takes some tens of microseconds on one thread."""
        return self._measure()

    def _measure(self) -> float:
        seconds = self._piece()
        self._series.append(seconds)
        if len(self._series) == _SERIES:
            self._lowest = min(self._lowest, self._low_of_series())
        pace = seconds / min(self._lowest, self._earlier)
        return pace / self._tolerance if pace <= CALM * self._tolerance else pace

    def _low_of_series(self) -> float:
        """The tenth percentile of the series, which is emptied for the next."""
        low = sorted(self._series)[len(self._series) // _LOW - 1]
        self._series.clear()
        return low

    @property
    def lowest(self) -> float:
        """The lowest time of the piece (s) in this process."""
        return self._lowest

    def wait(self, limit: float) -> bool:
        """Wait until the CPU is calm, `limit` seconds at most; returns whether it is.

        A machine may be slowed for minutes. So each wait in vain halves the limit of the next, until one succeeds.
        """
        end = time.perf_counter() + limit * self._patience
        while self._measure() > CALM:
            if time.perf_counter() > end:
                self._patience /= 2
                return False
        self._patience = 1.0
        return True

    def settle(self) -> None:
        """Wait until other threads of this process are idle; none need be waited for here."""


class PaceBeforeVisit(Pace):
    """The pace that the last `wait` found, for runtimes whose threads the threads of the piece would slow."""

    _found = 1.0

    def read(self) -> float:
        """What the last `wait` found."""
        return self._found

    def _measure(self) -> float:
        self._found = super()._measure()
        return self._found

    def wait(self, limit: float) -> bool:
        """As `Pace.wait`; begins when the runtime's threads sleep and returns when the piece's threads sleep."""
        self.settle()
        calm = super().wait(limit)
        self.settle()
        return calm

    def settle(self) -> None:
        """Wait until no thread of this process uses a CPU, a tenth of a second at most."""
        for _ in range(_DOZES):
            before = time.process_time()
            time.sleep(_DOZE)
            if time.process_time() - before < _DOZE / 5:
                return


class NoPace(Pace):
    """A pace that is always 1: every run counts."""

    def __init__(self) -> None:
        super().__init__(lambda: 1.0, learn=0.0)


def pace_of(threads: int, *, of_torch: bool = True) -> Pace:
    """The pace for measurements on `threads` threads, with the lowest time that earlier processes kept.

    `of_torch` says whether these are torch's threads, or else the runtime's own.
    """
    if threads == 1:
        return Pace(earlier=recall())
    kind = Pace if of_torch else PaceBeforeVisit
    return kind(_exchange(threads), earlier=recall(threads), tolerance=_TOLERANCE)


def remember(pace: Pace, threads: int = 1) -> None:
    """Keep the lowest time of the piece for later processes.

    Does nothing where this process did not come near the time that is kept, or the file cannot be written.
    """
    earlier, times = recall(threads), _read()
    if pace.lowest > earlier * _AGAIN:
        return
    times[_key(threads)] = [min(pace.lowest, earlier), time.time()]
    path = cache_folder() / _FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        begun = path.with_suffix(f".{os.getpid()}")
        begun.write_text(json.dumps(times, indent=1), encoding="utf-8")
        begun.replace(path)
    except OSError:
        return


def recall(threads: int = 1) -> float:
    """The lowest time of the piece (s) on this machine in the last two weeks; infinite where none is kept."""
    seconds, when = _read().get(_key(threads), (math.inf, 0.0))
    return seconds if time.time() - when < _KEPT else math.inf


def _read() -> dict[str, list[float]]:
    """For each `_key` the lowest time (s) and when it was last reached (s since 1970); empty if the file is damaged."""
    try:
        found = json.loads((cache_folder() / _FILE).read_text(encoding="utf-8"))
        return {str(name): [float(seconds), float(when)] for name, (seconds, when) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _key(threads: int) -> str:
    """Everything that must be equal for times of the piece to be comparable; the last words name its form."""
    if threads > 1:
        return f"{cpu_name()}, {platform.node()}, torch {version('torch')}, {threads} threads, second of 5, lasting"
    return f"{cpu_name()}, {platform.node()}, numpy {np.__version__}, lasting"


def _multiplication() -> Piece:
    """Products of small matrices on one thread; a reading is the lower of two."""
    a = np.full((_SIZE, _SIZE), 0.5, np.float32)
    out = np.empty_like(a)

    def block() -> float:
        start = time.perf_counter()
        for _ in range(_REPEATS):
            np.matmul(a, a, out=out)
        return time.perf_counter() - start

    return lambda: min(block(), block())


def _exchange(threads: int) -> Piece:
    """Each of torch's threads writes a part of an array, then reads the part that another wrote."""
    import torch

    torch.set_num_threads(threads)
    own, out = torch.ones(2 * threads * _PART), torch.empty(threads * _PART)
    second_half = own[threads * _PART :]  # a thread's share of this half was written by another thread

    def block() -> float:
        start = time.perf_counter()
        own.mul_(1.0)
        torch.mul(second_half, 1.0, out=out)
        return time.perf_counter() - start

    return lambda: sorted(block() for _ in range(5))[1]
