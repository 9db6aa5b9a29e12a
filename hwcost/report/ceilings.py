"""A device's ceilings as a figure and as text: measured values beside those of its data sheet or clock frequency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from hwcost import units
from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.report.axes import linear_axis
from hwcost.report.columns import percent
from hwcost.report.html import save_figure
from hwcost.report.style import BLUE, GREY, figure

Ceiling = ComputeCeiling | MemoryCeiling
_ROW = 46  # height of a bar in pixels; axes and legend take 150 more


def save_ceilings(device: Device, path: Path) -> None:
    """Write the figure of a device's ceilings, with their sources below it, as one HTML file."""
    save_figure(ceilings_figure(device), path, f"Ceilings of {device.name}", ceiling_notes(device))


def ceilings_figure(device: Device) -> go.Figure:
    """Horizontal bars, compute above memory: the data sheet's value wide and pale, the measured one narrow over it."""
    compute, memory = list(device.compute), list(device.memory)
    rows = len(compute) + len(memory)
    cut = len(memory) / rows  # height at which memory ends and compute begins, as a share of the figure
    fig = figure(height=150 + _ROW * rows)
    groups: Sequence[tuple[Sequence[Ceiling], tuple[str, str]]] = ((compute, ("x", "y")), (memory, ("x2", "y2")))
    for ceilings, axes in groups:
        for trace in _bars(ceilings):
            fig.add_trace(trace | {"xaxis": axes[0], "yaxis": axes[1], "showlegend": axes[0] == "x"})
    gap = 60 / (150 + _ROW * rows)  # left free on each side of the cut, for the axis of the upper half
    return fig.update_layout(
        barmode="overlay",
        xaxis=_axis(compute, "flop/s", "compute", "y"),
        xaxis2=_axis(memory, "byte/s", "memory bandwidth", "y2"),
        yaxis={"domain": [min(cut + gap, 0.9), 1], "autorange": "reversed", "automargin": True, "anchor": "x"},
        yaxis2={"domain": [0, max(cut - gap, 0.1)], "autorange": "reversed", "automargin": True, "anchor": "x2"},
    )


def ceiling_notes(device: Device) -> list[str]:
    """One sentence for each ceiling with its values and their sources, and a warning where the machine was busy."""
    notes = []
    ceilings: list[Ceiling] = [*device.compute, *device.memory]
    for c in ceilings:
        sources = "; ".join(s for s in (c.measured_source, c.paper_source) if s)
        notes.append(f"{_name(c)}: {reached(c)}. {sources}.")
    quiet = device.host.get("quiet", "yes")
    if quiet != "yes":
        notes.append(f"The machine was not quiet, {quiet.removeprefix('no: ')}: calibrate again when it is.")
    return notes


def reached(c: Ceiling) -> str:
    """A ceiling as "2.86 TFLOP/s of 4.608 TFLOP/s on paper (62 %)", or with the one value that is known."""
    unit: units.Dimension = "flop/s" if isinstance(c, ComputeCeiling) else "byte/s"
    if c.measured is None:
        return f"{units.format(c.value, unit, 4)} on paper"
    if c.paper is None:
        return f"{units.format(c.measured, unit, 4)} measured"
    both = f"{units.format(c.measured, unit, 4)} of {units.format(c.paper, unit, 4)} on paper"
    return f"{both} ({percent(c.measured / c.paper, 0)})"


def _name(c: Ceiling) -> str:
    what = c.dtype if isinstance(c, ComputeCeiling) else c.level
    if c.threads is None:
        return f"{what}, whole device"
    return f"{what}, {c.threads} thread{'s' if c.threads > 1 else ''}"


def _bars(ceilings: Sequence[Ceiling]) -> list[dict[str, Any]]:
    common = {
        "type": "bar",
        "orientation": "h",
        "y": [_name(c) for c in ceilings],
        "hovertext": [reached(c) for c in ceilings],
        "hoverinfo": "text",
    }
    paper = common | {
        "name": "on paper",
        "x": [c.paper for c in ceilings],
        "width": 0.8,
        "marker": {"color": GREY, "opacity": 0.35},
    }
    measured = common | {
        "name": "achieved",
        "x": [c.measured for c in ceilings],
        "width": 0.45,
        "marker": {"color": BLUE},
        "text": [reached(c) for c in ceilings],
        "textposition": "auto",
        "error_x": {"type": "data", "array": [(c.spread or 0.0) * (c.measured or 0.0) for c in ceilings]},
    }
    return [paper, measured]


def _axis(ceilings: Sequence[Ceiling], unit: units.Dimension, title: str, anchor: str) -> dict[str, Any]:
    high = max([v for c in ceilings for v in (c.paper, c.measured) if v is not None], default=1.0)
    return linear_axis(1.08 * high, unit, title) | {"anchor": anchor}
