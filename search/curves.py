"""How scores develop with the number of trainings: figures that compare ways to search, each run with several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from hwcost.report.style import PALETTE, figure
from hwcost.search.scoring import ScoringError

Array = NDArray[np.float64]


def curves_figure(ways: Mapping[str, Sequence[ArrayLike]], score: str) -> go.Figure:
    """For each way to search a line, the median over its seeds, in a band from the lowest to the highest seed.

    Args:
        ways: name -> one curve for each seed, all of one length (`scoring.regret_curve`, `scoring.hypervolume_curve`).
            Where a seed's score is infinite, because it has found nothing within the budget, nothing is drawn.
        score: title of the vertical axis, with its unit.

    Raises:
        ScoringError: a way has no seeds, or curves of different lengths.
    """
    fig = figure()
    for i, (name, curves) in enumerate(ways.items()):
        color = PALETTE[i % len(PALETTE)]
        for trace in _traces(name, _stacked(name, curves), color):
            fig.add_trace(trace)
    fig.update_xaxes(title="trainings", rangemode="tozero")
    return fig.update_yaxes(title=score)


def _stacked(name: str, curves: Sequence[ArrayLike]) -> Array:
    """The curves as an array [seed, training]."""
    rows = [np.asarray(curve, dtype=float) for curve in curves]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or not lengths[0]:
        raise ScoringError(f"the curves of {name!r} must be of one length above 0, but are of {lengths or 'none'}")
    return np.vstack(rows)


def _traces(name: str, scores: Array, color: str) -> list[go.Scatter]:
    """The band, as a lower and an upper edge with the area between them filled, and the median."""
    drawn = np.where(np.isfinite(scores).all(axis=0), scores, np.nan)
    x = np.arange(1, scores.shape[1] + 1)
    edge = {
        "x": x,
        "mode": "lines",
        "line": {"width": 0},
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    seeds = f"{name}, median of {len(scores)} seeds" if len(scores) > 1 else name
    return [
        go.Scatter(y=drawn.min(axis=0), **edge),
        go.Scatter(y=drawn.max(axis=0), fill="tonexty", fillcolor=_faint(color), **edge),
        go.Scatter(
            x=x,
            y=np.median(drawn, axis=0),
            name=seeds,
            mode="lines",
            line={"color": color},
            legendgroup=name,
            hovertemplate="%{y:.4g} after %{x} trainings",
        ),
    ]


def _faint(color: str) -> str:
    """A colour "#rrggbb", nearly transparent."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
