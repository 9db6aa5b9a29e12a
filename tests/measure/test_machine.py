"""Tests of hwcost.measure.machine: what disturbs a measurement is seen, threads are bound, freed memory is kept."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time

import pytest
import torch

from hwcost.measure import machine
from hwcost.measure.machine import Watch, allowed_cpus, idlest, pinning
from hwcost.measure.types import MeasurementError
from hwcost.runtimes.registry import get_runtime

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux shows")


def shows(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Have the system show these files and no others."""
    monkeypatch.setattr(machine, "_lines", lambda path: files.get(path, "").splitlines())


# -- what disturbs ----------------------------------------------------------------------------------


@linux
def test_a_watch_tells_what_changed_since_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters of Linux: stolen ticks of 10 ms are the eighth number of a CPU, waiting (ns) the second of schedstat."""
    monkeypatch.setattr(machine, "allowed_cpus", lambda: (1,))
    monkeypatch.setattr(machine, "_TICK", 0.01)
    monkeypatch.setattr(machine, "_switches", lambda: 5)
    counted, waiting = "/proc/stat", "/proc/thread-self/schedstat"
    shows(monkeypatch, {counted: "cpu0 0 0 0 0 0 0 0 50\ncpu1 0 0 0 0 0 0 0 7", waiting: "900 2000000 4"})
    watch = Watch()
    monkeypatch.setattr(machine, "_switches", lambda: 8)
    shows(monkeypatch, {counted: "cpu0 0 0 0 0 0 0 0 99\ncpu1 0 0 0 0 0 0 0 9", waiting: "990 6000000 5"})
    seen = watch.stop()
    assert (seen.switches, seen.steal, seen.waited) == (3, pytest.approx(0.02), pytest.approx(0.004))


def test_where_waits_are_not_counted_each_involuntary_switch_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shows(monkeypatch, {})
    monkeypatch.setattr(machine, "_switches", lambda: 5)
    watch = Watch()
    assert watch.stop().waited == 0
    monkeypatch.setattr(machine, "_switches", lambda: 7)
    assert watch.stop().waited == pytest.approx(2 * 0.003)


@linux
@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel does not count waits")
def test_the_wait_of_any_thread_counts() -> None:
    """Another process on the same CPU keeps a thread waiting while the main one sleeps and waits for nothing."""
    with pinning(1):
        burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            main, every, end = Watch(), Watch(all_threads=True), threading.Event()
            worker = threading.Thread(target=lambda: [None for _ in iter(end.is_set, True)])
            worker.start()
            time.sleep(1.0)
            mine, theirs = main.stop().waited, every.stop().waited
            end.set()
            worker.join()
        finally:
            burner.kill()
            burner.wait()
    assert theirs > 0.1
    assert mine < theirs


# -- what is done about it --------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no threads")
def test_threads_are_bound_and_let_go() -> None:
    before = os.sched_getaffinity(0)
    with pinning(1) as bound:
        assert bound
        assert len(os.sched_getaffinity(0)) == 1
        assert os.sched_getaffinity(0) <= before
    assert os.sched_getaffinity(0) == before


def test_a_system_that_refuses_to_bind_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    with pinning(len(allowed_cpus())) as bound:
        assert not bound


def test_the_idlest_cpus_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter([{0: 1.0, 1: 5.0, 2: 2.0}, {0: 1.9, 1: 5.1, 2: 2.2}])
    monkeypatch.setattr(machine, "allowed_cpus", lambda: (0, 1, 2))
    monkeypatch.setattr(machine, "_busy", lambda: next(busy))
    assert idlest(2, watch=0.0) == (1, 2)


@linux
@pytest.mark.parametrize("size", [20 << 20, 80 << 20])  # either side of the largest threshold for blocks of their own
def test_memory_that_was_freed_comes_without_page_faults(size: int) -> None:
    """20 MB, given back and asked for again, is 5,000 pages each time unless the C library keeps it."""
    program = """
import ctypes, resource, sys
from hwcost.measure.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
library, faults = ctypes.CDLL(None), []
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(int(sys.argv[2]))
    ctypes.memset(block, 1, int(sys.argv[2]))
    library.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))
"""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")
    command = [sys.executable, "-c", program, "keep", str(size)]
    kept = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(kept.stdout) < 100


# -- numbers that random weights let vanish -----------------------------------------------------------------


def test_numbers_below_the_least_normal_one_are_zero_for_a_while() -> None:
    small = torch.full((4,), 1e-20)
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot take such numbers for zero")
    with machine.vanishing_is_zero():
        assert not (small * 1e-20).any()
        with machine.vanishing_is_zero():
            pass
        assert not (small * 1e-20).any()
    assert (small * 1e-20).all()


# -- what tells environments apart --------------------------------------------------------------------------


def test_measurements_of_another_clock_or_device_do_not_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = get_runtime("torch-eager")
    now = machine.environment(runtime, 1, pinned=False)
    there = machine.environment(runtime, 1, pinned=False, device="cuda")
    monkeypatch.setattr(machine, "CLOCK", machine.CLOCK + 1)
    later = machine.environment(runtime, 1, pinned=False)
    assert now.differences(later) == {"versions.clock": (str(machine.CLOCK - 1), str(machine.CLOCK))}
    assert now.differences(there) == {"versions.device": (None, "cuda")}


@pytest.mark.parametrize(
    ("device", "runtime", "message"),
    [
        ("cuda", "onnxruntime", "device must be 'cpu', or 'cuda' with torch-eager, but got 'cuda' with onnxruntime"),
        ("mps", "torch-eager", "device must be 'cpu', or 'cuda' with torch-eager, but got 'mps' with torch-eager"),
        ("cuda", "torch-eager", "device 'cuda' needs a GPU"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    device: str, runtime: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(MeasurementError, match=message):
        machine.check_device(device, runtime)
