"""What this machine is: CPU, instruction set, caches, memory, and the environment of measurements taken on it.

Read from /proc and /sys. What a system does not show there is left out or given as unknown, never guessed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from hwcost.measure.types import Environment, MeasurementError
from hwcost.runtimes.base import Runtime
from hwcost.runtimes.registry import get_runtime, runtime_names

TICK = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01  # s, unit of the times in /proc/stat
_LEVELS: Mapping[str, Literal["L1", "L2", "L3"]] = {"1": "L1", "2": "L2", "3": "L3"}


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Model name of the CPU."""
    for line in read_lines("/proc/cpuinfo"):
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def cpu_family() -> tuple[str, str]:
    """Vendor and family of the CPU, such as ("AuthenticAMD", "25"); empty text where the system does not say."""
    pairs = (line.partition(":") for line in read_lines("/proc/cpuinfo"))
    shown = {key.strip(): value.strip() for key, _, value in pairs}
    return shown.get("vendor_id", ""), shown.get("cpu family", "")


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags, empty where the system does not show them."""
    for line in read_lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def vector_lanes(flags: frozenset[str]) -> int | None:
    """How many float32 numbers a vector register holds, by these instruction-set flags; None where none says."""
    if "avx512f" in flags:
        return 16
    return 8 if "avx2" in flags else 4 if flags & {"sse2", "asimd", "neon"} else None


def allowed_cpus() -> tuple[int, ...]:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def governor() -> str:
    """Frequency governor of the first CPU, "unknown" where the system hides it."""
    lines = read_lines("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return lines[0].strip() if lines else "unknown"


def frequency() -> float:
    """Highest frequency of the first CPU (Hz), else the highest of all at present; 0 where the system shows neither."""
    lines = read_lines("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if lines:
        return float(lines[0]) * 1e3
    shown = [float(line.partition(":")[2]) for line in read_lines("/proc/cpuinfo") if line.startswith("cpu MHz")]
    return max(shown, default=0.0) * 1e6


def physical_cores() -> int:
    """Number of cores, where two hardware threads of a core count once; of CPUs where the system shows no cores."""
    pairs, package = set(), ""
    for line in read_lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "physical id":
            package = value
        elif key.strip() == "core id":
            pairs.add((package, value))
    return len(pairs) or os.cpu_count() or 1


def free_memory() -> float:
    """Memory (byte) that can be allocated without swapping; 4 GB where the system does not say."""
    for line in read_lines("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            return float(line.split()[1]) * 1024
    return 4e9


@dataclass(frozen=True, slots=True)
class Cache:
    """A data cache."""

    level: Literal["L1", "L2", "L3"]
    size: int  # byte
    shared: bool  # by several cores


@lru_cache(maxsize=1)
def caches() -> tuple[Cache, ...]:
    """Data caches of the first CPU, from L1 outwards; empty where the system does not show them."""
    found = []
    core = read_lines("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list") or ["0"]
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, cpus = (read_lines(f"{folder}/{f}") for f in ("level", "type", "size", "shared_cpu_list"))
        if level and size and kind != ["Instruction"] and level[0] in _LEVELS:
            found.append(Cache(_LEVELS[level[0]], _bytes(size[0]), cpus != core))
    return tuple(found)


def _bytes(text: str) -> int:
    """Size in bytes from "48K" or "32M"."""
    return int(text.rstrip("KM")) * (1 << 20 if text.endswith("M") else 1 << 10)


# Version of how times are taken. It is part of the environment, so that measurements taken in different ways do not
# merge; raise it with every change that alters the times.
#   1  first
#   2  denormal numbers are flushed to zero; freed memory is kept whatever the size of the block
CLOCK = 2


def environment(runtime: Runtime, threads: int, *, pinned: bool, device: str = "cpu") -> Environment:
    """The environment of measurements taken here and now.

    `CLOCK` and the device are left out where they are 1 and "cpu", so that older stores keep their digests.
    """
    unusual = {"clock": str(CLOCK)} if CLOCK > 1 else {}
    unusual |= {"device": device} if device != "cpu" else {}
    return Environment(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        runtime=runtime.name,
        threads=threads,
        pinned=pinned,
        governor=governor(),
        versions={
            "python": ".".join(platform.python_version_tuple()[:2]),
            "system": f"{platform.system()} {platform.machine()}",
            "numpy": version("numpy"),
            **runtime.environment(),
            **unusual,
        },
        host=platform.node(),
    )


def check_device(device: str, runtime: str) -> None:
    """Refuse a device that the runtime does not support, or that this machine does not have.

    Raises:
        MeasurementError: the message says which devices there are.
    """
    import torch

    if device == "cpu":
        return
    if device != "cuda" or not get_runtime(runtime).may_run_on_cuda:
        able = ", ".join(name for name in runtime_names() if get_runtime(name).may_run_on_cuda)
        raise MeasurementError(f"device must be 'cpu', or 'cuda' with {able}, but got {device!r} with {runtime}")
    if not torch.cuda.is_available():
        raise MeasurementError("device 'cuda' needs a GPU that torch can use, but it finds none; measure on 'cpu'")


def check_threads(threads: int) -> None:
    """Refuse a number of threads for which this process has no CPUs.

    Raises:
        MeasurementError: below 1 or above the CPUs this process may use.
    """
    available = len(allowed_cpus())
    if not 1 <= threads <= available:
        raise MeasurementError(
            f"threads must lie in [1, {available}], the CPUs this process may use, but got threads={threads}"
        )


def read_lines(path: str) -> list[str]:
    """Lines of a file that the system shows; none where there is no such file, or it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
