"""Tests of hwcost.report.search_plots: what is drawn where, and that every number comes from the result."""

from __future__ import annotations

import math

import pytest

from hwcost.report.search_plots import front_figure, kinds_figure


def traces(figure):
    return {t.name: t for t in figure.data}


def test_trained_and_rejected_are_apart(result):
    front = traces(front_figure(result))
    trained = [c for c in result.candidates if c.state == "trained"]
    rejected = [c for c in result.candidates if c.state == "rejected"]
    assert list(front[f"trained ({len(trained)})"].x) == [c.latency for c in trained]
    strip = front[f"rejected before training ({len(rejected)})"]
    assert list(strip.x) == [c.latency for c in rejected]
    assert strip.yaxis == "y2"  # they have no accuracy, so no place beside those that have


def test_intervals_are_horizontal_bars(result):
    trained = next(t for t in front_figure(result).data if t.name.startswith("trained"))
    first = next(c for c in result.candidates if c.state == "trained")
    assert trained.x[0] + trained.error_x.array[0] == pytest.approx(first.high)
    assert trained.x[0] - trained.error_x.arrayminus[0] == pytest.approx(first.low)


def test_the_front_rises_and_the_measured_stand_beside(result):
    front = traces(front_figure(result))
    assert list(front["front found"].x) == sorted(front["front found"].x)
    assert list(front["measured"].x) == [w.measured for w in result.winners]


@pytest.mark.parametrize("budget", [26e-3, 9.0])
def test_the_budget_is_marked_where_it_is(make, budget):
    """A line is placed by value, its name on a logarithmic axis by the logarithm."""
    figure = front_figure(make(budget=budget))
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.shapes[0].x0 == budget
    assert figure.layout.annotations[0].x == pytest.approx(math.log10(budget))


def test_a_short_range_of_latencies_is_linear_from_zero(make, result):
    near = tuple(c for c in result.candidates if 10e-3 < c.latency < 40e-3)
    figure = front_figure(make(candidates=near))
    assert figure.layout.xaxis.type == "linear"
    assert figure.layout.xaxis.range[0] == 0
    assert figure.layout.annotations[0].x == result.budget


def test_no_rejected_candidates_no_trace_of_them(make, result):
    kept = tuple(c for c in result.candidates if c.state != "rejected")
    assert not [t for t in front_figure(make(candidates=kept)).data if "rejected" in t.name]


def test_bars_add_up_to_the_predicted_latency(result):
    figure = kinds_figure(result.winners)
    for i, name in enumerate(figure.data[0].y):
        winner = next(w for w in result.winners if w.name == name)
        assert sum(t.x[i] for t in figure.data) == pytest.approx(winner.estimate.latency)
