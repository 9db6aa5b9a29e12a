"""Fixtures for the verbs: run a command line in this process, and the contract of a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from hwcost.cli.app import main


@dataclass(frozen=True)
class Result:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]

NETS = '''
"""Networks for the tests of the command line."""
import torch
from torch import nn

print("this module talks while it is imported")


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.stem(x).relu().mean((2, 3)))


def build(width=4):
    return Net(width)


def raises():
    raise RuntimeError("no weights\\nhere")


def number():
    return 7


ready = Net()
LIMIT = 3
'''

DEVICE = """
name = "toy"
cores = 2
description = "two cores for tests"

[[compute]]
paper = "100 GFLOP/s"
paper_source = "made up"
measured = "80 GFLOP/s"
measured_source = "made up"

[[memory]]
measured = "10 GB/s"
measured_source = "made up"
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command line; `run("devices", "--json").json`."""

    def _run(*argv: str) -> Result:
        capsys.readouterr()
        code = main(argv)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return _run


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run a command line that must be refused: exit 2, nothing on stdout, one line on stderr that matches."""

    def _refused(argv: list[str] | tuple[str, ...], match: str) -> str:
        result = run(*argv)
        assert result.code == 2, result
        assert result.out == ""
        lines = [line for line in result.err.splitlines() if line.startswith("hwcost: ")]
        others = [line for line in result.err.splitlines() if line not in lines and "talks" not in line]
        assert len(lines) == 1, result.err
        assert others == [], result.err
        assert re.search(match, lines[0]), lines[0]
        return lines[0]

    return _refused


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A file with targets, good and bad."""
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


@pytest.fixture
def toy_device(tmp_path: Path) -> Path:
    """A device file: 80 GFLOP/s and 10 GB/s measured, so a ridge point of 8 flop/byte."""
    path = tmp_path / "toy.toml"
    path.write_text(DEVICE)
    return path


SMALL_DEVICE = """
name = "here"
[[compute]]
threads = 1
measured = "100 GFLOP/s"
measured_source = "made up"
[[memory]]
threads = 1
measured = "10 GB/s"
measured_source = "made up"
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a device, a store of 11 networks, and a model; tests do not write there."""
    from hwcost.measure.campaign import measure
    from hwcost.measure.items import sampled_items
    from hwcost.measure.store.store import Store
    from hwcost.spaces.registry import get_space

    folder = tmp_path_factory.mktemp("made")
    (folder / "here.toml").write_text(SMALL_DEVICE)
    store = Store.open(folder / "m.db", create=True)
    measure(islice(sampled_items(get_space("tiny-cnn")), 11), store=store, rounds=2)
    store.close()
    argv = ["fit", "--store", f"{folder}/m.db", "--device", f"{folder}/here.toml", "-o", f"{folder}/m.hwcost", "--json"]
    assert main(argv) == 0
    return folder
