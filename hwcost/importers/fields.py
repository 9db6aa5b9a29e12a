"""Fields of foreign files as checked numbers, and kernels. `where` is the place that an error names, as "file:line"."""

from __future__ import annotations

import math

from hwcost.foreign import BAD_CONTENT, one_line
from hwcost.importers.registry import FormatError
from hwcost.kernel import Kernel, label

_MOST = 1e30  # work and traffic of a kernel: more than any computer does in a lifetime


def whole_number(value: object, name: str, where: str, least: int = 1) -> int:
    """The value of the field `name`, a whole number that is at least `least`.

    Raises:
        FormatError: it is none.
    """
    try:
        number = int(_digits(value))
    except ValueError:
        number = least - 1
    if not least <= number < 1 << 63:
        raise FormatError(f"{where}: {name} must be a whole number from {least} on, but got {value!r:.60}")
    return number


def positive(value: object, name: str, where: str) -> float:
    """The value of the field `name`, such as a time: a finite number above 0, in the file's own unit.

    Raises:
        FormatError: it is none.
    """
    try:
        number = float(_digits(value))
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise FormatError(f"{where}: {name} must be a number above 0, but got {value!r:.60}")
    return number


def _digits(value: object) -> str:
    """A value as text of digits; Python alone reads "1_000" as a number."""
    return str(value).replace("_", "?")


def counted(kernel: Kernel, where: str) -> Kernel:
    """The kernel, after making sure that its work and traffic follow from its description.

    Raises:
        FormatError: they do not, as where an operand is missing, or are too large.
    """
    try:
        cost = kernel.cost
        label(kernel)
        hash(kernel.dtype)
        if not all(0 <= amount < _MOST for amount in (cost.macs, cost.flops, cost.bytes)):
            raise ValueError(f"{cost.macs:.3g} macs and {cost.bytes:.3g} bytes")
    except BAD_CONTENT as error:
        raise FormatError(
            f"{where}: the work of kernel {one_line(kernel.name, 60)} cannot be counted from its shapes and parameters "
            f"({type(error).__name__}: {one_line(error, 120)})"
        ) from error
    return kernel
