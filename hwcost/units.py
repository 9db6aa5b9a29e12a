"""Quantities with a unit, as people write them, and SI numbers, as everything else uses them.

    parse("74 GB/s", "byte/s") == 74e9          format(74e9, "byte/s") == "74 GB/s"

This is the only module that knows prefixes. Decimal prefixes are powers of ten (SI brochure,
9th ed.), binary ones powers of 1024 (IEC 80000-13). A byte is written "B", never "b".
"""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

Dimension = Literal["second", "byte", "flop", "byte/s", "flop/s", "hertz", "flop/byte", "mac"]

_SYMBOLS: dict[Dimension, str] = {
    "second": "s",
    "byte": "B",
    "flop": "FLOP",
    "byte/s": "B/s",
    "flop/s": "FLOP/s",
    "hertz": "Hz",
    "flop/byte": "FLOP/B",
    "mac": "MAC",
}
_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SMALL = {"m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12}
_TIME_WORDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*\Z")


class UnitError(ValueError):
    """A quantity that cannot be read: what was given, and how to write it."""


def _scales(dimension: Dimension) -> dict[str, float]:
    """Every accepted spelling of a unit, with its size in SI."""
    symbol = _SYMBOLS[dimension]
    if dimension == "second":
        return _TIME_WORDS | {prefix + "s": size for prefix, size in _SMALL.items()}
    prefixes = _DECIMAL | (_BINARY if symbol.startswith("B") else {})
    spellings = {prefix + symbol: size for prefix, size in prefixes.items()}
    if "FLOP" in symbol:
        spellings |= {prefix + symbol.replace("FLOP", "flop"): size for prefix, size in prefixes.items()}
    return spellings


def parse(text: str | float, dimension: Dimension) -> float:
    """Read a quantity such as "5 ms" or "2.9 TFLOP/s" as an SI number; a number is SI already.

    Raises:
        UnitError: the text has no number, no unit, or a unit of another dimension.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _finite(float(text), str(text))
    example = {"second": "5 ms", "byte": "32 MiB", "byte/s": "74 GB/s", "flop/s": "2.9 TFLOP/s"}
    hint = example.get(dimension, f"3 G{_SYMBOLS[dimension]}")
    match = _QUANTITY.match(str(text))
    if match is None:
        raise UnitError(f'a {dimension} quantity needs a number and a unit, as in "{hint}", but got {text!r}')
    number, unit = match.groups()
    if not unit:
        raise UnitError(
            f'a {dimension} quantity needs a unit, but got {text!r}. Did you mean "{number} {hint.split()[1]}"?'
        )
    scale = _scales(dimension).get(unit)
    if scale is None:
        raise UnitError(f'{unit!r} is no unit of {dimension}, in {text!r}; write it as in "{hint}"')
    return _finite(float(number) * scale, str(text))


def _finite(value: float, text: str) -> float:
    if not math.isfinite(value):
        raise UnitError(f"a quantity must be a finite number, but got {text}")
    return value


def format(value: float, dimension: Dimension, digits: int = 3) -> str:  # noqa: A001 - units.format reads well
    """Print an SI number with the prefix that leaves one to three digits before the point."""
    if dimension not in get_args(Dimension):
        raise UnitError(f"unknown dimension {dimension!r}")
    symbol = _SYMBOLS[dimension]
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {symbol}"
    if dimension == "second":
        steps = [("n", 1e-9), ("µ", 1e-6), ("m", 1e-3), ("", 1.0)]
    elif dimension == "flop/byte":
        steps = [("", 1.0)]
    else:
        steps = [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15), ("E", 1e18)]
    rounded = float(f"{value:.{digits}g}")  # 999.9 k must print as 1 M, not 1000 k
    prefix, size = max((step for step in steps if abs(rounded) >= step[1]), key=lambda s: s[1], default=steps[0])
    return f"{_plain(value / size, digits)} {prefix}{symbol}"


def _plain(number: float, digits: int) -> str:
    """`digits` significant digits without an exponent or trailing zeros."""
    whole = len(str(int(abs(number))))
    text = f"{number:.{max(digits - whole, 0)}f}" if abs(number) >= 1 else f"{number:.{digits}g}"
    if "e" in text:
        text = f"{number:.12f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
