"""The pace of the CPUs: whether the machine gives now what it can.

On a shared machine another tenant's thread on the same core, a lower clock or heat slow everything down
by a tenth or a fifth, for milliseconds or for minutes, and no counter of the guest shows it. A piece of
arithmetic that stays in the first cache does: its time has one sharp lowest value, or it is longer.

    pace = time of the piece / the lowest time that lasts,                 (1)

about 1 for a machine that is left alone. A run counts as calm if the pace right before and right after it
is at most 1.05. A time lasts if a tenth of a row of 500 readings reached it, or a tenth of the half second in
which a process learns: the lowest that was ever seen, or the tenth lowest, is lower the longer one looks. After
some hours of campaigns it was 2 to 3 % below what any row had reached, and a machine that was 2 % slower than in
its best minutes counted as slowed in nearly every visit.
A process that begins while the machine is slowed would take that for its pace, and others would never
know, so the lowest time of this machine is kept for the user's later processes, for two weeks.

Where several threads of torch work, the piece is theirs: each writes its part of an array and then reads a part that
another one wrote. So it also tells what handing each other data costs: on a shared machine that took three times as
long for minutes on end, and small layers 1.8 times, while each CPU by itself was at its pace (as if one had been moved
to another cache). Of five such readings in a row the second counts, since the first two find caches that a network has
emptied. Here the lowest time is less sharp: where pages lie moves that of a process by 4 %. So what is within
that of the lowest time is at its pace; what takes longer is as slow as it is, since spreads rest on it.

Other runtimes bring threads of their own, and whoever's are done spin for a while, torch's for 8 ms, ONNX Runtime's
for 45, in the way of those that come next: there the piece is asked before a visit, what it said holds for all of the
visit, and nothing begins before the threads of others have fallen asleep.
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
from hwcost.paths import kept

CALM = 1.05  # pace up to which a run counts

_SIZE = 48  # of the matrices: 27 kB of the first cache, and below what linear algebra libraries split over threads
_REPEATS = 8  # products in a piece, about 30 us together
_PLACES = 1.04  # by which the piece of several threads may differ though nothing slows it
_PART = 32768  # elements; torch gives no thread fewer (at::internal::GRAIN_SIZE)
_ROW = 500  # readings
_LASTS = 10  # one reading in so many
_DOZE = 0.005  # s, longer than a tick at 250 Hz, by which systems count what threads on other CPUs use
_DOZES = 20  # at most
_LEARN = 0.5  # s
_FORGET = 14 * 86400.0  # s; a machine that was not so fast for so long has become another one
_AGAIN = 1.02  # a lowest time that is reached up to this factor is reached again

_FILE = "pace.json"
Piece = Callable[[], float]


class Pace:
    """Reads the pace, eq. (1), of the CPU that this thread runs on."""

    def __init__(
        self, piece: Piece | None = None, *, learn: float = _LEARN, known: float = math.inf, within: float = 1.0
    ) -> None:
        self._piece = piece or _multiply()
        self._known = known  # s, a lowest time of before
        self._within = within  # of the lowest time, up to which a time is as low
        self._row: list[float] = []
        self._hope = 1.0  # share of the longest wait that is worth while
        end = time.perf_counter() + learn
        while len(self._row) < _LASTS or time.perf_counter() < end:
            self._row.append(self._piece())
        self._lowest = self._lasting()

    def read(self) -> float:
        """The pace now; takes some tens of microseconds."""
        return self._look()

    def _look(self) -> float:
        seconds = self._piece()
        self._row.append(seconds)
        if len(self._row) == _ROW:
            self._lowest = min(self._lowest, self._lasting())
        times = seconds / min(self._lowest, self._known)
        return times / self._within if times <= CALM * self._within else times

    def _lasting(self) -> float:
        """What a tenth of the row reached; the next row begins."""
        reached = sorted(self._row)[len(self._row) // _LASTS - 1]
        self._row.clear()
        return reached

    @property
    def lowest(self) -> float:
        """The lowest time of the piece (s) that lasted since it began."""
        return self._lowest

    def wait(self, limit: float) -> bool:
        """Wait until the machine is calm, `limit` seconds at most; tells whether it is.

        A machine may be slowed for minutes: each wait in vain halves the next, until one is not.
        """
        end = time.perf_counter() + limit * self._hope
        while self._look() > CALM:
            if time.perf_counter() > end:
                self._hope /= 2
                return False
        self._hope = 1.0
        return True

    def settle(self) -> None:
        """Nothing to wait for: no threads but those that work."""


class PaceBefore(Pace):
    """The pace that the last wait found: of work whose threads the piece's would be in the way of."""

    _found = 1.0

    def read(self) -> float:
        """What the last wait found."""
        return self._found

    def _look(self) -> float:
        self._found = super()._look()
        return self._found

    def wait(self, limit: float) -> bool:
        """As `Pace.wait`, from when other threads sleep until the piece's do."""
        self.settle()
        calm = super().wait(limit)
        self.settle()
        return calm

    def settle(self) -> None:
        """Wait until no thread of this process is at work, a tenth of a second at most."""
        for _ in range(_DOZES):
            before = time.process_time()
            time.sleep(_DOZE)
            if time.process_time() - before < _DOZE / 5:
                return


class NoPace(Pace):
    """Takes the machine as it is."""

    def __init__(self) -> None:
        super().__init__(lambda: 1.0, learn=0.0)


def pace_of(threads: int, *, of_torch: bool = True) -> Pace:
    """The pace for a campaign on so many threads, torch's own or those that another runtime brings."""
    if threads == 1:
        return Pace(known=recall())
    kind = Pace if of_torch else PaceBefore
    return kind(_share(threads), known=recall(threads), within=_PLACES)


def remember(pace: Pace, threads: int = 1) -> None:
    """Keep the lowest time of a piece for later processes; where nothing can be written they learn by themselves."""
    known, times = recall(threads), _read()
    if pace.lowest > known * _AGAIN:
        return
    times[_here(threads)] = [min(pace.lowest, known), time.time()]
    path = kept() / _FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        begun = path.with_suffix(f".{os.getpid()}")
        begun.write_text(json.dumps(times, indent=1), encoding="utf-8")
        begun.replace(path)
    except OSError:
        return


def recall(threads: int = 1) -> float:
    """The lowest time (s) that this machine reached of late, infinite where nobody knows."""
    seconds, when = _read().get(_here(threads), (math.inf, 0.0))
    return seconds if time.time() - when < _FORGET else math.inf


def _read() -> dict[str, list[float]]:
    """Lowest times and when they were reached last, by machine; nothing of a file that is not whole."""
    try:
        found = json.loads((kept() / _FILE).read_text(encoding="utf-8"))
        return {str(name): [float(seconds), float(when)] for name, (seconds, when) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _here(threads: int) -> str:
    """What must be the same for times of the piece to be."""
    if threads > 1:
        return f"{cpu_name()}, {platform.node()}, torch {version('torch')}, {threads} threads, second of 5, lasting"
    return f"{cpu_name()}, {platform.node()}, numpy {np.__version__}, lasting"


def _multiply() -> Piece:
    a = np.full((_SIZE, _SIZE), 0.5, np.float32)
    out = np.empty_like(a)

    def block() -> float:
        start = time.perf_counter()
        for _ in range(_REPEATS):
            np.matmul(a, a, out=out)
        return time.perf_counter() - start

    return lambda: min(block(), block())


def _share(threads: int) -> Piece:
    import torch

    torch.set_num_threads(threads)
    own, out = torch.ones(2 * threads * _PART), torch.empty(threads * _PART)
    of_others = own[threads * _PART :]  # whose first part another thread wrote than the one that reads it

    def block() -> float:
        start = time.perf_counter()
        own.mul_(1.0)
        torch.mul(of_others, 1.0, out=out)
        return time.perf_counter() - start

    return lambda: sorted(block() for _ in range(5))[1]
