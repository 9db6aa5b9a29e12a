"""Plotly figures of accuracy and of a search's result, and the style that all figures share.

Numbers go in as SI values (seconds, flop/s, flop/byte, fractions); axes and hover texts state the units. Colours of
text, axes and grid are set by the page, which follows the reader's light or dark colour scheme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.report.axes import linear_axis, log_axis
from hwcost.report.columns import interval, percent
from hwcost.report.result import Candidate, QuickstartResult, Winner
from hwcost.units import format as quantity

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#3f88c5", "#e8871e", "#3a9d78", "#8f6bb8", "#c8553d", "#98a0aa"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
_BROWN = "#8d6e63"
_THIN = "rgba(63,136,197,0.35)"


def figure(height: int = 440) -> go.Figure:
    """An empty figure in the style that all figures share; `height` in pixels."""
    return go.Figure(
        layout={
            "template": {},
            "height": height,
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
            "hoverlabel": {"align": "left"},
            "xaxis": {"automargin": True},
            "yaxis": {"automargin": True},
        }
    )


# -- predicted against measured -----------------------------------------------------------------------


def predicted_figure(held_out: Sequence[Comparison], found: Sequence[Comparison]) -> go.Figure:
    """Predicted latency with its interval against measured, both logarithmic, with bands of 5 and 10 % error."""
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
    for (name, other), color in zip(others.items(), (ORANGE, GREEN, PURPLE, RED, GREY, _BROWN), strict=False):
        fig.add_trace(
            go.Scatter(
                x=[r.measured for r in other.networks], y=[r.predicted for r in other.networks], name=name,
                mode="markers", marker={"color": color, "size": 6}, visible="legendonly",
                text=[_hover(r) for r in other.networks], hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    return fig


def error_figure(held_out: Sequence[Comparison], found: Sequence[Comparison]) -> go.Figure:
    """Relative error of the prediction against the measured time, with the stated interval."""
    fig = figure()
    rows = [*held_out, *found]
    for width, opacity in ((0.10, 0.10), (0.05, 0.16)):
        fig.add_hrect(y0=-100 * width, y1=100 * width, fillcolor=GREEN, opacity=opacity, line_width=0, layer="below")
    for name, part, look in _parts(held_out, found):
        fig.add_trace(
            go.Scatter(
                x=[r.measured for r in part], y=[100 * r.error for r in part], name=name, mode="markers", marker=look,
                error_y=_bars([100 * (r.high - r.predicted) / r.measured for r in part],
                              [100 * (r.predicted - r.low) / r.measured for r in part], look["color"]),
                text=[_hover(r) for r in part], hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    reach = 100 * _reach(rows)
    return fig.update_layout(
        xaxis=log_axis([r.measured for r in rows], "second", "measured", margin=1.3),
        yaxis={"title": {"text": "error of the prediction"}, "tickformat": "+.0f", "ticksuffix": " %",
               "range": [-reach, reach], "automargin": True, "zeroline": True},
    )  # fmt: skip


def _reach(rows: Sequence[Comparison]) -> float:
    """Half the height of the error figure: it shows every point and nine tenths of the ends of intervals."""
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
        x=[r.measured for r in rows], y=[r.predicted for r in rows], name=name, mode="markers", marker=look,
        error_y=_bars([r.high - r.predicted for r in rows], [r.predicted - r.low for r in rows], look["color"]),
        text=[_hover(r) for r in rows], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _hover(r: Comparison) -> str:
    return (
        f"<b>{r.target}</b><br>predicted {interval(r.predicted, r.low, r.high)}"
        f"<br>measured {quantity(r.measured, 'second')} ±{percent(r.spread)}<br>error {100 * r.error:+.1f} %"
    )


def _bars(up: list[float], down: list[float], color: str) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 0,
            "color": _faint(color)}  # fmt: skip


def _faint(color: str, opacity: float = 0.45) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _band(ends: list[float], width: float, opacity: float) -> go.Scatter:
    upper, lower = [e * (1 + width) for e in ends], [e * (1 - width) for e in ends]
    return go.Scatter(
        x=[*ends, *ends[::-1]], y=[*upper, *lower[::-1]], fill="toself", mode="lines", line={"width": 0},
        fillcolor=_faint(GREEN, opacity), hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def _line(x: list[float], y: list[float], name: str) -> go.Scatter:
    return go.Scatter(
        x=x, y=y, name=name, mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip", showlegend=False
    )


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
    )  # fmt: skip
    fig.add_annotation(
        x=math.log10(budget) if is_log else budget, y=1, yref="paper", yanchor="bottom", showarrow=False,
        text=f"budget {quantity(budget, 'second')}", font={"color": RED},
    )  # fmt: skip


def _time_axis(seconds: Sequence[float], title: str) -> dict[str, Any]:
    """A linear axis from 0 where the times span less than a factor of ten, else a logarithmic one."""
    axis = log_axis(seconds, "second", title, margin=1.08)
    if axis["range"][1] - axis["range"][0] > 1:
        return axis
    return linear_axis(max(seconds) * 1.05, "second", title)


def _trained(candidates: Sequence[Candidate]) -> go.Scatter:
    return go.Scatter(
        x=[c.latency for c in candidates], y=[100 * (c.accuracy or 0.0) for c in candidates], mode="markers",
        name=f"trained ({len(candidates)})", marker={"color": BLUE, "size": 7, "opacity": 0.8},
        error_x=_bars([c.high - c.latency for c in candidates], [c.latency - c.low for c in candidates], BLUE),
        text=[f"{percent(c.accuracy or 0)}<br>predicted {interval(c.latency, c.low, c.high)}" for c in candidates],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _rejected(candidates: Sequence[Candidate]) -> go.Scatter:
    """Points of the strip; their height has no meaning, it keeps neighbours from covering one another."""
    return go.Scatter(
        x=[c.latency for c in candidates], y=[(i % 5 - 2) * 0.35 for i in range(len(candidates))], yaxis="y2",
        mode="markers", name=f"rejected before training ({len(candidates)})",
        marker={"color": GREY, "size": 6, "opacity": 0.7},
        text=[f"rejected<br>predicted {interval(c.latency, c.low, c.high)}" for c in candidates],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _front(winners: Sequence[Winner]) -> go.Scatter:
    ordered = sorted(winners, key=lambda w: w.estimate.latency)
    return go.Scatter(
        x=[w.estimate.latency for w in ordered], y=[100 * w.accuracy for w in ordered], mode="lines+markers",
        name="front found", line={"color": ORANGE, "width": 2, "shape": "hv"}, marker={"size": 9},
        text=[f"<b>{w.name}</b><br>{percent(w.accuracy)}<br>predicted {_of(w)}" for w in ordered],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _of(w: Winner) -> str:
    return interval(w.estimate.latency, w.estimate.low, w.estimate.high)


def _verified(winners: Sequence[Winner]) -> go.Scatter:
    return go.Scatter(
        x=[w.measured for w in winners], y=[100 * w.accuracy for w in winners], mode="markers", name="measured",
        marker={"symbol": "diamond-open", "size": 13, "color": ORANGE, "line": {"width": 2}},
        text=[f"<b>{w.name}</b><br>measured {quantity(w.measured, 'second')} ±{percent(w.spread)}" for w in winners],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


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
                x=x, y=[w.name for w in ordered], orientation="h", name=name, marker={"color": color}, text=text,
                textposition="none", hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
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
