"""Probes of the machine: matrix products, streams through memory and caches, and calls that do next to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from hwcost.measure.clock import timed
from hwcost.measure.machine import Cache, caches, cpu_flags, free_memory
from hwcost.measure.statistics import latency_and_spread

GEMM_SIZES = (512, 768, 1024, 1536)
_RUNS = 3  # in a visit
_BLOCK = 1e-3  # s that a run should take: short calls are repeated
_LAST_LEVEL_TIMES = 4  # a DRAM array is at least so many times as large as the last-level cache
_SHARED = 32768  # elements for each thread above which torch shares out elementwise ops (at::internal::GRAIN_SIZE)


@dataclass(slots=True)
class Probe:
    """A micro-benchmark: a call, and how much one call does."""

    name: str
    call: Callable[[], Any]
    amount: float = 0.0  # flop or byte of a call
    repeat: int = 1
    rounds: list[float] = field(default_factory=list)  # time of one call (s), for each round

    def run(self) -> None:
        """The call, `repeat` times."""
        for _ in range(self.repeat):
            self.call()

    def visit(self, threads: int) -> None:
        """Take a round: the least of a few runs, on one thread without its waits (`hwcost.measure.clock`, eq. (1))."""
        self.run()
        times = [timed(self) for _ in range(_RUNS)]
        least = min(wall - (wait if threads == 1 else 0.0) for wall, wait in times)
        self.rounds.append(least / self.repeat)

    def result(self) -> tuple[float, float]:
        """Low quantile of the time of one call (s), and its spread."""
        low, spread = latency_and_spread(np.array(self.rounds)[:, None])
        return float(low[0]), float(spread[0])


def compute_probes() -> list[Probe]:
    """Products of square matrices, of each of `dtypes`."""
    probes = []
    for dtype in dtypes():
        for n in GEMM_SIZES:
            a, b = (_matrix(n, dtype) for _ in range(2))
            multiply = torch._int_mm if dtype is torch.int8 else torch.mm
            probes.append(Probe(f"gemm {name_of(dtype)} {n}", partial(multiply, a, b), 2.0 * n**3))
    return probes


def dtypes() -> list[torch.dtype]:
    """float32, and bfloat16 and int8 where the CPU has dot-product or matrix instructions for them."""
    flags = cpu_flags()
    dtypes = [torch.float32]
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        dtypes.append(torch.bfloat16)
    if flags & {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}:
        dtypes.append(torch.int8)
    return dtypes


def _matrix(n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(-8, 8, (n, n), dtype=dtype) if dtype is torch.int8 else torch.rand(n, n).to(dtype)


def name_of(dtype: torch.dtype) -> str:
    """ "float32" of torch.float32."""
    return str(dtype).removeprefix("torch.")


def dram_array_bytes() -> int:
    """Size (byte) of one array of the DRAM probes: four times the last-level cache, less where memory is short."""
    last = max((c.size for c in caches()), default=32 << 20)
    return int(min(max(_LAST_LEVEL_TIMES * last, 64 << 20), free_memory() / 8))


def memory_probes() -> list[Probe]:
    """Streams through arrays that no cache holds."""
    size = dram_array_bytes()
    a, b, c = (torch.ones(size // 4) for _ in range(3))
    return [
        Probe("dram triad", lambda: torch.add(b, c, alpha=3.0, out=a), 3.0 * size),
        Probe("dram copy", lambda: a.copy_(b), 2.0 * size),
        Probe("dram read", lambda: b.sum(), 1.0 * size),
        Probe("dram write", lambda: a.fill_(1.0), 1.0 * size),
    ]


def cache_probes(threads: int) -> list[Probe]:
    """Streams through arrays that a cache level holds and the level below does not, at two sizes for each level.

    The level below is the next one towards the core. A private cache that is too small for arrays which torch shares
    out among threads is probed at sizes for one thread.
    """
    probes, below = [], 0
    for cache in caches():
        sizes = cache_footprints(cache, below, threads)
        if sizes is None and not cache.shared:
            sizes = cache_footprints(cache, below, 1)
        if sizes:
            probes += [probe for i, size in enumerate(sizes) for probe in _in_cache(cache.level, i, size)]
        below = cache.size
    return probes


def cache_footprints(cache: Cache, below: int, threads: int) -> tuple[int, int] | None:
    """Two sizes (byte) of three arrays together that lie in a cache level and not in the next one towards the core.

    Args:
        cache: the level.
        below: size (byte) of the next level towards the core, 0 for L1.
        threads: number of threads that share the arrays. Private caches of several threads together hold more.

    Returns:
        None where no two sizes are far enough apart and large enough for torch to share the arrays out among threads.
    """
    times = 1 if cache.shared else threads
    low = max(2 * below * threads, cache.size * times // 8, shared_from(threads))
    high = cache.size * times * 3 // 4
    return (low, high) if high > 1.4 * low else None


def shared_from(threads: int) -> int:
    """Bytes of three arrays together above which torch shares them out among all threads; 0 for one thread."""
    return 3 * 4 * threads * _SHARED if threads > 1 else 0


def _in_cache(level: str, number: int, size: int) -> list[Probe]:
    """The triad over three arrays of `size` bytes together, and one array of that size read and written."""
    a, b, c = (torch.ones(size // 12) for _ in range(3))
    whole = torch.ones(size // 4)
    return [
        Probe(f"{level} {number}", lambda: torch.add(b, c, alpha=3.0, out=a), float(size // 12 * 12)),
        Probe(f"{level} read {number}", lambda: whole.sum(), float(size // 4 * 4)),
        Probe(f"{level} write {number}", lambda: whole.fill_(1.0), float(size // 4 * 4)),
    ]


def call_probes(threads: int) -> list[Probe]:
    """What a call takes by itself, and what sharing it out takes: an op on all threads, and one thread's part of it."""
    one, all_parts = torch.ones(1), torch.ones(threads * _SHARED)
    probes = [Probe("dispatch", lambda: torch.relu(one))]
    if threads > 1:
        part = all_parts[:_SHARED]
        out_of_all, out_of_part = torch.empty_like(all_parts), torch.empty_like(part)
        probes.append(Probe("shared", lambda: torch.add(all_parts, all_parts, out=out_of_all)))
        probes.append(Probe("part", lambda: torch.add(part, part, out=out_of_part)))
    return probes


def set_repeats(probes: Sequence[Probe]) -> None:
    """Warm each probe up, and have it repeat calls that take less than a millisecond."""
    for probe in probes:
        probe.run()
        seconds, _ = min(timed(probe) for _ in range(3))
        probe.repeat = max(1, math.ceil(_BLOCK / max(seconds, 1e-7)))
