"""Tests of hwcost.report.accuracy_plots: every number of a figure comes from the result."""

from __future__ import annotations

import pytest

from hwcost.report.accuracy_plots import error_figure, predicted_figure


def traces(figure):
    return {t.name: t for t in figure.data}


def test_predicted_against_measured(result):
    rows = result.held_out.networks
    points = traces(predicted_figure(rows, ()))["60 networks held out of the fit"]
    assert (points.x[7], points.y[7]) == (rows[7].measured, rows[7].predicted)
    assert points.y[7] + points.error_y.array[7] == pytest.approx(rows[7].high)


def test_errors_in_percent_with_the_ends_of_the_interval(result):
    rows = result.held_out.networks
    points = traces(error_figure(rows, ()))["60 networks held out of the fit"]
    assert points.y[3] == pytest.approx(100 * (rows[3].predicted / rows[3].measured - 1))
    assert points.y[3] + points.error_y.array[3] == pytest.approx(100 * (rows[3].high / rows[3].measured - 1))
    low, high = error_figure(rows, ()).layout.yaxis.range
    assert all(low < y < high for y in points.y)  # no network is cut off
