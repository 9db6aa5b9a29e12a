"""Tests of hwcost.search.curves: what is drawn for given curves."""

from __future__ import annotations

import math

import pytest

from hwcost.search.curves import curves_figure
from hwcost.search.scoring import ScoringError


def test_the_median_is_drawn_between_the_best_and_the_worst_seed() -> None:
    fig = curves_figure({"own": [[3.0, 1.0], [5.0, 0.0], [4.0, 2.0]]}, "regret (points)")
    low, high, median = fig.data
    assert (list(low.y), list(median.y), list(high.y)) == ([3.0, 0.0], [4.0, 1.0], [5.0, 2.0])
    assert list(median.x) == [1, 2]
    assert median.name == "own, median of 3 seeds"
    assert fig.layout.yaxis.title.text == "regret (points)"


def test_ways_have_colours_of_their_own_and_one_entry_each_in_the_legend() -> None:
    fig = curves_figure({"own": [[1.0]], "tpe": [[2.0]]}, "regret")
    shown = [trace for trace in fig.data if trace.showlegend is not False]
    assert [trace.name for trace in shown] == ["own", "tpe"]
    assert len({trace.line.color for trace in shown}) == 2


def test_a_regret_is_drawn_from_where_every_seed_has_one() -> None:
    *_, median = curves_figure({"late": [[math.inf, 2.0], [1.0, 1.0]]}, "regret").data
    assert math.isnan(median.y[0])
    assert median.y[1] == 1.5


def test_curves_that_cannot_be_drawn_together_are_refused() -> None:
    with pytest.raises(ScoringError, match=r"the curves of 'own' must be of one length above 0, but are of \[1, 2\]"):
        curves_figure({"own": [[1.0], [1.0, 2.0]]}, "regret")
    with pytest.raises(ScoringError, match="are of none"):
        curves_figure({"own": []}, "regret")
