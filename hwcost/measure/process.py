"""How this process is set up while it measures: its memory, threads, CPUs and arithmetic, and its name as a worker."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwcost.measure.machine import TICK, allowed_cpus, read_lines
from hwcost.runtimes.base import vanishing

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt(3)
_PDEATHSIG = 1  # of prctl(2)


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for reuse instead of returning it to the system, until the process ends.

    A process that runs one network over and over gets there by itself: activations come from memory that was used
    before. One that holds many networks may not, and then pays page faults that take longer than the arithmetic of a
    depthwise convolution. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library, most = ctypes.CDLL(None), 2**31 - 1
    # M_MMAP_THRESHOLD may not exceed 32 MiB; with no mmap at all, larger blocks come from the heap as well.
    for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, most), (_TOP_PAD, 64 << 20)):
        library.mallopt(parameter, value)


def end_with_parent() -> None:
    """Have the system interrupt this process, as Ctrl-C does, when its parent process ends; Linux only.

    A shell has its background processes ignore Ctrl-C; they are terminated instead.
    """
    if platform.system() == "Linux":
        is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM if is_ignored else signal.SIGINT)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Flush denormal float32 numbers to zero on this thread, and on threads that it starts.

    Trained networks have none. Random weights shrink the activations of a network of a hundred layers until some are
    denormal, and each takes Intel's CPUs a hundred times as long (Intel, oneMKL Developer Guide, "Operating on
    Denormals"): of equal convolutions in an untrained EfficientNetV2, the last took 18 times as long as the first.
    """
    import torch

    was = vanishing()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use `threads` threads inside, whichever runtime is measured.

    With more threads than CPUs they spin and wait for one another: exporting a network to another runtime then takes
    several times as long.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def pinning(threads: int) -> Iterator[bool]:
    """Bind this thread, and those it starts, to the `threads` idlest CPUs; gives whether the system allowed it."""
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
    """The `count` allowed CPUs that were busy least during `watch` seconds."""
    cpus = allowed_cpus()
    if count >= len(cpus):
        return cpus
    before = _busy()
    time.sleep(watch)
    after = _busy()
    return tuple(sorted(sorted(cpus, key=lambda c: after.get(c, 0.0) - before.get(c, 0.0))[:count]))


def _busy() -> dict[int, float]:
    """Seconds since boot that each CPU was not idle, time stolen by the hypervisor included."""
    busy = {}
    for line in read_lines("/proc/stat"):
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(f) for f in fields[:8]]
            busy[int(name[3:])] = (sum(ticks) - ticks[3] - ticks[4]) * TICK
    return busy


def worker_name() -> str:
    """This process as "host/boot:process"; the boot tells apart hosts that were cloned and have one name."""
    return f"{_host()}:{os.getpid()}"


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()[:60]}/{boot.read_text()[:8]}" if boot.exists() else platform.node()[:60]


def is_alive(worker: str) -> bool:
    """Whether a worker may still be running: False only for a process of this host that has ended."""
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
