"""The machine under a measurement: what it is, and what disturbed it.

Linux shows most of this in /proc and /sys; where a system does not, the figure is left out and
nothing is made up.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from hwcost.measure.types import Environment, MeasurementError
from hwcost.runtimes.base import Runtime, vanishing

_LEVELS: Mapping[str, Literal["L1", "L2", "L3"]] = {"1": "L1", "2": "L2", "3": "L3"}
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt(3)
_PDEATHSIG = 1  # of prctl(2)
_TICK = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01  # s
_SLICE = 3e-3  # s that a thread is taken to wait once it was switched away: Linux's base slice on 8 CPUs


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Model name of the CPU."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def cpu_family() -> tuple[str, str]:
    """Vendor and family as the CPU names them, such as ("AuthenticAMD", "25"); empty where the system does not say."""
    pairs = (line.partition(":") for line in _lines("/proc/cpuinfo"))
    shown = {key.strip(): value.strip() for key, _, value in pairs}
    return shown.get("vendor_id", ""), shown.get("cpu family", "")


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags, empty where the system does not show them."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def vector_lanes(flags: frozenset[str]) -> int | None:
    """float32 numbers in a vector register of a CPU with these flags; None where none of them tells."""
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
    lines = _lines("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return lines[0].strip() if lines else "unknown"


def frequency() -> float:
    """Highest frequency (Hz) that the system shows, or the present one; 0 where it shows none."""
    lines = _lines("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if lines:
        return float(lines[0]) * 1e3
    shown = [float(line.partition(":")[2]) for line in _lines("/proc/cpuinfo") if line.startswith("cpu MHz")]
    return max(shown, default=0.0) * 1e6


def physical_cores() -> int:
    """Cores, threads of one core counted once."""
    pairs, package = set(), ""
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "physical id":
            package = value
        elif key.strip() == "core id":
            pairs.add((package, value))
    return len(pairs) or os.cpu_count() or 1


def free_memory() -> float:
    """Bytes that may be had without swapping; 4 GB where the system does not say."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            return float(line.split()[1]) * 1024
    return 4e9


def keep_freed_memory() -> None:
    """Have the C library keep memory that was freed, for the rest of the process.

    A process that runs one network over and over reaches that state by itself: its activations come from
    memory it has used before. One that holds many networks does not always, and pays page faults then
    that take longer than the arithmetic of a depthwise convolution. Does nothing without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library, most = ctypes.CDLL(None), 2**31 - 1
    # no threshold may lie above 32 MiB, but none of its own mapping leaves larger blocks to the heap too
    for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, most), (_TOP_PAD, 64 << 20)):
        library.mallopt(parameter, value)


def end_with_parent() -> None:
    """Have the system interrupt this process, as Ctrl-C does, when the one that started it is gone; Linux only."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGINT)


@contextmanager
def vanishing_is_zero() -> Iterator[None]:
    """Take numbers below the least normal float32 for zero on this thread, and on threads that it starts.

    Trained networks have none. Random weights shrink what passes through a hundred layers until some are left, and
    Intel's CPUs take a hundred times as long for each (Intel, oneMKL Developer Guide, "Operating on Denormals"):
    of equal convolutions in an untrained EfficientNetV2 the last took 18 times as long as the first.
    """
    import torch

    was = vanishing()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was)


@dataclass(frozen=True, slots=True)
class Cache:
    """A data cache."""

    level: Literal["L1", "L2", "L3"]
    size: int  # byte
    shared: bool  # by several cores


@lru_cache(maxsize=1)
def caches() -> tuple[Cache, ...]:
    """Data caches of the first CPU, the smallest first; empty where the system does not show them."""
    found = []
    core = _lines("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list") or ["0"]
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, cpus = (_lines(f"{folder}/{f}") for f in ("level", "type", "size", "shared_cpu_list"))
        if level and size and kind != ["Instruction"] and level[0] in _LEVELS:
            found.append(Cache(_LEVELS[level[0]], _kibibytes(size[0]), cpus != core))
    return tuple(found)


def _kibibytes(text: str) -> int:
    return int(text.rstrip("KM")) * (1 << 20 if text.endswith("M") else 1 << 10)


# Raised when the clock comes to measure something else, so that measurements of then and now do not merge.
# 2: numbers too small for float32 are zero; freed memory is kept whatever its size.
CLOCK = 2


def environment(runtime: Runtime, threads: int, *, pinned: bool, device: str = "cpu") -> Environment:
    """The environment of measurements taken now, here; of the first clock and on the CPU, neither is named."""
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


def worker_name() -> str:
    """This process, as "host/boot:process": hosts that were cloned from one another have one name, and two boots."""
    return f"{_host()}:{os.getpid()}"


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()[:60]}/{boot.read_text()[:8]}" if boot.exists() else platform.node()[:60]


def is_alive(worker: str) -> bool:
    """Whether a worker may still run: false only for a process of this host that is gone."""
    host, _, process = worker.rpartition(":")
    if host != _host() or not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def check_device(device: str, runtime: str) -> None:
    """Refuse a device that the runtime does not run on, or that is not here.

    Raises:
        MeasurementError: it says which devices there are.
    """
    import torch

    if device == "cpu":
        return
    if device != "cuda" or runtime != "torch-eager":
        raise MeasurementError(f"device must be 'cpu', or 'cuda' with torch-eager, but got {device!r} with {runtime}")
    if not torch.cuda.is_available():
        raise MeasurementError("device 'cuda' needs a GPU that torch can use, but it finds none; measure on 'cpu'")


def check_threads(threads: int) -> None:
    """Refuse a thread count that the machine cannot serve.

    Raises:
        MeasurementError: below 1 or above the CPUs this process may use.
    """
    available = len(allowed_cpus())
    if not 1 <= threads <= available:
        raise MeasurementError(
            f"threads must lie in [1, {available}], the CPUs this process may use, but got threads={threads}"
        )


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch work on `threads` threads, whoever measures: where it has more than there are CPUs to run on, they spin
    and wait for one another, and exporting a network to another runtime takes several times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def pinning(threads: int) -> Iterator[bool]:
    """Bind this thread, and those it starts, to the `threads` idlest CPUs; tells whether it could."""
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    chosen = idlest(threads)
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)


def idlest(count: int, watch: float = 0.2) -> tuple[int, ...]:
    """The `count` allowed CPUs that worked least during `watch` seconds."""
    cpus = allowed_cpus()
    if count >= len(cpus):
        return cpus
    before = _busy()
    time.sleep(watch)
    after = _busy()
    return tuple(sorted(sorted(cpus, key=lambda c: after.get(c, 0.0) - before.get(c, 0.0))[:count]))


def _busy() -> dict[int, float]:
    """Seconds each CPU has worked for anybody, stolen ones included."""
    busy = {}
    for line in _lines("/proc/stat"):
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(f) for f in fields[:8]]
            busy[int(name[3:])] = (sum(ticks) - ticks[3] - ticks[4]) * _TICK
    return busy


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happened to this process between two moments."""

    steal: float  # s that the hypervisor took from the CPUs in use
    switches: int  # involuntary context switches
    waited: float  # s that this thread was ready and did not run

    @property
    def any(self) -> bool:
        """Whether anything happened at all."""
        return bool(self.steal or self.switches or self.waited > 1e-4)


class Watch:
    """Reads the system's counters at its making, and what changed since.

    Waits are those of the thread that watches, or of all threads of the process: what several do together waits
    for the last of them, so that each one's wait is theirs.
    """

    def __init__(self, *, all_threads: bool = False) -> None:
        self._tasks = "/proc/self/task/*" if all_threads else "/proc/thread-self"
        self._start = self._read()

    def stop(self) -> Disturbance:
        """What changed since the watch was made; where waits are not counted, each switch stands for a time slice."""
        steal, switches, waited = self._read()
        steal_before, switches_before, waited_before = self._start
        switches -= switches_before
        wait = switches * _SLICE if waited is None or waited_before is None else waited - waited_before
        return Disturbance(steal - steal_before, switches, wait)

    def _read(self) -> tuple[float, int, float | None]:
        return _steal(), _switches(), _waited(self._tasks)


def _steal() -> float:
    cpus = {f"cpu{c}" for c in allowed_cpus()}
    fields = (line.split() for line in _lines("/proc/stat"))
    return sum(int(f[8]) * _TICK for f in fields if f and f[0] in cpus and len(f) > 8)


def _switches() -> int:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _waited(tasks: str) -> float | None:
    """Time that threads waited for a CPU (s), second field of schedstat; None where the system does not count it."""
    read = [lines for task in glob(tasks) if (lines := _lines(f"{task}/schedstat"))]  # a thread may end meanwhile
    return sum(int(lines[0].split()[1]) * 1e-9 for lines in read) if read else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
