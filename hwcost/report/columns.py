"""Numbers as text. A column has one unit, stated in its head, and one number of decimals, so that rows compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from hwcost import units


def column(
    title: str, values: Sequence[float | None], dimension: units.Dimension, like: Sequence[float | None] = ()
) -> tuple[str, list[str]]:
    """The head "title (unit)" and the aligned numbers of a column of SI values; None and NaN become "-".

    The unit and the decimals are those that suit the median of `values`, or of `like`, the values of another column
    that this one is compared with. A value above 0 that would be rounded to 0 is printed as "<0.01".
    """
    known = [v for v in (like or values) if v is not None and math.isfinite(v) and v > 0]
    symbol = units.format(median(known) if known else 0.0, dimension).split()[1]
    size = units.parse(f"1 {symbol}", dimension)
    middle = median(known) / size if known else 1.0
    decimals = min(max(2 - math.floor(math.log10(middle)), 0), 2)
    return f"{title} ({symbol})", [_cell(v, size, decimals) for v in values]


def _cell(value: float | None, size: float, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    least = 10.0**-decimals
    if 0 < value / size < least / 2:
        return f"<{least:.{decimals}f}"
    return f"{value / size:.{decimals}f}"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as a percentage: 0.049 as "4.9 %", NaN as "-"."""
    return "-" if fraction != fraction else f"{100 * fraction:.{digits}f} %"


def interval(value: float, low: float, high: float) -> str:
    """A time and its interval, all in seconds, as "5.1 ms (4.6 ms to 5.7 ms)"."""
    low_text, high_text = units.format(low, "second"), units.format(high, "second")
    return f"{units.format(value, 'second')} ({low_text} to {high_text})"
