"""Tests of hwcost.model.accuracy: worked figures."""

from __future__ import annotations

import math

from hwcost.model.accuracy import Accuracy, Comparison


def row(predicted: float, measured: float, low: float = 0.0, high: float = 1.0, spread: float = 0.02) -> Comparison:
    return Comparison(target="t", predicted=predicted, low=low, high=high, measured=measured, spread=spread)


def test_worked_figures() -> None:
    # errors +4 %, -8 %, +20 %: mean 10.67 %; one within 5 %, two within 10 %
    rows = (row(1.04e-3, 1e-3), row(1.84e-3, 2e-3), row(3.6e-3, 3e-3))
    accuracy = Accuracy(rows)
    assert math.isclose(accuracy.mape, (0.04 + 0.08 + 0.20) / 3)
    assert accuracy.within(0.05) == 1 / 3
    assert accuracy.within(0.10) == 2 / 3
    assert accuracy.spearman == 1.0
    assert accuracy.clock == 0.02


def test_the_shift_is_the_median_of_measured_over_predicted() -> None:
    # measured / predicted is 1.10, 1.06 and 0.90: the median network took 6 % longer than predicted
    assert math.isclose(Accuracy((row(1.0, 1.10), row(2.0, 2.12), row(3.0, 2.7))).shift, 0.06)
    assert math.isnan(Accuracy(()).shift)


def test_coverage_counts_measured_values_inside() -> None:
    inside = row(1.0, 1.0, low=0.9, high=1.1)
    outside = row(1.0, 1.2, low=0.9, high=1.1)
    assert Accuracy((inside, inside, outside, inside)).coverage_of_interval == 0.75


def test_two_networks_have_no_rank_correlation() -> None:
    assert math.isnan(Accuracy((row(1, 1), row(2, 2))).spearman)


def test_an_error_within_the_spread_of_the_measurement_counts_as_inside() -> None:
    # errors +4 %, +8 %, +20 %; measurements of the second network have a spread of 9 %, of the third 10 %
    rows = (row(1.04, 1.0), row(1.08, 1.0, spread=0.09), row(1.2, 1.0, spread=0.1))
    accuracy = Accuracy(rows)
    assert accuracy.within(0.05) == 1 / 3
    assert accuracy.within_clock(0.05) == 2 / 3
    assert accuracy.wider_clock(0.05) == 2 / 3
