"""The style that all figures share: colours, an empty figure, error bars.

Figures are made of SI values (seconds, flop/s, flop/byte, fractions); axes and hover texts state the units. Colours of
text, axes and grid are set by the page, which follows the reader's light or dark colour scheme.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#3f88c5", "#e8871e", "#3a9d78", "#8f6bb8", "#c8553d", "#98a0aa"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
BROWN = "#8d6e63"


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


def error_bars(up: list[float], down: list[float], color: str) -> dict[str, Any]:
    """Error bars of these lengths above and below each point, or right and left of it."""
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "thickness": 1.2,
        "width": 0,
        "color": faint(color),
    }


def faint(color: str, opacity: float = 0.45) -> str:
    """A colour "#rrggbb" made transparent."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
