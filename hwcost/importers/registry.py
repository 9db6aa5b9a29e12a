"""Formats of measurements made elsewhere: a name finds the function that reads one.

One file reads one format and registers it:

    @importer("my-format", "a CSV file of kernels and milliseconds")
    def read(path: Path) -> Imported: ...

Files of this folder are found by themselves, other people's by an entry point of the group
"hwcost.importers" or by the environment variable HWCOST_EXTENSIONS (`hwcost.extensions`). The path of such a
file also stands for the one format that it registers.

A kernel is made from the shapes that the foreign file states; no torch module is needed. A kernel that was
measured by itself, in no network, becomes a network of one kernel (`hwcost.measure.types.lone`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwcost.extensions import from_file, load
from hwcost.measure.types import Measurements

_GROUP = "hwcost.importers"


class FormatError(ValueError):
    """A file that is not of its format, or a format that does not exist; the message is one line and says where."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file held."""

    measurements: tuple[Measurements, ...]  # one for each environment in which they were taken
    taken: float | None = None  # when (s since 1970), where the file says


Read = Callable[[Path], Imported]


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be imported."""

    name: str
    description: str  # what such a file is, to stand behind "NAME is" in the help of `hwcost import`
    read: Read

    @property
    def file(self) -> Path:
        """The Python file that registered it."""
        return Path(inspect.getfile(self.read)).resolve()


_formats: dict[str, Format] = {}


def importer(name: str, description: str) -> Callable[[Read], Read]:
    """Register a function that reads a file or folder as the format `name`.

    Raises:
        FormatError: another file has registered that name.
    """

    def register(read: Read) -> Read:
        new, taken = Format(name, description, read), _formats.get(name)
        if taken is not None and taken.file != new.file:
            raise FormatError(f"format {name!r} is registered by {taken.file} already; choose another name")
        _formats[name] = new
        return read

    return register


def formats() -> tuple[Format, ...]:
    """All formats that can be imported, by name."""
    load(_GROUP)
    return tuple(_formats[name] for name in sorted(_formats))


def get_format(name: str) -> Format:
    """The format of that name, or the one that the Python file of that path registers.

    Raises:
        FormatError: no such format, or a file that registers none or several.
        ExtensionError: a file that cannot be imported.
    """
    if name.endswith(".py"):
        return _of_file(name)
    known = {each.name: each for each in formats()}
    if name not in known:
        raise FormatError(f"a format must be one of {', '.join(known)}, but got {name!r}; or give path/file.py")
    return known[name]


def _of_file(name: str) -> Format:
    from_file(name)
    path = Path(name).resolve()
    own = [each for each in formats() if each.file == path]
    if len(own) != 1:
        has = ", ".join(each.name for each in own) or "none"
        raise FormatError(f"{name} must register one format with hwcost.importers.registry.importer, but has {has}")
    return own[0]


def read(name: str, path: Path) -> Imported:
    """Read a file or folder of the format `name`, as `get_format` takes it.

    Raises:
        FormatError: no such format or path, or contents that break the format's rules (file and line).
        ExtensionError: a format's Python file that cannot be imported.
        MeasurementError: the project's own files, damaged.
    """
    chosen = get_format(name)
    if not path.exists():
        raise FormatError(f"no file or folder {path} to import")
    try:
        found = chosen.read(path)
    except Exception as error:
        if type(error).__module__.startswith("hwcost."):
            raise
        raise FormatError(f"{path} cannot be read as {chosen.name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Imported):
        raise FormatError(f"format {chosen.name} must return an Imported, but returned {type(found).__name__}")
    return found
