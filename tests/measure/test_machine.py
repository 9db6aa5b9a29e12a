"""Tests of hwcost.measure.machine: what tells environments apart, and which devices are refused."""

from __future__ import annotations

import pytest

from hwcost.measure import machine
from hwcost.measure.types import MeasurementError
from hwcost.runtimes.registry import get_runtime


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
