"""The roofline figure: a device's ceilings, and kernels under them.

A kernel stands at its arithmetic intensity (flop/byte, compulsory traffic) and the rate it attains
(flop/s, by its predicted time). Equal kernels are one point, whose area is their share of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from hwcost.device import ComputeCeiling, Device, MemoryCeiling
from hwcost.estimate import Estimate, KernelEstimate
from hwcost.report.axes import log_axis
from hwcost.report.columns import percent
from hwcost.report.plots import PALETTE, figure
from hwcost.units import format as quantity

_ROOF = "#7b8794"


@dataclass(frozen=True, slots=True)
class Point:
    """Equal kernels of one network."""

    kernel: KernelEstimate
    group: str  # what its colour stands for
    calls: int
    time: float  # s, of all calls
    share: float  # of the network's kernel time

    @property
    def rate(self) -> float:
        """Attained arithmetic (flop/s)."""
        return self.kernel.cost.flops * self.calls / self.time


def roofline_figure(
    device: Device, networks: Mapping[str, Estimate], *, threads: int, dtype: str = "float32"
) -> go.Figure:
    """Kernels under the device's ceilings; coloured by kind for one network, by network for several."""
    points = [p for name, e in networks.items() for p in placed(name, e, by_kind=len(networks) == 1)]
    shown = [p for p in points if math.isfinite(p.kernel.cost.intensity) and p.kernel.cost.intensity > 0 and p.time > 0]
    peak = device.peak(dtype, threads)
    ridge = device.ridge(dtype, threads)
    intensities = [ridge / 8, ridge * 8, *(p.kernel.cost.intensity for p in shown)]
    room = (min(intensities) / 4, max(intensities) * 4)  # for the names of the ceilings, beside every point
    x = log_axis(room, "flop/byte", "arithmetic intensity")
    fig = figure(height=540)
    ends = tuple(10**e for e in x["range"])
    lines = [*_ceilings(device, dtype, threads)]
    for line in lines:
        _draw(fig, line, ends, peak, lines)
    for group, color in zip(_groups(shown), PALETTE, strict=False):
        fig.add_trace(_points(group, [p for p in shown if p.group == group], color, several=len(networks) > 1))
    lowest = [line.value * ends[0] / 1.8 for line in lines if not line.compute]  # their names stand under them
    y = log_axis(
        [*(p.rate for p in shown), *(1.3 * line.value for line in lines if line.compute), *lowest],
        "flop/s",
        "attained compute",
    )
    return fig.update_layout(xaxis=x, yaxis=y | {"automargin": True})


def without_arithmetic(estimate: Estimate) -> tuple[int, float]:
    """Kernels that have no place on a roofline plot (copies, concatenations), and their share of the kernels' time."""
    total = sum(k.latency for k in estimate.kernels)
    bare = [k for k in estimate.kernels if not k.cost.flops]
    return len(bare), sum(k.latency for k in bare) / total if total else 0.0


# -- kernels ----------------------------------------------------------------------------------------------


def placed(network: str, estimate: Estimate, *, by_kind: bool) -> list[Point]:
    """One point for equal kernels, largest first so that small ones are drawn on top."""
    groups: dict[str, list[KernelEstimate]] = {}
    for kernel in estimate.kernels:
        groups.setdefault(kernel.key, []).append(kernel)
    total = sum(k.latency for k in estimate.kernels)
    kinds = _leading(estimate.kernels) if by_kind else ()
    points = []
    for equal in groups.values():
        time = sum(k.latency for k in equal)
        group = (equal[0].kind if equal[0].kind in kinds else "other") if by_kind else network
        points.append(Point(equal[0], group, len(equal), time, time / total if total else 0.0))
    return sorted(points, key=lambda p: -p.time)


def _leading(kernels: Iterable[KernelEstimate], most: int = 5) -> tuple[str, ...]:
    """The kinds that take most time."""
    total: dict[str, float] = {}
    for k in kernels:
        total[k.kind] = total.get(k.kind, 0.0) + k.latency
    return tuple(sorted(total, key=lambda kind: -total[kind])[:most])


def _groups(points: Sequence[Point]) -> list[str]:
    """By time, "other" last."""
    time: dict[str, float] = {}
    for p in points:
        time[p.group] = time.get(p.group, 0.0) + p.time
    return sorted(time, key=lambda g: (g == "other", -time[g]))


def _legend(group: str, points: Sequence[Point], several: bool) -> str:
    """A kind with its share of the time, or a network with its time."""
    if several:
        return f"{group} ({quantity(sum(p.time for p in points), 'second')})"
    return f"{group} ({percent(sum(p.share for p in points), 0)} of time)"


def _points(group: str, points: Sequence[Point], color: str, *, several: bool) -> go.Scatter:
    return go.Scatter(
        x=[p.kernel.cost.intensity for p in points], y=[p.rate for p in points], mode="markers",
        name=_legend(group, points, several),
        marker={"color": color, "size": [7 + 46 * math.sqrt(p.share) for p in points], "opacity": 0.72,
                "line": {"width": 1, "color": "rgba(255,255,255,0.6)"}},
        text=[_hover(p) for p in points], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _hover(p: Point) -> str:
    k = p.kernel
    return (
        f"<b>{k.name}</b> in {k.module or 'the root'}{f', {p.calls} equal calls' if p.calls > 1 else ''}"
        f"<br>{quantity(p.time, 'second')}, {percent(p.share)} of the time, {k.bound}-bound"
        f"<br>{quantity(k.cost.intensity, 'flop/byte')}, {quantity(p.rate, 'flop/s')}"
        f"<br>{percent(k.roofline / k.latency, 0)} of its roofline"
    )


# -- ceilings ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A ceiling to draw: flop/s for compute, byte/s for memory."""

    name: str
    value: float
    compute: bool
    measured: bool


def _ceilings(device: Device, dtype: str, threads: int) -> list[Line]:
    """The ceilings in force, and the paper values of the same thread count."""
    used = device.peak(dtype, threads)
    known = [c for c in device.compute if c.dtype == dtype] or [c for c in device.compute if c.dtype == "float32"]
    lines = [Line(f"{dtype} {quantity(used, 'flop/s')}", used, True, any(c.is_measured for c in known))]
    lines += _paper(known, used, threads, device, dtype)
    for level in dict.fromkeys(m.level for m in device.memory):
        here = [m for m in device.memory if m.level == level]
        value = device.bandwidth(level, threads)
        lines.append(Line(f"{level} {quantity(value, 'byte/s')}", value, False, any(m.is_measured for m in here)))
        lines += _paper(here, value, threads, device, level)
    return lines


def _paper(
    known: Sequence[ComputeCeiling] | Sequence[MemoryCeiling], used: float, threads: int, device: Device, name: str
) -> list[Line]:
    compute = isinstance(known[0], ComputeCeiling) if known else False
    same = [c for c in known if c.paper is not None and (c.threads or device.cores) == threads and c.paper != used]
    unit: Any = "flop/s" if compute else "byte/s"
    return [Line(f"{name} on paper {quantity(c.paper, unit)}", c.paper, compute, False) for c in same if c.paper]


def _draw(fig: go.Figure, line: Line, ends: tuple[float, ...], peak: float, lines: Sequence[Line]) -> None:
    """A memory ceiling rises until it meets the peak; a compute ceiling starts where the fastest memory meets it."""
    left, right = ends
    if line.compute:
        fastest = max((other.value for other in lines if not other.compute), default=line.value)
        x, y = [max(left, line.value / fastest), right], [line.value, line.value]
    else:
        x = [left, min(right, max(left, peak / line.value))]
        y = [line.value * x[0], line.value * x[1]]
    dash = "solid" if line.measured else "dot"
    fig.add_trace(
        go.Scatter(
            x=x, y=y, mode="lines", line={"color": _ROOF, "width": 2 if line.measured else 1.5, "dash": dash},
            hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
    end = 1 if line.compute else 0
    fig.add_annotation(
        x=math.log10(x[end]), y=math.log10(y[end]), text=line.name, showarrow=False, font={"size": 12},
        xanchor="right" if line.compute else "left", yanchor="bottom" if line.compute else "top",
        xshift=0 if line.compute else 6,
    )  # fmt: skip
