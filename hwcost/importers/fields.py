"""Fields of foreign files as checked numbers. `where` is the place that an error names, as "file:line"."""

from __future__ import annotations

import math

from hwcost.importers.registry import FormatError


def whole_number(value: object, name: str, where: str, least: int = 1) -> int:
    """The value of the field `name`, a whole number that is at least `least`.

    Raises:
        FormatError: it is none.
    """
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise FormatError(f"{where}: {name} must be a whole number from {least} on, but got {value!r}")
    return number


def positive(value: object, name: str, where: str) -> float:
    """The value of the field `name`, such as a time: a finite number above 0, in the file's own unit.

    Raises:
        FormatError: it is none.
    """
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise FormatError(f"{where}: {name} must be a number above 0, but got {value!r}")
    return number
