"""The roofline figure: a device's ceilings, and kernels under them.

A kernel stands at its arithmetic intensity (flop/byte, compulsory traffic) and the rate it attains
(flop/s, by its predicted time). Equal kernels are one point, whose area is their share of the time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.model.estimate import Estimate, KernelEstimate
from hwcost.report.axes import log_axis
from hwcost.report.columns import percent
from hwcost.report.style import PALETTE, figure
from hwcost.units import format as quantity

_ROOF = "#7b8794"
_HOVERS = 40  # points along a ceiling whose hover text is its name


@dataclass(frozen=True, slots=True)
class Point:
    """Equal kernels of one network, which are one point of the figure."""

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
    device: Device,
    networks: Mapping[str, Estimate],
    *,
    threads: int,
    dtype: str = "float32",
    runtime: str = "torch-eager",
) -> go.Figure:
    """Kernels under the device's ceilings, coloured by kind where there is one network, else by network.

    Args:
        device: whose ceilings are drawn.
        networks: estimates by the names that the legend gives them.
        threads: number of threads whose ceilings are drawn.
        dtype: whose compute ceiling is drawn.
        runtime: whose ceilings of kinds of kernel are drawn, where they bind one of the kernels.
    """
    points = [p for name, e in networks.items() for p in placed(name, e, by_kind=len(networks) == 1)]
    shown = [p for p in points if math.isfinite(p.kernel.cost.intensity) and p.kernel.cost.intensity > 0 and p.time > 0]
    ridge = device.ridge(dtype, threads)
    intensities = [ridge / 16, ridge * 8, *(p.kernel.cost.intensity for p in shown)]
    room = min(intensities) / 3  # for the key, above the ceilings
    x = log_axis([room, *intensities], "flop/byte", "arithmetic intensity", margin=1.5)
    left, right = (10**e for e in x["range"])
    lines = [*_ceilings(device, dtype, threads), *_of_kinds(device, shown, (runtime, threads, dtype))]
    fig = figure(height=540)
    for line in lines:
        fig.add_trace(_roof(line, left, right, lines))
    for group, color in zip(_groups(shown), itertools.cycle(PALETTE), strict=False):
        fig.add_trace(_points(group, [p for p in shown if p.group == group], color, several=len(networks) > 1))
    heights = [line.value if line.compute else line.value * left for line in lines]
    y = log_axis([*heights, *(p.rate for p in shown)], "flop/s", "attained compute", margin=1.4)
    fig.add_annotation(_key(lines))
    return fig.update_layout(xaxis=x, yaxis=y)


def without_arithmetic(estimate: Estimate) -> tuple[int, float]:
    """Number of kernels without arithmetic, and their share (0 to 1) of the time of all kernels.

    Such kernels (copies, concatenations) have an intensity of 0, and so no place on a logarithmic axis.
    """
    total = sum(k.latency for k in estimate.kernels)
    bare = [k for k in estimate.kernels if not k.cost.flops]
    return len(bare), sum(k.latency for k in bare) / total if total else 0.0


# -- kernels ----------------------------------------------------------------------------------------------


def placed(network: str, estimate: Estimate, *, by_kind: bool) -> list[Point]:
    """One point for each group of equal kernels, the largest first, so that small ones are drawn on top."""
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
    """The groups by falling time, "other" last."""
    time: dict[str, float] = {}
    for p in points:
        time[p.group] = time.get(p.group, 0.0) + p.time
    return sorted(time, key=lambda g: (g == "other", -time[g]))


def _legend(group: str, points: Sequence[Point], several: bool) -> str:
    """Text of the legend: a kind with its share of the time or, of several networks, a network with its time."""
    if several:
        return f"{group} ({quantity(sum(p.time for p in points), 'second')})"
    return f"{group} ({percent(sum(p.share for p in points), 0)} of time)"


def _points(group: str, points: Sequence[Point], color: str, *, several: bool) -> go.Scatter:
    return go.Scatter(
        x=[p.kernel.cost.intensity for p in points],
        y=[p.rate for p in points],
        mode="markers",
        name=_legend(group, points, several),
        marker={
            "color": color,
            "size": [7 + 46 * math.sqrt(p.share) for p in points],
            "opacity": 0.72,
            "line": {"width": 1, "color": "rgba(255,255,255,0.6)"},
        },
        text=[_hover(p) for p in points],
        hovertemplate="%{text}<extra></extra>",
    )


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
    """The ceilings that the model uses, compute first, each followed by data-sheet values of the same thread count."""
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


def _of_kinds(device: Device, points: Sequence[Point], where: tuple[str, int, str]) -> list[Line]:
    """The ceilings of kinds of kernel that bind one of the points; `where` is (runtime, threads, dtype)."""
    bound = {p.kernel.label for p in points if p.kernel.bound == "compute"}
    return [
        Line(f"{k.kind} {quantity(k.value, 'flop/s')}", k.value, compute=True, measured=k.is_measured)
        for k in device.kinds
        if (k.runtime, k.threads or device.cores, k.dtype) == where and k.kind in bound
    ]


def _paper(
    known: Sequence[ComputeCeiling] | Sequence[MemoryCeiling], used: float, threads: int, device: Device, name: str
) -> list[Line]:
    """The data-sheet values among `known`, ceilings of one kind, for this thread count; `used` is drawn already."""
    compute = isinstance(known[0], ComputeCeiling) if known else False
    same = [c for c in known if c.paper is not None and (c.threads or device.cores) == threads and c.paper != used]
    unit: Any = "flop/s" if compute else "byte/s"
    return [Line(f"{name} on paper {quantity(c.paper, unit)}", c.paper, compute, False) for c in same if c.paper]


def _roof(line: Line, left: float, right: float, lines: Sequence[Line]) -> go.Scatter:
    """A ceiling as a line. Memory's ends where it meets the peak, which is `lines[0]`; compute's starts where the line
    of the fastest memory reaches it.
    """
    if line.compute:
        fastest = max((other.value for other in lines if not other.compute), default=line.value)
        ends = max(left, line.value / fastest), right
    else:
        ends = left, min(right, max(left, lines[0].value / line.value))
    x = [ends[0] * (ends[1] / ends[0]) ** (i / _HOVERS) for i in range(_HOVERS + 1)]
    return go.Scatter(
        x=x,
        y=[line.value if line.compute else line.value * i for i in x],
        mode="lines",
        showlegend=False,
        line={"color": _ROOF, "width": 1.8, "dash": "solid" if line.measured else "dot"},
        text=[line.name] * len(x),
        hovertemplate="%{text}<extra></extra>",
    )


def _key(lines: Sequence[Line]) -> dict[str, Any]:
    """An annotation with the names of the ceilings, the highest first, in the top left corner, above all of them."""
    ordered = sorted(lines, key=lambda line: (not line.compute, -line.value))
    names = [line.name if line.measured else f"{line.name} (dotted)" for line in ordered]
    return {
        "name": "key",  # the page leaves it out where there is no room; its table says the same
        "text": "<br>".join(["<b>ceilings, from the top</b>", *names]),
        "align": "left",
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0.012,
        "y": 0.985,
        "xanchor": "left",
        "yanchor": "top",
    }
