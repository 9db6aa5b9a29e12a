"""hwcost advise: the document, the table, and what it says where nothing is gained or asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

NETS = """
from torch import nn
def wide():
    return nn.Sequential(nn.Conv2d(3, 65, 7, padding=3), nn.GELU(), nn.Conv2d(65, 65, 3, padding=1), nn.Flatten())
def least():
    return nn.ReLU()
"""


def target(folder: Path, name: str) -> str:
    path = folder / "advised.py"
    path.write_text(NETS)
    return f"{path}:{name}"


def test_the_document(run: Callable[..., Any], tmp_path: Path, toy_device: Path) -> None:
    document = run("advise", target(tmp_path, "wide"), "-i", "1x3x16x16", "--device", str(toy_device), "--json").json
    assert document["confidence"] == 0
    gains = [row["gain"] for row in document["advice"]]
    assert gains
    assert gains == sorted(gains, reverse=True)
    for row in document["advice"]:
        assert row["before_s"] == document["latency_s"]
        assert row["gain"] == 1 - row["after_s"] / row["before_s"]
        assert row["low_s"] <= row["after_s"] <= row["high_s"]
    assert "convolution 3x3 instead of 7x7" in [row["change"] for row in document["advice"]]


def test_the_table_and_the_line_where_nothing_is_gained(
    run: Callable[..., Any], tmp_path: Path, toy_device: Path
) -> None:
    printed = run("advise", target(tmp_path, "wide"), "-i", "1x3x16x16", "--device", str(toy_device)).out
    assert "3x3 instead of 7x7" in printed
    assert "gains of a lower bound, not predictions" in printed
    printed = run("advise", target(tmp_path, "least"), "-i", "3", "--device", str(toy_device)).out
    assert printed.startswith("nothing to gain")


def test_a_price_must_be_asked_for(refused: Callable[..., str], tmp_path: Path) -> None:
    refused(["advise", target(tmp_path, "wide"), "-i", "1x3x16x16"], "either --device NAME or --model FILE")
