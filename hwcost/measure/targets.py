"""Networks named by where their code stands.

A target is "package.module:callable" or "path/file.py:callable". The callable returns an `nn.Module`, or is one. (In
most of the package the word means a device with runtime, threads and dtype.)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hwcost.extensions import ExtensionError, from_file
from hwcost.foreign import one_line
from hwcost.measure.inputs import InputSpec as InputSpec
from hwcost.measure.inputs import TargetError as TargetError
from hwcost.measure.inputs import parse_input as parse_input

if TYPE_CHECKING:
    from torch import nn


def build_target(target: str, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """Import a target and call it with `kwargs`; returns the module in eval mode.

    What the target's code prints goes to standard error. While it is imported and called, the files beside it can be
    imported too; of a module, those of the working directory, as for `python -m`.

    Raises:
        TargetError: it cannot be imported, raises, or gives no nn.Module; one line says which and why.
    """
    from torch import nn

    location = target.rpartition(":")[0]
    folder = Path(location).resolve().parent if location.endswith(".py") else Path.cwd()
    with redirect_stdout(sys.stderr), _importable(folder):
        builder = _find(target)
        module = builder if isinstance(builder, nn.Module) else _call(builder, target, dict(kwargs or {}))
    if not isinstance(module, nn.Module):
        raise TargetError(f"target {target} must return an nn.Module, but returned {type(module).__name__}")
    return module.eval()


def _call(builder: Any, target: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return builder(**arguments)
    except Exception as error:
        call = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        raise TargetError(f"target {target}: calling it with ({call:.200}) raised {first_line(error)}") from error


def _find(target: str) -> Any:
    """The callable that the target names."""
    location, colon, name = target.rpartition(":")
    if not colon or not location or not name:
        raise TargetError(f"target must be package.module:callable or path/file.py:callable, but got {target!r}")
    value: Any = _import_file(Path(location)) if location.endswith(".py") else _import_module(location)
    for part in name.split("."):
        if not hasattr(value, part):
            there = ", ".join(n for n, v in vars(value).items() if callable(v) and not n.startswith("_"))
            has = _shortened(there) or "no callable"
            raise TargetError(f"target {target}: {location} has no {name!r}; it has {has}")
        value = getattr(value, part)
    if not callable(value):
        raise TargetError(f"target {target} must be callable, but is {type(value).__name__}")
    return value


def _import_module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        raise TargetError(f"target module {name} cannot be imported: {first_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"target file {path} does not exist")
    try:
        return from_file(path)
    except ExtensionError as error:
        raise TargetError(f"target file {one_line(error)}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # where the target's code has taken it out
            sys.path.remove(str(folder))


def first_line(error: BaseException) -> str:
    """Type and first line of the message of an exception that other people's code raised."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[:limit].rpartition(",")[0] + ", ..."
