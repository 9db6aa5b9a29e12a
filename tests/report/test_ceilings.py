"""Tests of the picture of achieved against paper, on the article's machine: 2.86 of 4.608 TFLOP/s, 74 of 96 GB/s."""

from pathlib import Path

import pytest

from hwcost.cli.app import main
from hwcost.device.device import Device
from hwcost.report.ceilings import ceiling_notes, ceilings_figure

ARTICLE = Device.load("intel-i9-10980xe")


def test_the_articles_bars() -> None:
    paper, achieved, paper_memory, achieved_memory = ceilings_figure(ARTICLE).data
    assert (*paper.x, *achieved.x) == (4.608e12, 2.86e12)
    assert (*paper_memory.x, *achieved_memory.x) == (96e9, 74e9)
    assert (paper.xaxis, achieved_memory.xaxis) == ("x", "x2")  # flop/s and byte/s have an axis each


def test_the_articles_ratios_are_said() -> None:
    compute, memory = ceiling_notes(ARTICLE)
    assert "2.86 TFLOP/s of 4.608 TFLOP/s on paper (62 %)" in compute  # 2.86 / 4.608 = 0.6207
    assert "74 GB/s of 96 GB/s on paper (77 %)" in memory  # 74 / 96 = 0.7708, and 77 % in the article


@pytest.mark.parametrize("name", Device.names())
def test_every_device_of_the_catalogue_can_be_drawn(name: str) -> None:
    device = Device.load(name)
    assert sum(len(t.x) for t in ceilings_figure(device).data) == 2 * (len(device.compute) + len(device.memory))


def test_a_noisy_calibration_says_so() -> None:
    noisy = ARTICLE.model_copy(update={"host": {"quiet": "no: waited 12% of the time"}})
    assert ceiling_notes(noisy)[-1].startswith("The machine was not quiet, waited 12%")


def test_the_verb_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plot.html"
    assert main(["devices", "intel-i9-10980xe", "--plot", str(path)]) == 0
    assert "62&nbsp;%" in path.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["devices", "--plot", str(path)]) == 2
    assert "a plot needs a device" in capsys.readouterr().err
