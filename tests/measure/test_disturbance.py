"""Tests of hwcost.measure.disturbance: what takes the CPU from a measurement is seen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from hwcost.measure import disturbance
from hwcost.measure.disturbance import Watch
from hwcost.measure.process import pinning

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux shows")


def shows(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Have the system show these files and no others."""
    monkeypatch.setattr(disturbance, "read_lines", lambda path: files.get(path, "").splitlines())


@linux
def test_a_watch_tells_what_changed_since_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters of Linux: stolen ticks of 10 ms are the eighth number of a CPU, waiting (ns) the second of schedstat."""
    monkeypatch.setattr(disturbance, "allowed_cpus", lambda: (1,))
    monkeypatch.setattr(disturbance, "TICK", 0.01)
    monkeypatch.setattr(disturbance, "_switches", lambda: 5)
    counted, waiting = "/proc/stat", "/proc/thread-self/schedstat"
    shows(monkeypatch, {counted: "cpu0 0 0 0 0 0 0 0 50\ncpu1 0 0 0 0 0 0 0 7", waiting: "900 2000000 4"})
    watch = Watch()
    monkeypatch.setattr(disturbance, "_switches", lambda: 8)
    shows(monkeypatch, {counted: "cpu0 0 0 0 0 0 0 0 99\ncpu1 0 0 0 0 0 0 0 9", waiting: "990 6000000 5"})
    seen = watch.stop()
    assert (seen.switches, seen.steal, seen.waited) == (3, pytest.approx(0.02), pytest.approx(0.004))


def test_where_waits_are_not_counted_each_involuntary_switch_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shows(monkeypatch, {})
    monkeypatch.setattr(disturbance, "_switches", lambda: 5)
    watch = Watch()
    assert watch.stop().waited == 0
    monkeypatch.setattr(disturbance, "_switches", lambda: 7)
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
            while every.stop().waited <= 0.1:  # as long as it takes: how soon the system switches is not tested
                time.sleep(0.1)
            mine, theirs = main.stop().waited, every.stop().waited
            end.set()
            worker.join()
        finally:
            burner.kill()
            burner.wait()
    assert mine < theirs
