"""Figures of the quickstart's page on its search: accuracy against latency, and where the architectures' time goes.

Plots of any Optuna study are in `hwcost.search.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from hwcost.report.axes import linear_axis, log_axis
from hwcost.report.columns import interval, percent
from hwcost.report.result import Candidate, QuickstartResult, Winner
from hwcost.report.style import BLUE, GREY, ORANGE, PALETTE, RED, error_bars, figure
from hwcost.units import format as quantity

# -- the front ------------------------------------------------------------------------------------------


def front_figure(result: QuickstartResult) -> go.Figure:
    """Accuracy against predicted latency; a strip below holds the proposals that were rejected before training."""
    fig = figure(height=500)
    trained = [c for c in result.candidates if c.accuracy is not None and c.state == "trained"]
    rejected = [c for c in result.candidates if c.state == "rejected"]
    fig.add_trace(_trained(trained))
    if rejected:
        fig.add_trace(_rejected(rejected))
    fig.add_trace(_front(result.winners))
    fig.add_trace(_verified(result.winners))
    times = [t for c in (*trained, *rejected) for t in (c.low, c.high)] + [w.measured for w in result.winners]
    axis = _time_axis([*times, result.budget], "latency, predicted with its interval")
    _mark_budget(fig, result.budget, axis["type"] == "log")
    return fig.update_layout(
        xaxis=axis | {"anchor": "y2"},
        yaxis={"domain": [0.17, 1], "title": {"text": "accuracy"}, "ticksuffix": " %", "automargin": True},
        yaxis2={"domain": [0, 0.1], "range": [-1, 1], "visible": False, "anchor": "x"},
        legend={"y": 1.07},
    )


def _mark_budget(fig: go.Figure, budget: float, is_log: bool) -> None:
    """A dashed line with its name above. On a log axis plotly takes values for shapes, but log10 of them for text."""
    fig.add_shape(
        type="line", x0=budget, x1=budget, y0=0, y1=1, yref="paper", line={"color": RED, "width": 1.5, "dash": "dash"}
    )
    fig.add_annotation(
        x=math.log10(budget) if is_log else budget,
        y=1,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
        text=f"budget {quantity(budget, 'second')}",
        font={"color": RED},
    )


def _time_axis(seconds: Sequence[float], title: str) -> dict[str, Any]:
    """A linear axis from 0 where the times span less than a factor of ten, else a logarithmic one."""
    axis = log_axis(seconds, "second", title, margin=1.08)
    if axis["range"][1] - axis["range"][0] > 1:
        return axis
    return linear_axis(max(seconds) * 1.05, "second", title)


def _trained(candidates: Sequence[Candidate]) -> go.Scatter:
    return go.Scatter(
        x=[c.latency for c in candidates],
        y=[100 * (c.accuracy or 0.0) for c in candidates],
        mode="markers",
        name=f"trained ({len(candidates)})",
        marker={"color": BLUE, "size": 7, "opacity": 0.8},
        error_x=error_bars([c.high - c.latency for c in candidates], [c.latency - c.low for c in candidates], BLUE),
        text=[f"{percent(c.accuracy or 0)}<br>predicted {interval(c.latency, c.low, c.high)}" for c in candidates],
        hovertemplate="%{text}<extra></extra>",
    )


def _rejected(candidates: Sequence[Candidate]) -> go.Scatter:
    """Points of the strip; their height has no meaning, it keeps neighbours from covering one another."""
    return go.Scatter(
        x=[c.latency for c in candidates],
        y=[(i % 5 - 2) * 0.35 for i in range(len(candidates))],
        yaxis="y2",
        mode="markers",
        name=f"rejected before training ({len(candidates)})",
        marker={"color": GREY, "size": 6, "opacity": 0.7},
        text=[f"rejected<br>predicted {interval(c.latency, c.low, c.high)}" for c in candidates],
        hovertemplate="%{text}<extra></extra>",
    )


def _front(winners: Sequence[Winner]) -> go.Scatter:
    ordered = sorted(winners, key=lambda w: w.estimate.latency)
    return go.Scatter(
        x=[w.estimate.latency for w in ordered],
        y=[100 * w.accuracy for w in ordered],
        mode="lines+markers",
        name="front found",
        line={"color": ORANGE, "width": 2, "shape": "hv"},
        marker={"size": 9},
        text=[f"<b>{w.name}</b><br>{percent(w.accuracy)}<br>predicted {_of(w)}" for w in ordered],
        hovertemplate="%{text}<extra></extra>",
    )


def _of(w: Winner) -> str:
    return interval(w.estimate.latency, w.estimate.low, w.estimate.high)


def _verified(winners: Sequence[Winner]) -> go.Scatter:
    return go.Scatter(
        x=[w.measured for w in winners],
        y=[100 * w.accuracy for w in winners],
        mode="markers",
        name="measured",
        marker={"symbol": "diamond-open", "size": 13, "color": ORANGE, "line": {"width": 2}},
        text=[f"<b>{w.name}</b><br>measured {quantity(w.measured, 'second')} ±{percent(w.spread)}" for w in winners],
        hovertemplate="%{text}<extra></extra>",
    )


# -- where the time goes ----------------------------------------------------------------------------------


def kinds_figure(winners: Sequence[Winner]) -> go.Figure:
    """Predicted time of each architecture of the front as a stacked bar: kinds of kernel, then overhead."""
    ordered = sorted(winners, key=lambda w: w.estimate.latency, reverse=True)
    by_winner = [time_by_kind(w) for w in ordered]
    names = leading(by_winner)
    fig = figure(height=210 + 34 * len(ordered))
    for name, color in zip(names, (*PALETTE[:5], "#5bb5c5", GREY), strict=False):
        x = [sum(t for k, t in times.items() if _group(k, names) == name) for times in by_winner]
        text = [f"{name}: {quantity(t, 'second')} of {w.name}" for t, w in zip(x, ordered, strict=True)]
        fig.add_trace(
            go.Bar(
                x=x,
                y=[w.name for w in ordered],
                orientation="h",
                name=name,
                marker={"color": color},
                text=text,
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
            )
        )
    times = [w.estimate.latency for w in ordered]
    axis = _time_axis([0.9 * max(times), max(times)], "predicted time")
    return fig.update_layout(barmode="stack", bargap=0.35, xaxis=axis, legend={"traceorder": "normal"})


def time_by_kind(winner: Winner) -> dict[str, float]:
    """Predicted seconds by kind of kernel, and "overhead" for what no kernel accounts for."""
    times: dict[str, float] = {}
    for k in winner.estimate.kernels:
        times[k.kind] = times.get(k.kind, 0.0) + k.latency
    return times | {"overhead": winner.estimate.overhead}


def leading(times: Sequence[Mapping[str, float]], most: int = 5) -> list[str]:
    """The kinds that take most time, then "other" where there are more, then "overhead"."""
    total: dict[str, float] = {}
    for one in times:
        for kind, seconds in one.items():
            total[kind] = total.get(kind, 0.0) + seconds
    kinds = sorted((k for k in total if k != "overhead"), key=lambda k: -total[k])
    return [*kinds[:most], *(["other"] if len(kinds) > most else []), "overhead"]


def _group(kind: str, names: Sequence[str]) -> str:
    return kind if kind in names else "other"
