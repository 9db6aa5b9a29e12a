"""Tests of hwcost.cost: costs are counts, and they add."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.cost import Cost

counts = st.integers(0, 10**18)
costs = st.builds(
    Cost, macs=counts, other_flops=counts, bytes_weights=counts, bytes_activations=counts, bytes_written=counts
)


def test_a_convolution_by_hand() -> None:
    # 3x3 convolution of a 1x64x56x56 map to 64 channels, padding 1, bias, float32:
    # 56 * 56 * 64 outputs, each 64 * 9 multiply-adds and one addition of the bias.
    outputs = 56 * 56 * 64
    cost = Cost(
        macs=outputs * 64 * 9,  # 115,605,504
        other_flops=outputs,
        bytes_weights=(64 * 64 * 9 + 64) * 4,
        bytes_activations=outputs * 4,
        bytes_written=outputs * 4,
    )
    assert cost.flops == 231_411_712  # 2 * 115,605,504 + 200,704
    assert cost.bytes_read == 147_712 + 802_816
    assert cost.bytes == 1_753_344
    assert cost.intensity == pytest.approx(131.98, abs=0.01)


@pytest.mark.parametrize(
    ("cost", "intensity"),
    [
        (Cost(), 0.0),  # nothing at all
        (Cost(bytes_written=8), 0.0),  # a fill
        (Cost(macs=1), math.inf),  # work on what is in registers
        (Cost(macs=3, other_flops=2, bytes_weights=2, bytes_activations=1, bytes_written=1), 2.0),
    ],
)
def test_intensity(cost: Cost, intensity: float) -> None:
    assert cost.intensity == intensity


@given(costs, costs, costs)
def test_costs_add_in_any_order(a: Cost, b: Cost, c: Cost) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c) == sum([a, b, c])
    assert a + Cost() == a
    assert (a + b).flops == a.flops + b.flops
    assert (a + b).bytes == a.bytes + b.bytes


@given(costs, st.integers(0, 20))
def test_times_is_repeated_addition(cost: Cost, times: int) -> None:
    assert cost * times == times * cost == sum([cost] * times, Cost())


@given(costs, costs)
def test_intensity_of_a_sum_lies_between(a: Cost, b: Cost) -> None:
    low, high = sorted((a.intensity, b.intensity))
    if a.bytes and b.bytes:
        assert low * (1 - 1e-12) <= (a + b).intensity <= high * (1 + 1e-12)


def test_what_is_no_cost() -> None:
    with pytest.raises(ValueError, match=r"never negative, but got Cost\(macs=-1"):
        Cost(macs=-1)
    with pytest.raises(TypeError):
        Cost(macs=1) * 0.5  # type: ignore[operator]
    with pytest.raises(TypeError):
        Cost(macs=1) + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        Cost(1)  # type: ignore[misc]  # positions would be guessed wrong
    with pytest.raises(FrozenInstanceError):
        Cost().macs = 1  # type: ignore[misc]
