"""A calibration: this machine's ceilings, measured with micro-benchmarks ("probes").

Compute    The best rate of several matrix products C[n, n] = A[n, n] B[n, n] of 2 n^3 flop each. The paper value is
           from the instruction set and the frequency (`hwcost.calibration.datasheet`).
DRAM       The triad a = b + s c (McCalpin, STREAM) over arrays of at least four times the last-level cache (less where
           memory is short), which are written once before they are timed so that no run meets page faults. It moves
           three arrays. Hardware may also read a line before it writes to it (write-allocate). This is not counted, as
           it is not in compulsory traffic; where it happens, the memory bus carries 4/3 of what is stated for the
           triad, 3/2 for copying and twice as much for writing. The ceiling's source also tells the rates of reading,
           writing and copying. There is no paper value, because the system does not show any.
Caches     The same triad in part of a cache. Since a call takes a microsecond by itself, the rate is the slope between
           two sizes Q,

               B = (Q2 - Q1) / (t2 - t1).                                  (1)

           A level whose slope is mostly noise gets no ceiling. Arrays of few elements are not shared out among
           threads; where a private cache holds no larger ones, it is measured on one thread, and several threads are
           taken to reach that many times the rate.
Dispatch   The time of a call on one element.
Fork-join  How much longer an op on all threads takes than one thread's part of it.
Kinds      The rate that kernels of one kind reach at best in one runtime (`hwcost.calibration.kind_probes`).

All probes are visited in interleaved rounds, as networks are in a campaign (`hwcost.measure`), and each visit waits
a moment for a calm CPU. The time of a probe is the low quantile over its rounds.
"""

from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from hwcost import units
from hwcost.calibration.datasheet import datasheet_peak
from hwcost.calibration.kind_probes import kind_ceilings, kind_probes
from hwcost.calibration.machine_probes import (
    GEMM_SIZES,
    Probe,
    cache_probes,
    call_probes,
    compute_probes,
    dtypes,
    memory_probes,
    name_of,
    set_repeats,
    shared_from,
)
from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.measure.clock import quiet_interpreter
from hwcost.measure.disturbance import Watch
from hwcost.measure.machine import (
    Cache,
    caches,
    check_threads,
    cpu_flags,
    cpu_name,
    governor,
    physical_cores,
    vector_lanes,
)
from hwcost.measure.pace import pace_of
from hwcost.measure.process import pinning, torch_threads
from hwcost.version import __version__

Progress = Callable[[float, float, str], None]

ROUNDS = 12
_WAIT = 0.05  # s that each visit waits for a calm CPU, at most
_NOISY = 0.05  # spread, or share of the time that was waited for a CPU, above which the machine was not quiet
_SLOWED = 0.5  # share of the visits that found no calm CPU, above which the machine was not quiet
_TOO_NOISY = 0.5  # spread above which a cache gets no ceiling
_LEAST_ROUNDS = 6
_BUDGET = 35.0  # s after which no more than these are taken


def calibrate(threads: int = 1, *, runtime: str = "torch-eager", progress: Progress | None = None) -> Device:
    """Measure this machine's ceilings on `threads` threads; takes up to a minute, longer with a runtime that compiles.

    Args:
        threads: at most the number of CPUs that this process may use.
        runtime: in which the kinds of kernel are measured.
        progress: called with (rounds done, rounds planned, what is done now).

    Raises:
        MeasurementError: a bad number of threads.
        RuntimeUnavailable: the runtime's package is not installed.
    """
    check_threads(threads)
    with pinning(threads) as pinned, torch_threads(threads), torch.inference_mode(), quiet_interpreter():
        probes = [*compute_probes(), *memory_probes(), *cache_probes(threads), *call_probes(threads)]
        set_repeats(probes)
        with torch_threads(1):
            pairs = kind_probes(runtime)
        pace = pace_of(threads)
        watch, start = Watch(all_threads=threads > 1), time.monotonic()
        calm: list[bool] = []
        for number in range(ROUNDS):
            for probe in probes:
                calm.append(pace.wait(_WAIT))
                probe.visit(threads)
            for small, large in pairs:  # right after one another, so that the machine is the same for both
                calm.append(pace.wait(_WAIT))
                with torch_threads(1):
                    small.visit()
                    large.visit()
            late = number + 1 >= _LEAST_ROUNDS and time.monotonic() - start > _BUDGET
            if progress:
                progress(ROUNDS if late else number + 1, ROUNDS, "measuring ceilings")
            if late:
                break
        lost = watch.stop()
        waited = (lost.waited + lost.steal) / (time.monotonic() - start) / threads
    noise = Noise(waited=waited, slowed=1 - sum(calm) / len(calm))
    device = _device({p.name: p for p in probes}, threads, pinned=pinned, noise=noise)
    return device.model_copy(update={"kinds": kind_ceilings(pairs, device, runtime, threads)})


# -- the device -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Noise:
    """What other processes took of the machine during a calibration."""

    waited: float  # share of the time that threads were ready to run and had no CPU
    slowed: float  # share of the visits that found no calm CPU

    def quiet(self, spread: float) -> str:
        """ "yes" where the machine was quiet, else "no" and why; `spread` is the largest one of the ceilings."""
        if self.waited <= _NOISY and self.slowed <= _SLOWED and spread <= _NOISY:
            return "yes"
        why = f"waited {self.waited:.0%} of the time, slowed in {self.slowed:.0%} of visits"
        return f"no: {why}, largest spread {spread:.0%}"


def _device(probes: dict[str, Probe], threads: int, *, pinned: bool, noise: Noise) -> Device:
    """The device, from the rounds of the probes."""
    compute = tuple(_compute(probes, name_of(dtype), threads) for dtype in dtypes())
    memory = tuple(m for cache in caches() if (m := _cache(probes, cache, threads)))
    dram = _dram(probes, threads)
    spreads = [c.spread or 0.0 for c in (*compute, dram)]
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
            "rounds": str(len(probes["dispatch"].rounds)),
            "quiet": noise.quiet(max(spreads)),
        }
        | _fork_join(probes)
        | _left_out(probes, {m.level for m in memory}),
    )


def joined(new: Device, old: Device) -> Device:
    """A new calibration, to which is added what an older one of the same CPU has and the new one did not measure.

    These are the ceilings for other numbers of threads, whose dates go to `host`, and the kinds in other runtimes.
    Where the CPU is another one, the new calibration is returned as it is.
    """
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
    paper, paper_source = datasheet_peak(threads, dtype)
    sizes = ", ".join(map(str, GEMM_SIZES))
    return ComputeCeiling(
        dtype=dtype,
        threads=threads,
        measured=best.amount / seconds,
        measured_source=f"torch.mm, n = {best.name.rpartition(' ')[2]}, the best of n = {sizes}",
        spread=spread,
        paper=paper,
        paper_source=paper_source,
    )


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
    """The ceiling of a cache, eq. (1); None where it was not measured, or the slope is mostly noise."""
    found = _slope(probes, cache.level)
    if found is None:
        return None
    small, large = (probes[f"{cache.level} {i}"] for i in (0, 1))
    between = " and ".join(units.format(p.amount, "byte") for p in (small, large))
    alone = large.amount < shared_from(threads)
    times = threads if alone else 1
    others = [(what, _slope(probes, f"{cache.level} {what}")) for what in ("read", "write")]
    told = "".join(f"; {what} {units.format(times * rate[0], 'byte/s')}" for what, rate in others if rate)
    return MemoryCeiling(
        level=cache.level,
        threads=threads,
        size=float(cache.size),
        measured=times * found[0],
        measured_source=f"triad, slope between {between}" + (f" of one thread, times {times}" if alone else "") + told,
        spread=found[1],
    )


def _slope(probes: dict[str, Probe], name: str) -> tuple[float, float] | None:
    """Eq. (1) (byte/s) with its spread; None where it was not measured, or is mostly noise."""
    if f"{name} 0" not in probes:
        return None
    small, large = probes[f"{name} 0"], probes[f"{name} 1"]
    (t1, s1), (t2, s2) = small.result(), large.result()
    if t2 <= t1:
        return None
    spread = math.hypot(t1 * s1, t2 * s2) / (t2 - t1)
    return None if spread > _TOO_NOISY else ((large.amount - small.amount) / (t2 - t1), spread)


def _left_out(probes: dict[str, Probe], levels: Container[str]) -> dict[str, str]:
    """Entry of `host`: which caches have no ceiling, and why; empty where all have one."""
    missing = [cache.level for cache in caches() if cache.level not in levels]
    why = {level: "noise" if f"{level} 0" in probes else "too close to the level below" for level in missing}
    return {"left_out": ", ".join(f"{level}: {reason}" for level, reason in why.items())} if why else {}


def _fork_join(probes: dict[str, Probe]) -> dict[str, str]:
    """Entry of `host`: the time that sharing an op out among all threads takes; empty for one thread."""
    if "shared" not in probes:
        return {}
    extra = probes["shared"].result()[0] - probes["part"].result()[0]
    return {"fork_join": units.format(max(extra, 0.0), "second")}
