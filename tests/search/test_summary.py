"""Tests of hwcost.search.summary: latencies, feasible share and effects of a space whose every latency is known."""

from __future__ import annotations

from typing import Any

import pytest

from hwcost.search import LatencyObjective, summarise


def test_a_summary_tells_what_is_slow_and_what_fits(toys: Any) -> None:
    """Width 1..4 x depth 1..3 ms: 1 to 12 ms; 7 of 12 within 5 ms; width 4 against 1 is a factor of 4."""
    objective = LatencyObjective(toys.build, toys.training, model=toys.model, budget="5 ms")
    summary = summarise(objective, samples=3000)
    (device,) = summary.devices
    assert (device.least, device.most) == (0.001, 0.012)
    assert summary.feasible_share == pytest.approx(7 / 12, abs=0.03)
    assert [(e.decision, e.slowest, e.fastest) for e in device.effects] == [("width", 4, 1), ("depth", 3, 1)]
    assert device.effects[0].factor == pytest.approx(4, rel=0.1)
    assert device.effects[1].factor == pytest.approx(3, rel=0.1)
    assert not toys.training.trained
