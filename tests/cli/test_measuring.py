"""Tests of `hwcost measure`: which processes measure what, those being only written down, and what it says."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from hwcost.cli import measuring
from hwcost.device.ceilings import ComputeCeiling, KindCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.measure.store.store import Store

Run = Callable[..., Any]
OPTIONS = {"space": "designed", "seed": 3, "runtime": "torch-eager", "threads": 1, "store": "m.db", "rounds": 8}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, without running them."""
    found: list[list[str]] = []

    def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        found.append(command[3:])
        assert "HWCOST_PART" in more["env"]  # so that they do not start others in turn
        time.sleep(0.01)
        return subprocess.CompletedProcess(command, 0, stdout='{"visits": 320, "disturbed": 8}')

    monkeypatch.setattr(measuring.subprocess, "run", run)
    return found


def value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_a_fresh_process_takes_over_every_forty_networks(commands: list[list[str]]) -> None:
    assert measuring._first_parts(OPTIONS, 100, "") == ("", 640, 16)
    assert [value(c, "--samples") for c in commands] == ["40", "80"]  # the last 20 are this process's own
    for command in commands:
        assert command[0] == "measure"
        assert (value(command, "--space"), value(command, "--seed"), value(command, "--store")) == (
            "designed",
            "3",
            "m.db",
        )


def test_few_networks_need_no_other_process(commands: list[list[str]]) -> None:
    measuring._first_parts(OPTIONS, 40, "")
    assert commands == []


def test_processes_share_the_time(commands: list[list[str]]) -> None:
    left, visits, _ = measuring._first_parts(OPTIONS, None, "0.05 s")
    assert visits == 320 * len(commands)
    assert 1 <= len(commands) <= 5
    assert [value(c, "--samples") for c in commands] == [str(40 * (i + 1)) for i in range(len(commands))]
    assert left == "0.1 s"


@pytest.mark.parametrize(
    ("samples", "budget", "total"),
    [
        ("1000", math.inf, 6000.0),  # rounds of the networks wanted in all, and not of the forty of this part
        ("0", 100.0, 240 + 60 / 0.2),  # 60 rounds in a fifth of the time that is left
    ],
)
def test_a_part_tells_how_far_all_of_them_are(
    monkeypatch: pytest.MonkeyPatch, samples: str, budget: float, total: float
) -> None:
    said: list[tuple[float, float]] = []
    moments = iter([1000.0, 1000.0, 1020.0])
    monkeypatch.setenv("HWCOST_PART", samples)
    monkeypatch.setattr(measuring.clock, "monotonic", lambda: next(moments))
    told = measuring._of_all(lambda done, total, note="": said.append((done, total)), 6, budget)
    told(240.0, 480.0)
    told(300.0, 480.0)
    assert said[-1] == (300.0, pytest.approx(total))


def test_a_process_that_fails_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring.subprocess, "run", lambda command, **more: subprocess.CompletedProcess(command, 130))
    with pytest.raises(typer.Exit) as ended:
        measuring._first_parts(OPTIONS, 100, "")
    assert ended.value.exit_code == 130


@pytest.mark.parametrize("quantile", ["low", "tail"])
def test_networks_of_a_file_are_measured_and_a_quantile_means_what_it_says(
    run: Run, nets: Path, tmp_path: Path, quantile: str
) -> None:
    argv = ["measure", f"{nets}:build", "-i", "1x3x8x8", "--store", str(tmp_path / "m.db"), "--rounds", "2"]
    (network,) = run(*argv, "--quantile", quantile, "--json").json["networks"]
    assert network["target"] == f"{nets}:build"
    low = run(*argv, "--json").json["networks"][0]["latency_s"]
    assert network["latency_s"] == {"low": low, "tail": network["p95_s"]}[quantile]
    assert 0 < low <= network["median_s"] <= network["p95_s"]
    assert network["rounds"] >= 2
    assert network["spread"] >= 0.01


def test_a_process_that_finds_every_network_taken_says_so(run: Run, nets: Path, tmp_path: Path) -> None:
    argv = ["measure", f"{nets}:build", "-i", "1x3x8x8", "--rounds", "2"]
    name = run(*argv, "--store", str(tmp_path / "a.db"), "--json").json["networks"][0]["name"]
    here = Store.open(tmp_path / "a.db").measurements().environment
    taken = Store.open(tmp_path / "b.db", create=True)
    taken.claim(taken.environment_id(here), [name], "another host:1", seconds=60)
    said = run(*argv, "--store", str(tmp_path / "b.db"))
    assert (said.code, "left to another process, which measures them now: 1" in " ".join(said.out.split())) == (0, True)


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


def test_what_does_not_belong_together_is_refused(refused: Callable[..., str], nets: Path, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "m.db")]
    target = [f"{nets}:build", "-i", "1x3x8x8"]
    refused(["measure", *target, "--samples", "3", *store], "--samples is for a --space")
    drawn = ["--samples", "1", *store]
    refused(["measure", "--space", "tiny-cnn", "-i", "1x3x8x8", *drawn], "a --space has its own inputs")
    refused(["measure", "--space", "nothing", *drawn], "or `designed`")


def test_a_network_that_is_named_twice_is_measured_once(run: Run, nets: Path, tmp_path: Path) -> None:
    target = [f"{nets}:build", f"{nets}:build", "-i", "1x3x8x8"]
    found = run("measure", *target, "--rounds", "2", "--store", str(tmp_path / "m.db"), "--json")
    assert (found.code, len(found.json["networks"])) == (0, 1)


def test_a_part_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Whoever kills the command does not leave its fresh process measuring."""
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'from hwcost.measure.machine import end_with_parent; "
        "end_with_parent(); print(1, flush=True); import time; time.sleep(600)'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process of its parent's end")
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    child = int(started.stdout)
    for _ in range(200):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(child, 9)
    pytest.fail("the child still runs")


def test_fit_asks_which_environment(run: Run, refused: Callable[..., str], nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    run("measure", f"{nets}:build", "-i", "1x3x8x8", "--rounds", "2", "--store", str(path), "--json")
    store = Store.open(path)
    here = store.measurements()
    store.add_measurements(replace(here, environment=replace(here.environment, cpu="another")))
    folder = str(tmp_path / "out")
    refused(["export", "--store", str(path), "-o", folder], "2 environments that fit, choose one with --environment")
    refused(["export", "--store", str(path), "-o", folder], "cpu another")
    other = next(e for e, _ in store.environments() if e.cpu == "another")
    done = run("export", "--store", str(path), "-o", folder, "--environment", other.digest[:8])
    assert done.code == 0
    assert "another" in (tmp_path / "out" / "README.md").read_text()
