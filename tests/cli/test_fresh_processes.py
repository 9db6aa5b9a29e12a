"""Tests of hwcost.cli.fresh_processes: which processes measure what. They are only written down here, not run."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from hwcost.cli import fresh_processes

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

    monkeypatch.setattr(fresh_processes.subprocess, "run", run)
    return found


def value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_a_fresh_process_takes_over_every_forty_networks(commands: list[list[str]]) -> None:
    assert fresh_processes.measure_all_but_the_last(OPTIONS, 100, "") == ("", 640, 16)
    assert [value(c, "--samples") for c in commands] == ["40", "80"]  # the last 20 are this process's own
    for command in commands:
        assert command[0] == "measure"
        assert (value(command, "--space"), value(command, "--seed"), value(command, "--store")) == (
            "designed",
            "3",
            "m.db",
        )


def test_few_networks_need_no_other_process(commands: list[list[str]]) -> None:
    fresh_processes.measure_all_but_the_last(OPTIONS, 40, "")
    assert commands == []


def test_processes_share_the_time(commands: list[list[str]]) -> None:
    left, visits, _ = fresh_processes.measure_all_but_the_last(OPTIONS, None, "0.05 s")
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
    monkeypatch.setattr(fresh_processes.clock, "monotonic", lambda: next(moments))
    told = fresh_processes.progress_of_all(lambda done, total, note="": said.append((done, total)), 6, budget)
    told(240.0, 480.0)
    told(300.0, 480.0)
    assert said[-1] == (300.0, pytest.approx(total))


def test_a_process_that_fails_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fresh_processes.subprocess, "run", lambda command, **more: subprocess.CompletedProcess(command, 130)
    )
    with pytest.raises(typer.Exit) as ended:
        fresh_processes.measure_all_but_the_last(OPTIONS, 100, "")
    assert ended.value.exit_code == 130


@pytest.mark.parametrize("handler", ["SIG_DFL", "SIG_IGN"], ids=["in the foreground", "in the background"])
def test_a_part_ends_with_the_process_that_started_it(handler: str) -> None:
    """Whoever kills the command does not leave its fresh process measuring, also where Ctrl-C is ignored."""
    script = (
        "import os, signal, subprocess, sys\n"
        f"signal.signal(signal.SIGINT, signal.{handler})\n"
        "child = subprocess.Popen([sys.executable, '-c', 'from hwcost.measure.process import end_with_parent; "
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
