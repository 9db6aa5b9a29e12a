"""Tests of hwcost.report.findings: the sentences say what the figures say, and nothing better."""

from __future__ import annotations

import dataclasses

import pytest

from hwcost.report.findings import findings
from hwcost.report.result import PageError


def said(result):
    return " ".join(f"{f.claim}. {f.support}" for f in findings(result))


def test_the_best_is_the_most_accurate_within_the_budget(result, make):
    assert result.best.name == "trial 96"
    assert make(budget=21e-3).best.name == "trial 71"  # 96 is predicted to take 25.7 ms
    assert "Trial 71 is the most accurate architecture within the budget of 21 ms" in said(make(budget=21e-3))


def test_a_measured_time_outside_the_interval_is_said(make):
    result = make(budget=21e-3)  # trial 71 was measured 13 % over its prediction; its interval ends at 9 %
    assert "the measured time lies outside the 90 % interval" in said(result)
    assert "That is over the budget of 21 ms" in said(result)


def test_no_architecture_within_the_budget_is_said(make):
    text = said(make(budget=1e-3))
    assert "Nothing found fits the budget of 1 ms" in text
    assert "Trial 17 is the fastest found" in text


def test_counts_of_the_search(result):
    states = [c.state for c in result.candidates]
    text = said(result)
    assert f"{states.count('rejected')} of {len(states)} proposals rejected without training" in text
    assert f"{states.count('trained')} were trained" in text


def test_nothing_rejected_saves_nothing(result, make):
    kept = tuple(c for c in result.candidates if c.state != "rejected")
    text = said(make(candidates=kept))
    assert "0 of" in text
    assert "would have taken" not in text


def test_the_clock_stands_beside_the_error(result):
    assert f"the clock repeats itself to ±{100 * result.held_out.clock:.1f} %" in said(result)


def test_four_of_five_inside(result):
    assert "Of the 5 found and measured again, 4 lay inside the predicted interval" in said(result)


def test_overhead_is_told_where_there_is_some(result, make):
    assert "328 µs of overhead between kernels" in said(result)  # 82 kernels, 4 µs each
    best = dataclasses.replace(result.best, estimate=dataclasses.replace(result.best.estimate, overhead=2e-14))
    assert "overhead" not in said(make(winners=(best,)))


def test_what_binds_decides_the_advice(result, make):
    assert "memory-bound" in said(result)
    best = result.best
    kernels = tuple(dataclasses.replace(k, bound="compute") for k in best.estimate.kernels)
    bound = dataclasses.replace(best, estimate=dataclasses.replace(best.estimate, kernels=kernels))
    assert "100 % of its time is compute-bound. To be faster it must compute less" in said(make(winners=(bound,)))


def test_one_winner_is_a_front_of_one(result, make):
    assert "Trial 96 is the fastest and most accurate" in said(make(winners=(result.best,)))


def test_a_result_without_winners_is_refused(make):
    with pytest.raises(PageError, match="at least one verified architecture"):
        make(winners=())
