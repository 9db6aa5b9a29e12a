"""hwcost estimate: the document it prints, and what it says to bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwcost.cli.app import main

NETWORK = """
from torch import nn
def net(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())
"""


@pytest.fixture
def target(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(NETWORK)
    return f"{path}:net"


def test_the_document(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["estimate", target, "--input", "1x3x10x10", "--device", "intel-i9-10980xe", "--depth", "1", "--json"])
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["macs"] == 8 * 8 * 8 * 27  # 64 outputs of 8 channels, 9 taps of 3 channels
    assert printed["other_flops"] == 2 * 8 * 8 * 8  # the bias and the comparison
    assert printed["flops"] == 2 * printed["macs"] + printed["other_flops"]
    assert printed["bytes"] == printed["bytes_read"] + printed["bytes_written"]
    assert printed["params"] == 8 * 27 + 8
    assert (printed["status"], printed["uncounted"]) == ("complete", [])
    assert [block["name"] for block in printed["blocks"]] == ["0", "1"]
    assert sum(block["share"] for block in printed["blocks"]) == pytest.approx(1)


def test_the_table(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", target, "-i", "1x3x10x10", "-d", "intel-i9-10980xe", "--kwargs", '{"width": 4}']) == 0
    printed = capsys.readouterr().out
    assert "112 parameters" in printed  # 4 * 27 + 4
    assert "not counted" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "1x3x10x10"], "either --device NAME or --model FILE"),
        (["--input", "1x4x10x10", "--device", "intel-i9-10980xe"], "conv2d"),
        (["--device", "intel-i9-10980xe"], "--input"),
    ],
)
def test_bad_input_is_one_line(
    target: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", target, *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
