"""Axes for plotly layouts, linear and logarithmic, with ticks at round numbers that are labelled with their unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hwcost.units import Dimension, parse
from hwcost.units import format as quantity


def log_axis(values: Iterable[float], dimension: Dimension, title: str, *, margin: float = 1.25) -> dict[str, Any]:
    """A logarithmic axis that spans `values` (SI units, above 0) with a factor of `margin` to spare at each end."""
    known = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
    low, high = min(known) / margin, max(known) * margin
    axis = _labelled([t for t in _ticks(low, high) if low <= t <= high], dimension, title)
    return axis | {"type": "log", "range": [math.log10(low), math.log10(high)]}


def linear_axis(high: float, dimension: Dimension, title: str) -> dict[str, Any]:
    """A linear axis from 0 to `high` (SI unit, above 0)."""
    step = 10.0 ** math.floor(math.log10(high))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1.0) if high / (step * part) <= 12)
    ticks = [float(f"{i * step:.6g}") for i in range(int(high / step) + 1)]
    symbol = quantity(ticks[-1], dimension).split()[1]
    size = parse(f"1 {symbol}", dimension)
    return {
        "tickvals": ticks,
        "ticktext": [f"{t / size:.4g}" for t in ticks],
        "title": {"text": f"{title} ({symbol})"},
        "type": "linear",
        "range": [0, high],
        "automargin": True,
    }


def _labelled(ticks: Sequence[float], dimension: Dimension, title: str) -> dict[str, Any]:
    """An axis with these ticks; the unit stands in the title where all ticks share it, else behind each number."""
    texts = [quantity(t, dimension) for t in ticks]
    symbols = {text.split()[1] for text, t in zip(texts, ticks, strict=True) if t}
    if len(symbols) == 1:
        texts, title = [text.split()[0] for text in texts], f"{title} ({symbols.pop()})"
    return {"tickvals": list(ticks), "ticktext": texts, "title": {"text": title}, "automargin": True}


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover the range: fine steps for less than a decade, powers of ten for many decades."""
    decades = math.log10(high / low)
    steps = next(
        steps
        for limit, steps in (
            (0.9, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)),
            (1.4, (1.0, 2.0, 3.0, 5.0)),
            (2.2, (1.0, 2.0, 5.0)),
            (3.3, (1.0, 3.0)),
            (math.inf, (1.0,)),
        )
        if decades < limit
    )
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step}e{e}") for e in exponents for step in steps]
    return ticks if decades < 7 else ticks[::2]
