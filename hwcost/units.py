"""Quantities with a unit, as people write them, and SI numbers, as everything else uses them.

    parse("74 GB/s", "byte/s") == 74e9          format(74e9, "byte/s") == "74 GB/s"

This is the only module that knows prefixes. Decimal prefixes are powers of ten (SI brochure,
9th ed.), binary ones powers of 1024 (IEC 80000-13). A byte is written "B", never "b"; "k" is a
thousand, and "K" is refused because some mean 1000 by it and others 1024. The arithmetic is
decimal, so that "2.3 us" is the very float 2.3e-6 and what `exact` writes is read back unchanged.
"""

from __future__ import annotations

import math
import re
from decimal import Context, Decimal
from typing import Literal, get_args

Dimension = Literal["second", "byte", "flop", "byte/s", "flop/s", "hertz", "flop/byte", "mac", "joule"]

_SYMBOLS: dict[Dimension, str] = {
    "second": "s",
    "byte": "B",
    "flop": "FLOP",
    "byte/s": "B/s",
    "flop/s": "FLOP/s",
    "hertz": "Hz",
    "flop/byte": "FLOP/B",
    "mac": "MAC",
    "joule": "J",
}
_EXAMPLES: dict[Dimension, str] = {
    "second": "5 ms",
    "byte": "32 MiB",
    "flop": "3.6 GFLOP",
    "byte/s": "74 GB/s",
    "flop/s": "2.9 TFLOP/s",
    "hertz": "2.9 GHz",
    "flop/byte": "38.6 FLOP/B",
    "mac": "1.8 GMAC",
    "joule": "160 pJ",
}
_DECIMAL = {prefix: Decimal(1000) ** i for i, prefix in enumerate(["", "k", "M", "G", "T", "P", "E"])}
_BINARY = {prefix: Decimal(1024) ** (i + 1) for i, prefix in enumerate(["Ki", "Mi", "Gi", "Ti"])}
_SMALL = {prefix: Decimal(1000) ** -i for i, prefix in enumerate(["", "m", "µ", "n", "p"])}
# "u" stands for micro too, and so does the Greek letter mu, another character than the micro sign of `_SMALL`.
_OTHER_TIMES = {"us": Decimal("1e-6"), "μs": Decimal("1e-6"), "min": Decimal(60), "h": Decimal(3600)}
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*\Z")
_ARITHMETIC = Context(prec=40, traps=[])  # too large a number becomes infinite, which is refused
_WITHOUT_EXPONENT = range(-6, 16)  # powers of ten that are printed digit by digit


class UnitError(ValueError):
    """A quantity that cannot be read: what was given, and how to write it."""


def parse(text: str | float, dimension: Dimension) -> float:
    """Read a quantity such as "5 ms" or "2.9 TFLOP/s" as an SI number; a number is SI already.

    Raises:
        UnitError: the text has no number, no unit, or a unit of another dimension.
    """
    example = _EXAMPLES[dimension]
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _finite(float(text), text)
    match = _QUANTITY.match(text) if isinstance(text, str) else None
    if match is None:
        raise UnitError(f'a quantity in {dimension} needs a number and a unit, as in "{example}", but got {text!r}')
    number, unit = match.groups()
    if not unit:
        meant = f"{number} {example.split()[1]}"
        raise UnitError(f'a quantity in {dimension} needs a unit, but got {text!r}; did you mean "{meant}"?')
    scale = _scales(dimension).get(unit)
    if scale is None:
        raise UnitError(f"{unit!r} is no unit of {dimension}, in {text!r}; {_advice(number, unit, dimension)}")
    return _finite(float(_ARITHMETIC.multiply(_ARITHMETIC.create_decimal(number), scale)), text)


def _scales(dimension: Dimension) -> dict[str, Decimal]:
    """Every accepted spelling of a unit, with its size in SI."""
    symbol = _SYMBOLS[dimension]
    if dimension == "second":
        return {prefix + "s": size for prefix, size in _SMALL.items()} | _OTHER_TIMES
    if dimension == "joule":
        more = {"u": _SMALL["µ"], "μ": _SMALL["µ"], "k": Decimal(1000)}
        return {prefix + symbol: size for prefix, size in (_SMALL | more).items()}
    prefixes = _DECIMAL | _BINARY if symbol.startswith("B") else _DECIMAL
    spellings = {symbol, symbol.replace("FLOP", "flop")}
    return {prefix + spelling: size for spelling in spellings for prefix, size in prefixes.items()}


def _advice(number: str, unit: str, dimension: Dimension) -> str:
    """The unit that differs in letter case alone, or "FLOPS" for a rate; else an example."""
    wanted = unit.lower().replace("flops", "flop/s")
    near = [spelling for spelling in _scales(dimension) if spelling.lower() == wanted]
    if near:
        return f'did you mean "{number} {min(near)}"?'
    return f'write it as in "{_EXAMPLES[dimension]}"'


def _finite(value: float, text: object) -> float:
    if not math.isfinite(value):
        raise UnitError(f"a quantity must be a finite number, but got {text}")
    return value


def format(value: float, dimension: Dimension, digits: int = 3) -> str:  # noqa: A001 - units.format reads well
    """Print an SI number to `digits` significant digits, one to three of them before the point if a prefix allows.

    Raises:
        UnitError: no such dimension.
    """
    return _text(value, dimension, digits)


def exact(value: float, dimension: Dimension) -> str:
    """Print an SI number with as many digits as it takes for `parse` to return the same float."""
    return _text(value, dimension, None)


def _text(value: float, dimension: Dimension, digits: int | None) -> str:
    if dimension not in get_args(Dimension):
        raise UnitError(f"dimension must be one of {', '.join(get_args(Dimension))}, but got {dimension!r}")
    symbol = _SYMBOLS[dimension]
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {symbol}"
    number = Decimal(repr(float(value)))  # the shortest digits that mean this float
    if digits is not None:
        number = Context(prec=digits).plus(number)  # before the prefix: 999.9 k prints as 1 M, not 1000 k
    prefix, size = _prefix(abs(number), dimension)
    scaled = (number / size).normalize()
    text = f"{scaled:f}" if scaled.adjusted() in _WITHOUT_EXPONENT else f"{scaled:e}"
    return f"{text} {prefix}{symbol}"


def _prefix(number: Decimal, dimension: Dimension) -> tuple[str, Decimal]:
    """The largest prefix with which the number is at least 1, else the smallest prefix; and its size.

    An intensity (flop/byte) has none: it is a plain ratio.
    """
    if dimension == "flop/byte":
        return "", Decimal(1)
    steps = _SMALL if dimension in ("second", "joule") else _DECIMAL
    fits = [step for step in steps.items() if number >= step[1]]
    return max(fits or [min(steps.items(), key=_size)], key=_size)


def _size(step: tuple[str, Decimal]) -> Decimal:
    return step[1]
