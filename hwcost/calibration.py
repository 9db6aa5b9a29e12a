"""Micro-benchmarks of this machine's ceilings.

Compute   the best rate over several matrix products C[n, n] = A[n, n] B[n, n], 2 n^3 flop each.
DRAM      the triad a = b + s c over arrays of at least four times the last-level cache, written once
          before they are timed, so that no page fault falls into a run (McCalpin, STREAM). It moves
          three arrays; that a written line may be read first (write-allocate) is not counted, as
          compulsory traffic does not count it either: where it is read, the bus carries 4/3 of what
          is stated for the triad, 3/2 for copying and twice as much for writing. Reading, writing
          and copying stand beside the triad.
Caches    the same triad in a part of the cache. A call takes a microsecond by itself, so the rate is
          the slope between two sizes,

              B = (Q2 - Q1) / (t2 - t1).                                   (1)

          Arrays of few elements are not shared out among threads: a cache of one core that is so small is measured
          on one thread, and all threads are given that many times as much.

Dispatch  a call on one element; fork-join: what a call on a few elements takes longer on all threads.
Kinds     what kernels of one kind compute at best in one runtime (`hwcost.kinds`).

All probes are visited in interleaved rounds, as networks are, once the CPU is at its pace or after a moment's
wait; a ceiling is the best of its probe's low quantiles, with its spread. The paper value of compute is lanes x
units x 2 x frequency, where the system shows them; a CPU with dot-product instructions does as many more per
lane as fit in 32 bits.
The system does not show what memory reaches on paper.
"""

from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch

from hwcost import __version__, units
from hwcost.ceiling import ComputeCeiling, MemoryCeiling
from hwcost.device import Device
from hwcost.kinds import kind_ceilings, kind_probes
from hwcost.measure.clock import quiet_interpreter, timed
from hwcost.measure.machine import (
    Cache,
    Watch,
    caches,
    check_threads,
    cpu_flags,
    cpu_name,
    free_memory,
    frequency,
    governor,
    physical_cores,
    pinning,
    vector_lanes,
)
from hwcost.measure.pace import pace_of
from hwcost.measure.statistics import latency_and_spread

Progress = Callable[[float, float, str], None]

ROUNDS = 12
_RUNS = 3  # a visit
_BLOCK = 1e-3  # s; short calls are repeated to fill this
_GEMM_SIZES = (512, 768, 1024, 1536)
_LAST_LEVEL_TIMES = 4  # least size of a DRAM array
_SHARED = 32768  # elements; longer elementwise calls of torch are shared out among threads (at::internal::GRAIN_SIZE)
_WAIT = 0.05  # s at most for the CPU to find its pace, before each visit
_NOISY = 0.05  # share of the time waited for a CPU, or spread, above which the machine was not quiet


@dataclass(slots=True)
class Probe:
    """One thing to time: a call, and how much one call does."""

    name: str
    call: Callable[[], Any]
    amount: float = 0.0  # flop or byte of a call
    repeat: int = 1
    rounds: list[float] = field(default_factory=list)  # s of one call, per round

    def run(self) -> None:
        """The call, `repeat` times."""
        for _ in range(self.repeat):
            self.call()

    def visit(self, threads: int) -> None:
        """A round: the least of a few runs."""
        self.run()
        times = [timed(self) for _ in range(_RUNS)]
        least = min(wall - (wait if threads == 1 else 0.0) for wall, wait in times)
        self.rounds.append(least / self.repeat)

    def result(self) -> tuple[float, float]:
        """Time of one call (s) and its spread."""
        low, spread = latency_and_spread(np.array(self.rounds)[:, None])
        return float(low[0]), float(spread[0])


def calibrate(threads: int = 1, *, runtime: str = "torch-eager", progress: Progress | None = None) -> Device:
    """Measure this machine's ceilings on `threads` threads; takes about 20 s.

    Args:
        threads: at most the CPUs that this process may use.
        runtime: whose kinds of kernel are measured besides.
        progress: told (rounds done, rounds planned, what it is at).

    Raises:
        MeasurementError: a bad number of threads.
        RuntimeUnavailable: the runtime's package is not installed.
    """
    check_threads(threads)
    before = torch.get_num_threads()
    with pinning(threads) as pinned, torch.inference_mode(), quiet_interpreter():
        torch.set_num_threads(threads)
        try:
            probes = [*_compute_probes(), *_memory_probes(), *_cache_probes(threads), *_call_probes(threads)]
            _shorten(probes)
            pairs = kind_probes(runtime, threads)
            pace = pace_of(threads)
            watch, start = Watch(all_threads=threads > 1), time.monotonic()
            for number in range(ROUNDS):
                for probe in probes:
                    pace.wait(_WAIT)
                    probe.visit(threads)
                for small, large in pairs:  # visited together, so that both meet the same machine
                    pace.wait(_WAIT)
                    small.visit()
                    large.visit()
                if progress:
                    progress(number + 1, ROUNDS, "measuring ceilings")
            lost = watch.stop()
            waited = (lost.waited + lost.steal) / (time.monotonic() - start)
        finally:
            torch.set_num_threads(before)
    device = _device({p.name: p for p in probes}, threads, pinned=pinned, waited=waited)
    return device.model_copy(update={"kinds": kind_ceilings(pairs, device, runtime, threads)})


# -- probes -----------------------------------------------------------------------------------------


def _compute_probes() -> list[Probe]:
    probes = []
    for dtype in _dtypes():
        for n in _GEMM_SIZES:
            a, b = (_matrix(n, dtype) for _ in range(2))
            multiply = torch._int_mm if dtype is torch.int8 else torch.mm
            probes.append(Probe(f"gemm {_name(dtype)} {n}", partial(multiply, a, b), 2.0 * n**3))
    return probes


def _dtypes() -> list[torch.dtype]:
    """float32, and those for which the CPU has matrix instructions of their own."""
    flags = cpu_flags()
    dtypes = [torch.float32]
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        dtypes.append(torch.bfloat16)
    if flags & {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}:
        dtypes.append(torch.int8)
    return dtypes


def _matrix(n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(-8, 8, (n, n), dtype=dtype) if dtype is torch.int8 else torch.rand(n, n).to(dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dram_array_bytes() -> int:
    """Size of one array of the DRAM probes: four times the last-level cache, less where memory is short."""
    last = max((c.size for c in caches()), default=32 << 20)
    return int(min(max(_LAST_LEVEL_TIMES * last, 64 << 20), free_memory() / 8))


def _memory_probes() -> list[Probe]:
    size = dram_array_bytes()
    a, b, c = (torch.ones(size // 4) for _ in range(3))
    return [
        Probe("dram triad", lambda: torch.add(b, c, alpha=3.0, out=a), 3.0 * size),
        Probe("dram copy", lambda: a.copy_(b), 2.0 * size),
        Probe("dram read", lambda: b.sum(), 1.0 * size),
        Probe("dram write", lambda: a.fill_(1.0), 1.0 * size),
    ]


def _cache_probes(threads: int) -> list[Probe]:
    """Two sizes for each cache level that lie well inside it and outside the level below."""
    probes, below = [], 0
    for cache in caches():
        sizes = cache_footprints(cache, below, threads)
        if sizes is None and not cache.shared:
            sizes = cache_footprints(cache, below, 1)
        if sizes:
            probes += [_triad(f"{cache.level} {i}", size) for i, size in enumerate(sizes)]
        below = cache.size
    return probes


def cache_footprints(cache: Cache, below: int, threads: int) -> tuple[int, int] | None:
    """Bytes of three arrays together at two sizes; None where the levels lie too close, or the arrays are too short
    to be shared out.

    A private cache serves one thread each, so `threads` of them hold that many times as much.
    """
    times = 1 if cache.shared else threads
    low = max(2 * below * threads, cache.size * times // 8, _shared_from(threads))
    high = cache.size * times * 3 // 4
    return (low, high) if high > 1.4 * low else None


def _shared_from(threads: int) -> int:
    """Bytes of three arrays together from which each thread gets a part; 0 for one, which needs no sharing."""
    return 3 * 4 * threads * _SHARED if threads > 1 else 0


def _triad(name: str, size: int) -> Probe:
    a, b, c = (torch.ones(size // 12) for _ in range(3))
    return Probe(name, lambda: torch.add(b, c, alpha=3.0, out=a), float(size // 12 * 12))


def _call_probes(threads: int) -> list[Probe]:
    one, few = torch.ones(1), torch.ones(threads * _SHARED)
    probes = [Probe("dispatch", lambda: torch.relu(one))]
    if threads > 1:
        parts = few[:_SHARED]
        alone = torch.empty_like(parts)
        shared = torch.empty_like(few)
        probes.append(Probe("shared", lambda: torch.add(few, few, out=shared)))
        probes.append(Probe("part", lambda: torch.add(parts, parts, out=alone)))
    return probes


def _shorten(probes: Sequence[Probe]) -> None:
    """Warm up, and repeat short calls to fill a block."""
    for probe in probes:
        probe.run()
        seconds, _ = min(timed(probe) for _ in range(3))
        probe.repeat = max(1, math.ceil(_BLOCK / max(seconds, 1e-7)))


# -- the device -------------------------------------------------------------------------------------


def _device(probes: dict[str, Probe], threads: int, *, pinned: bool, waited: float) -> Device:
    compute = tuple(_compute(probes, _name(dtype), threads) for dtype in _dtypes())
    memory = tuple(m for cache in caches() if (m := _cache(probes, cache, threads)))
    dram = _dram(probes, threads)
    spreads = [c.spread or 0.0 for c in (*compute, dram)]
    quiet = waited <= _NOISY and max(spreads) <= _NOISY
    return Device(
        name=re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-") or "this-machine",
        description=f"{cpu_name()}, measured on {threads} thread{'s' if threads > 1 else ''}",
        source="/proc and /sys of the machine",
        cores=physical_cores(),
        lanes=vector_lanes(cpu_flags()),
        compute=compute,
        memory=(*memory, dram),
        dispatch=probes["dispatch"].result()[0],
        host={
            "host": platform.node(),
            "cpu": cpu_name(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "threads": str(threads),
            "pinned": "yes" if pinned else "no",
            "governor": governor(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "hwcost": __version__,
            "quiet": "yes" if quiet else f"no: waited {waited:.0%} of the time, largest spread {max(spreads):.0%}",
        }
        | _fork_join(probes)
        | _left_out(probes, {m.level for m in memory}),
    )


def joined(new: Device, old: Device) -> Device:
    """A calibration with the ceilings that an older one of the same CPU has of other thread counts, and its date;
    and with those that it has of kinds in other runtimes."""
    if old.host.get("cpu") != new.host["cpu"]:
        return new
    counts = {c.threads for c in new.compute}
    before = {f"{old.host.get('threads')} threads": f"{old.host.get('date')}, quiet: {old.host.get('quiet')}"}
    before |= {key: said for key, said in old.host.items() if key.endswith(" threads")}
    of_kinds = {(k.runtime, k.threads) for k in new.kinds}
    kept = {key: said for key, said in before.items() if key not in {f"{n} threads" for n in counts}}
    return new.model_copy(
        update={
            "compute": (*(c for c in old.compute if c.threads not in counts), *new.compute),
            "memory": (*(m for m in old.memory if m.threads not in counts), *new.memory),
            "kinds": (*(k for k in old.kinds if (k.runtime, k.threads) not in of_kinds), *new.kinds),
            "host": {**new.host, **kept},
        }
    )


def _compute(probes: dict[str, Probe], dtype: str, threads: int) -> ComputeCeiling:
    found = [p for name, p in probes.items() if name.startswith(f"gemm {dtype} ")]
    best = max(found, key=lambda p: p.amount / p.result()[0])
    seconds, spread = best.result()
    paper, paper_source = paper_peak(threads, dtype)
    sizes = ", ".join(map(str, _GEMM_SIZES))
    return ComputeCeiling(
        dtype=dtype,
        threads=threads,
        measured=best.amount / seconds,
        measured_source=f"torch.mm, n = {best.name.rpartition(' ')[2]}, the best of n = {sizes}",
        spread=spread,
        paper=paper,
        paper_source=paper_source,
    )


_PER_LANE = {"float32": 1, "bfloat16": 2, "int8": 4}  # products of 32 bits' worth of numbers (VNNI, AVX512-BF16)
_TILES = {"bfloat16": ("amx_bf16", 1024), "int8": ("amx_int8", 2048)}  # flop per cycle of a core's matrix unit (AMX)


def paper_peak(threads: int, dtype: str = "float32") -> tuple[float | None, str]:
    """Peak rate (flop/s) by the instruction set and the frequency shown, with its derivation."""
    flags, hertz = cpu_flags(), frequency()
    lanes = vector_lanes(flags)
    if not lanes or not hertz:
        return None, ""
    shown = f"{units.format(hertz, 'hertz')}, the frequency the system shows"
    flag, per_cycle = _TILES.get(dtype, ("", 0))
    if flag in flags:
        return threads * per_cycle * hertz, f"{threads} x {per_cycle} flop of the matrix unit x {shown}"
    products = _PER_LANE[dtype]
    flop = lanes * products * 2 * 2  # two units, a multiply-add is two flop
    each = f" x {products} products" if products > 1 else ""
    return threads * flop * hertz, f"{threads} x {lanes} lanes{each} x 2 units x 2 flop x {shown}"


def _dram(probes: dict[str, Probe], threads: int) -> MemoryCeiling:
    seconds, spread = probes["dram triad"].result()
    size = probes["dram triad"].amount / 3
    last = max((c.size for c in caches()), default=0)
    others = ", ".join(
        f"{name} {units.format(p.amount / p.result()[0], 'byte/s')}"
        for name in ("copy", "read", "write")
        for p in [probes[f"dram {name}"]]
    )
    arrays = units.format(size, "byte") + (f", {size / last:.3g} times the last-level cache" if last else "")
    return MemoryCeiling(
        level="DRAM",
        threads=threads,
        measured=probes["dram triad"].amount / seconds,
        measured_source=f"triad over arrays of {arrays}, write-allocate not counted; {others}",
        spread=spread,
    )


def _cache(probes: dict[str, Probe], cache: Cache, threads: int) -> MemoryCeiling | None:
    """Eq. (1); None where the level was not measured, or noise ate the slope."""
    if f"{cache.level} 0" not in probes:
        return None
    small, large = probes[f"{cache.level} 0"], probes[f"{cache.level} 1"]
    (t1, s1), (t2, s2) = small.result(), large.result()
    if t2 <= t1:
        return None
    between = " and ".join(units.format(p.amount, "byte") for p in (small, large))
    alone = large.amount < _shared_from(threads)
    times = threads if alone else 1
    return MemoryCeiling(
        level=cache.level,
        threads=threads,
        size=float(cache.size),
        measured=times * (large.amount - small.amount) / (t2 - t1),
        measured_source=f"triad, slope between {between}" + (f" of one thread, times {times}" if alone else ""),
        spread=math.hypot(t1 * s1, t2 * s2) / (t2 - t1),
    )


def _left_out(probes: dict[str, Probe], levels: Container[str]) -> dict[str, str]:
    """Caches that have no ceiling, and why."""
    missing = [cache.level for cache in caches() if cache.level not in levels]
    why = {level: "noise" if f"{level} 0" in probes else "too close to the level below" for level in missing}
    return {"left_out": ", ".join(f"{level}: {reason}" for level, reason in why.items())} if why else {}


def _fork_join(probes: dict[str, Probe]) -> dict[str, str]:
    if "shared" not in probes:
        return {}
    extra = probes["shared"].result()[0] - probes["part"].result()[0]
    return {"fork_join": units.format(max(extra, 0.0), "second")}
