"""Foreign measurements -> the measurement schema. One file a format; a name finds it.

Each file has `read(path) -> Imported`. A kernel is made from the shapes that the file states; no torch
module is needed. A kernel that was measured by itself, in no network, becomes a network of one kernel
with no calls (`hwcost.measure.types.lone`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from hwcost.measure.types import Measurements

__all__ = ["FormatError", "Imported", "format_names", "read"]

_FILES = {
    "hwcost": "hwcost.importers.own",
    "kernels": "hwcost.importers.kernel_lines",
    "neusight": "hwcost.importers.neusight",
}


class FormatError(ValueError):
    """A file that is not of its format; the message is one line and says where."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file held: measurements by environment."""

    measurements: tuple[Measurements, ...]
    taken: float | None = None  # when (s since 1970), where the file says


def format_names() -> tuple[str, ...]:
    """Names of the formats that can be imported."""
    return tuple(_FILES)


def read(name: str, path: Path) -> Imported:
    """Read a file or folder of the format `name`.

    Raises:
        FormatError: no such format or path, or a row that breaks the format's rules (file and line).
        MeasurementError: the project's own files, damaged.
    """
    if name not in _FILES:
        raise FormatError(f"a format must be one of {', '.join(_FILES)}, but got {name!r}")
    if not path.exists():
        raise FormatError(f"no file or folder {path} to import")
    found: Imported = import_module(_FILES[name]).read(path)
    return found


def whole_number(row: Mapping[str, str | None], column: str, where: str, least: int = 1) -> int:
    """A cell as a number from `least` on; `where` is "file:line"."""
    text = row.get(column)
    try:
        number = int(str(text))
    except ValueError:
        number = least - 1
    if number < least:
        raise FormatError(f"{where}: {column} must be a whole number from {least} on, but got {text!r}")
    return number


def seconds(value: object, what: str, where: str) -> float:
    """A time (s) that is finite and above 0."""
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise FormatError(f"{where}: {what} must be a number above 0, but got {value!r}")
    return number


def numbered(path: Path, lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """("file:line", text) of the lines that are not empty."""
    return ((f"{path}:{number}", text) for number, text in enumerate(lines, start=1) if text.strip())
