"""Tests of hwcost.measure.process: threads are bound and let go, freed memory is kept, denormal numbers are zero."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from hwcost.measure import process
from hwcost.measure.machine import allowed_cpus
from hwcost.measure.process import flush_denormals, idlest, pinning

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux shows")


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
    monkeypatch.setattr(process, "allowed_cpus", lambda: (0, 1, 2))
    monkeypatch.setattr(process, "_busy", lambda: next(busy))
    assert idlest(2, watch=0.0) == (1, 2)


@linux
@pytest.mark.parametrize("size", [20 << 20, 80 << 20])  # either side of the largest threshold for blocks of their own
def test_memory_that_was_freed_comes_without_page_faults(size: int) -> None:
    """20 MB, given back and asked for again, is 5,000 pages each time unless the C library keeps it."""
    program = """
import ctypes, resource, sys
from hwcost.measure.process import keep_freed_memory
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


def test_denormal_numbers_are_zero_inside_and_not_after() -> None:
    small = torch.full((4,), 1e-20)
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot take such numbers for zero")
    with flush_denormals():
        assert not (small * 1e-20).any()
        with flush_denormals():
            pass
        assert not (small * 1e-20).any()
    assert (small * 1e-20).all()
