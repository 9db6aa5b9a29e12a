"""Figures of accuracy: predicted against measured latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.report.axes import log_axis
from hwcost.report.columns import interval, percent
from hwcost.report.style import BLUE, BROWN, GREEN, GREY, ORANGE, PURPLE, RED, error_bars, faint, figure
from hwcost.units import format as quantity


def predicted_figure(held_out: Sequence[Comparison], found: Sequence[Comparison]) -> go.Figure:
    """Predicted latency with its interval against measured, both logarithmic, with bands of 5 and 10 % error.

    `held_out` are networks held out of the model's fit, and `found` those that a search found; either may be empty.
    """
    fig = figure()
    rows = [*held_out, *found]
    times = [t for r in rows for t in (r.predicted, r.measured)]
    low, high = min(times) / 1.3, max(times) * 1.3
    for width, opacity in ((0.10, 0.10), (0.05, 0.16)):
        fig.add_trace(_band([low, high], width, opacity))
    fig.add_trace(_line([low, high], [low, high], "exact"))
    for name, part, look in _parts(held_out, found):
        fig.add_trace(_intervals(name, part, look))
    return fig.update_layout(
        xaxis=log_axis([low, high], "second", "measured", margin=1.0),
        yaxis=log_axis([low, high], "second", "predicted", margin=1.0),
    )


def evaluation_figure(accuracy: Accuracy, others: Mapping[str, Accuracy]) -> go.Figure:
    """Predicted against measured, for one model; a click in the legend shows other predictors of the same networks."""
    fig = predicted_figure(accuracy.networks, ())
    fig.data[-1].name = f"this model, {len(accuracy.networks)} networks"
    for (name, other), color in zip(others.items(), (ORANGE, GREEN, PURPLE, RED, GREY, BROWN), strict=False):
        fig.add_trace(
            go.Scatter(
                x=[r.measured for r in other.networks],
                y=[r.predicted for r in other.networks],
                name=name,
                mode="markers",
                marker={"color": color, "size": 6},
                visible="legendonly",
                text=[_hover(r) for r in other.networks],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return fig


def error_figure(held_out: Sequence[Comparison], found: Sequence[Comparison]) -> go.Figure:
    """Relative error (%) of the prediction against measured latency, with the interval; see `predicted_figure`."""
    fig = figure()
    rows = [*held_out, *found]
    for width, opacity in ((0.10, 0.10), (0.05, 0.16)):
        fig.add_hrect(y0=-100 * width, y1=100 * width, fillcolor=GREEN, opacity=opacity, line_width=0, layer="below")
    for name, part, look in _parts(held_out, found):
        fig.add_trace(
            go.Scatter(
                x=[r.measured for r in part],
                y=[100 * r.error for r in part],
                name=name,
                mode="markers",
                marker=look,
                error_y=error_bars(
                    [100 * (r.high - r.predicted) / r.measured for r in part],
                    [100 * (r.predicted - r.low) / r.measured for r in part],
                    look["color"],
                ),
                text=[_hover(r) for r in part],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    reach = 100 * _reach(rows)
    return fig.update_layout(
        xaxis=log_axis([r.measured for r in rows], "second", "measured", margin=1.3),
        yaxis={
            "title": {"text": "error of the prediction"},
            "tickformat": "+.0f",
            "ticksuffix": " %",
            "range": [-reach, reach],
            "automargin": True,
            "zeroline": True,
        },
    )


def _reach(rows: Sequence[Comparison]) -> float:
    """Largest error (a fraction) in the error figure, which shows all points and nine tenths of the intervals' ends."""
    ends = sorted(abs(end / r.measured - 1) for r in rows for end in (r.low, r.high))
    return max([0.15, ends[int(0.9 * (len(ends) - 1))], *(1.1 * abs(r.error) for r in rows)])


def _parts(held_out: Sequence[Comparison], found: Sequence[Comparison]) -> list[tuple[str, Sequence[Comparison], Any]]:
    parts = [
        (f"{len(held_out)} networks held out of the fit", held_out, {"color": BLUE, "size": 7, "opacity": 0.75}),
        (f"{len(found)} found by the search", found, {"color": ORANGE, "size": 10, "symbol": "diamond"}),
    ]
    return [part for part in parts if part[1]]


def _intervals(name: str, rows: Sequence[Comparison], look: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[r.measured for r in rows],
        y=[r.predicted for r in rows],
        name=name,
        mode="markers",
        marker=look,
        error_y=error_bars([r.high - r.predicted for r in rows], [r.predicted - r.low for r in rows], look["color"]),
        text=[_hover(r) for r in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(r: Comparison) -> str:
    return (
        f"<b>{r.target}</b><br>predicted {interval(r.predicted, r.low, r.high)}"
        f"<br>measured {quantity(r.measured, 'second')} ±{percent(r.spread)}<br>error {100 * r.error:+.1f} %"
    )


def _band(ends: list[float], width: float, opacity: float) -> go.Scatter:
    upper, lower = [e * (1 + width) for e in ends], [e * (1 - width) for e in ends]
    return go.Scatter(
        x=[*ends, *ends[::-1]],
        y=[*upper, *lower[::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=faint(GREEN, opacity),
        hoverinfo="skip",
        showlegend=False,
    )


def _line(x: list[float], y: list[float], name: str) -> go.Scatter:
    return go.Scatter(
        x=x, y=y, name=name, mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip", showlegend=False
    )
