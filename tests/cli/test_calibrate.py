"""Tests of the verb calibrate, with a made-up calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwcost.device.ceilings import ComputeCeiling, KindCeiling, MemoryCeiling
from hwcost.device.device import Device

Run = Callable[..., Any]


def test_calibrations_of_several_thread_counts_share_a_file(
    run: Run, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calibrated(threads: int, *, runtime: str, progress: Any) -> Device:
        ceiling = {"threads": threads, "measured_source": "a run"}
        gelu = KindCeiling(kind="gelu", runtime=runtime, measured=threads * 1e8, **ceiling)
        return Device(
            name="here", cores=2, compute=(ComputeCeiling(measured=threads * 1e9, **ceiling),),
            memory=(MemoryCeiling(measured=1e10, **ceiling),), kinds=(gelu,),
            host={"cpu": "A", "threads": str(threads), "date": "now", "quiet": "no: noise", "left_out": "L2: noise"},
        )  # fmt: skip

    monkeypatch.setattr("hwcost.calibration.run.calibrate", calibrated)
    path = tmp_path / "here.toml"
    for threads, runtime in (("1", "torch-eager"), ("2", "torch-eager"), ("2", "onnxruntime")):
        said = run("calibrate", "--threads", threads, "--runtime", runtime, "-o", str(path))
        assert said.code == 0
        assert "the machine was not quiet, noise: calibrate again when it is" in said.err
        assert "caches without a ceiling: L2: noise" in said.err
        assert f"{runtime} computes at best, of that: gelu 10.0 %" in said.out
    device = Device.load(path)
    assert [device.peak(threads=n) for n in (1, 2)] == [1e9, 2e9]
    assert {(k.runtime, k.threads) for k in device.kinds} == {
        ("torch-eager", 1),
        ("torch-eager", 2),
        ("onnxruntime", 2),
    }
    path.write_text("no device")
    refused(["calibrate", "-o", str(path)], "here.toml")
    assert path.read_text() == "no device"
