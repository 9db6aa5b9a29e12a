"""Networks named by where their code stands, and inputs written as text.

A target is "package.module:callable" or "path/file.py:callable". The callable returns an `nn.Module`, or is one. (In
most of the package the word means a device with runtime, threads and dtype.)

An input is its shape, "1x3x224x224", followed by a dtype where that is not float32, "1x128:int64".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hwcost.extensions import ExtensionError, from_file
from hwcost.graph import ITEMSIZE

if TYPE_CHECKING:
    import torch
    from torch import nn

_SHAPE = re.compile(r"(\d+(?:x\d+)*)(?::(\w+))?\Z")


class TargetError(ValueError):
    """A target that gives no network, or text that is no input; the message is one line."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Shape and dtype of one input; `str` writes it as `parse_input` reads it."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) + ("" if self.dtype == "float32" else f":{self.dtype}")

    def tensor(self, device: str = "meta") -> torch.Tensor:
        """An input: the same random numbers every time for floats, zeros (a valid index everywhere) for other dtypes.

        On the meta device it has no values.
        """
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        if device == "meta" or not dtype.is_floating_point:
            return torch.zeros(self.shape, dtype=dtype, device=device)
        seed = torch.Generator().manual_seed(0)
        return torch.rand(self.shape, generator=seed).to(dtype)


def parse_input(text: str) -> InputSpec:
    """Read one input.

    Raises:
        TargetError: the text is no shape, or the dtype is unknown.
    """
    match = _SHAPE.match(text.strip())
    shape = tuple(int(n) for n in match[1].split("x")) if match else ()
    if match is None or 0 in shape:
        raise TargetError(
            f"input must be sizes above 0 joined by x, as in 1x3x224x224 or 1x128:int64, but got {text!r}"
        )
    dtype = match[2] or "float32"
    if dtype not in ITEMSIZE:
        raise TargetError(f"input {text!r}: dtype must be one of {', '.join(ITEMSIZE)}, but got {dtype!r}")
    return InputSpec(shape, dtype)


def build_target(target: str, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """Import a target and call it with `kwargs`; returns the module in eval mode.

    What the target's code prints goes to standard error.

    Raises:
        TargetError: it cannot be imported, raises, or gives no nn.Module; one line says which and why.
    """
    from torch import nn

    with redirect_stdout(sys.stderr):
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
        raise TargetError(f"target {target}: calling it with ({call}) raised {first_line(error)}") from error


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
    """An importable module; modules of the working directory count, as they do for `python -m`."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(name)
    except Exception as error:
        raise TargetError(f"target module {name} cannot be imported: {first_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    """The module of a Python file, which may import the files beside it."""
    if not path.is_file():
        raise TargetError(f"target file {path} does not exist")
    try:
        with _importable(path.resolve().parent):
            return from_file(path)
    except ExtensionError as error:
        raise TargetError(f"target file {str(error).splitlines()[0]}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def first_line(error: BaseException) -> str:
    """Type and first line of the message of an exception that other people's code raised."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[:limit].rpartition(",")[0] + ", ..."
