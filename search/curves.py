"""Scores over trainings as plotly figures: several ways to search, each by several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from hwcost.report.plots import PALETTE, figure
from hwcost.search.scoring import ScoringError


def curves_figure(ways: Mapping[str, Sequence[ArrayLike]], score: str) -> go.Figure:
    """A line for each way: the median over its seeds after each training, in a band from the worst seed to the best.

    Args:
        ways: name -> one curve for each seed, of one length within a way (`scoring.regret_curve`,
            `scoring.hypervolume_curve`); an infinite regret, while nothing is within the budget, is not drawn.
        score: title of the vertical axis, with its unit.

    Raises:
        ScoringError: a way has no seeds, or curves of different lengths.
    """
    fig = figure()
    for i, (name, curves) in enumerate(ways.items()):
        color = PALETTE[i % len(PALETTE)]
        for trace in _traces(name, _rows(name, curves), color):
            fig.add_trace(trace)
    fig.update_xaxes(title="trainings", rangemode="tozero")
    return fig.update_yaxes(title=score)


def _rows(name: str, curves: Sequence[ArrayLike]) -> Any:
    rows = [np.asarray(curve, dtype=float) for curve in curves]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or not lengths[0]:
        raise ScoringError(f"the curves of {name!r} must be of one length above 0, but are of {lengths or 'none'}")
    return np.vstack(rows)


def _traces(name: str, rows: Any, color: str) -> list[go.Scatter]:
    """Lower edge, upper edge filled down to it, and median."""
    drawn = np.where(np.isfinite(rows).all(axis=0), rows, np.nan)
    x = np.arange(1, rows.shape[1] + 1)
    edge = {
        "x": x,
        "mode": "lines",
        "line": {"width": 0},
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    seeds = f"{name}, median of {len(rows)} seeds" if len(rows) > 1 else name
    return [
        go.Scatter(y=drawn.min(axis=0), **edge),
        go.Scatter(y=drawn.max(axis=0), fill="tonexty", fillcolor=_faint(color), **edge),
        go.Scatter(
            x=x, y=np.median(drawn, axis=0), name=seeds, mode="lines", line={"color": color}, legendgroup=name,
            hovertemplate="%{y:.4g} after %{x} trainings",
        ),
    ]  # fmt: skip


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
