"""Tests of hwcost.search.scoring: worked areas, an independent count, laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.search.scoring import (
    ScoringError,
    front,
    hypervolume,
    hypervolume_curve,
    hypervolume_ratio,
    regret,
    regret_curve,
    summary,
)

TIMES = [1.0, 2.0, 3.0, 4.0, 2.5]
ACCURACIES = [0.5, 0.7, 0.6, 0.9, 0.7]  # the third is dominated by the second, and so is the fifth


def test_front() -> None:
    assert front(TIMES, ACCURACIES).tolist() == [0, 1, 3]


def test_hypervolume() -> None:
    """Against (5 s, 0.4): 1 s at 0.1, then 2 s at 0.3, then 1 s at 0.5: 0.1 + 0.6 + 0.5 = 1.2."""
    assert hypervolume(TIMES, ACCURACIES, (5.0, 0.4)) == pytest.approx(1.2)


points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8)


@given(points)
def test_hypervolume_counts_dominated_cells(found: list[tuple[int, int]]) -> None:
    """On a grid the area is the number of unit cells that some point dominates."""
    cells = sum(any(t <= x and m > y for t, m in found) for x in range(10) for y in range(10))
    assert hypervolume(*zip(*found, strict=True), (10.0, 0.0)) == pytest.approx(cells)


@given(points, points)
def test_finding_more_is_never_worse(found: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    truth, reference = tuple(zip(*[*found, *more, (0, 1)], strict=True)), (10.0, 0.0)
    less = hypervolume_ratio(tuple(zip(*found, strict=True)), truth, reference=reference)
    both = hypervolume_ratio(tuple(zip(*[*found, *more], strict=True)), truth, reference=reference)
    assert 0 <= less <= both <= 1 + 1e-12


def test_regret_counts_within_the_budget_only() -> None:
    truth = (TIMES, ACCURACIES)
    assert regret(([1.0, 4.0], [0.5, 0.9]), truth, budget=3.0) == pytest.approx(0.2)  # 0.7 was there
    assert regret(([1.0, 4.0], [0.5, 0.9]), truth) == 0.0
    assert regret(([4.0], [0.9]), truth, budget=3.0) == np.inf


def test_regret_over_trainings_falls() -> None:
    curve = regret_curve(([1.0, 3.0, 2.0], [0.5, 0.6, 0.7]), (TIMES, ACCURACIES), budget=3.0)
    assert curve == pytest.approx([0.2, 0.1, 0.0])


def test_hypervolume_over_trainings_rises_to_all_of_it() -> None:
    """The true front, against (4 s, 0.5): 0.2 for 2 s at 0.7; the point at 4 s adds nothing, being on the edge."""
    curve = hypervolume_curve(([1.0, 3.0, 2.0], [0.5, 0.6, 0.7]), (TIMES, ACCURACIES))
    assert curve == pytest.approx([0.0, 0.1 / 0.4, 1.0])  # 0.1 for 1 s, then 0.2 for 2 s


def test_summary_of_seeds() -> None:
    assert summary([0.0, 0.1, 0.5]) == pytest.approx({"median": 0.1, "mean": 0.2, "worst": 0.5})


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ScoringError, match=r"no architecture is within the budget of 0\.5 s; the fastest takes 1"):
        regret(([1.0], [0.5]), (TIMES, ACCURACIES), budget=0.5)
    with pytest.raises(ScoringError, match="single point"):
        hypervolume_ratio(([1.0], [0.5]), ([1.0], [0.5]))
    with pytest.raises(ScoringError, match=r"of one length, but got shapes \(1,\) and \(2,\)"):
        front([1.0], [1.0, 2.0])
