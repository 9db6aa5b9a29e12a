"""Tests of `hwcost measure`: which processes measure what. The processes themselves are only written down."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest
import typer

from hwcost.cli import measuring

OPTIONS = {"space": "designed", "seed": 3, "runtime": "torch-eager", "threads": 1, "store": "m.db", "rounds": 8}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, without running them."""
    found: list[list[str]] = []

    def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        found.append(command[3:])
        assert more["env"]["HWCOST_PART"] == "1"  # so that they do not start others in turn
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


def test_a_process_that_fails_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring.subprocess, "run", lambda command, **more: subprocess.CompletedProcess(command, 130))
    with pytest.raises(typer.Exit) as ended:
        measuring._first_parts(OPTIONS, 100, "")
    assert ended.value.exit_code == 130
