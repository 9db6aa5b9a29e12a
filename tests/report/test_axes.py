"""Tests of hwcost.report.axes: ticks are round, few, inside the range, and say their unit once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.report.axes import linear_axis, log_axis


def test_ticks_of_a_short_range():
    axis = log_axis([2e-3, 30e-3], "second", "time", margin=1.0)
    assert axis["ticktext"] == ["2", "3", "5", "10", "20", "30"]
    assert axis["title"] == {"text": "time (ms)"}


def test_ticks_of_several_units_say_each():
    axis = log_axis([1e8, 1e11], "flop/s", "rate", margin=1.0)
    assert axis["ticktext"][:4] == ["100 MFLOP/s", "300 MFLOP/s", "1 GFLOP/s", "3 GFLOP/s"]
    assert axis["title"] == {"text": "rate"}


@given(st.floats(-9, 12), st.floats(0.05, 12))
def test_a_logarithmic_axis_has_a_few_ticks_inside_its_range(exponent, decades):
    low, high = 10.0**exponent, 10.0 ** (exponent + decades)
    axis = log_axis([low, high], "flop/s", "rate")
    at = [math.log10(t) for t in axis["tickvals"]]
    assert all(axis["range"][0] - 1e-9 <= t <= axis["range"][1] + 1e-9 for t in at)
    assert len(at) <= 10
    if decades > 0.5:
        assert len(at) >= 2


@given(st.floats(1e-6, 1e3))
def test_a_linear_axis_starts_at_zero_and_has_a_few_ticks(high):
    axis = linear_axis(high, "second", "time")
    assert axis["range"] == [0, high]
    assert axis["tickvals"][0] == 0
    assert 5 <= len(axis["tickvals"]) <= 13
    assert axis["tickvals"][-1] <= high


def test_a_linear_axis_has_one_unit():
    axis = linear_axis(1.7e-3, "second", "time")
    assert axis["ticktext"][:3] == ["0", "0.2", "0.4"]
    assert axis["title"] == {"text": "time (ms)"}


def test_values_that_have_no_logarithm_are_left_out():
    axis = log_axis([0.0, math.inf, 1.0, 10.0], "second", "time", margin=1.0)
    assert axis["range"] == pytest.approx([0, 1])
