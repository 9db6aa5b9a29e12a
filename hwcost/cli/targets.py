"""Networks and inputs as the command line names them.

TARGET    package.module:callable, or path/file.py:callable; with --kwargs '{"width": 64}'
--input   1x3x224x224, or 1x128:int64 with a dtype
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hwcost.cli.common import UsageError
from hwcost.graph import ITEMSIZE

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hwcost.measure.types import Item

_SHAPE = re.compile(r"(\d+(?:x\d+)*)(?::(\w+))?\Z")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Shape and dtype of one input."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) + ("" if self.dtype == "float32" else f":{self.dtype}")

    def tensor(self, device: str = "meta") -> torch.Tensor:
        """An input: random for floats, zeros (a valid index everywhere) for the other dtypes."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        if device == "meta" or not dtype.is_floating_point:
            return torch.zeros(self.shape, dtype=dtype, device=device)
        seed = torch.Generator().manual_seed(0)
        return torch.rand(self.shape, generator=seed).to(dtype)


def parse_inputs(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    """Read every `--input`.

    Raises:
        UsageError: none is given, or one is no shape.
    """
    if not texts:
        raise UsageError("a network needs --input with its shape, batch included, as in --input 1x3x224x224")
    return tuple(_parse_input(text) for text in texts)


def _parse_input(text: str) -> InputSpec:
    match = _SHAPE.match(text.strip())
    if match is None or 0 in (shape := tuple(int(n) for n in match[1].split("x"))):
        raise UsageError(
            f"--input must be sizes above 0 joined by x, as in 1x3x224x224 or 1x128:int64, but got {text!r}"
        )
    dtype = match[2] or "float32"
    if dtype not in ITEMSIZE:
        raise UsageError(f"--input {text!r}: dtype must be one of {', '.join(ITEMSIZE)}, but got {dtype!r}")
    return InputSpec(shape, dtype)


def parse_kwargs(text: str) -> dict[str, Any]:
    """Read `--kwargs`.

    Raises:
        UsageError: it is no JSON object.
    """
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UsageError(
            f"""--kwargs must be a JSON object, as in '{{"width": 64}}', but got {text!r} ({error})"""
        ) from None
    if not isinstance(value, dict):
        raise UsageError(f"""--kwargs must be a JSON object, as in '{{"width": 64}}', but got {text!r}""")
    return value


def build_target(target: str, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """Import TARGET and call it; the module is in eval mode. What its code prints goes to standard error.

    Raises:
        UsageError: it cannot be imported, raises, or gives no nn.Module; one line says which and why.
    """
    from torch import nn

    with redirect_stdout(sys.stderr):
        builder = _find(target)
        module = builder if isinstance(builder, nn.Module) else _call(builder, target, dict(kwargs or {}))
    if not isinstance(module, nn.Module):
        raise UsageError(f"target {target} must return an nn.Module, but returned {type(module).__name__}")
    return module.eval()


def _call(builder: Any, target: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return builder(**arguments)
    except Exception as error:
        call = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        raise UsageError(f"target {target}: calling it with ({call}) raised {_brief(error)}") from error


def target_item(target: str, inputs: Sequence[str], kwargs: str) -> Item:
    """TARGET as a network to be measured, after making sure that it can be built.

    Raises:
        UsageError: it cannot, or an option cannot be read.
    """
    from hwcost.measure.types import Item

    specs, arguments = parse_inputs(inputs), parse_kwargs(kwargs)
    build_target(target, arguments)
    given = f"({kwargs})" if arguments else ""
    return Item(
        name=f"{target}{given}@{','.join(map(str, specs))}",
        family=target,
        spec={"target": target, "kwargs": arguments, "input": [str(spec) for spec in specs]},
        build=lambda: (build_target(target, arguments), tuple(spec.tensor("cpu") for spec in specs)),
    )


def _find(target: str) -> Any:
    """The callable that TARGET names."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"target must be package.module:callable or path/file.py:callable, but got {target!r}")
    value: Any = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    for part in name.split("."):
        if not hasattr(value, part):
            near = ", ".join(n for n, v in vars(value).items() if callable(v) and not n.startswith("_"))
            raise UsageError(f"target {target}: {place} has no {name!r}; it has {_shortened(near) or 'no callable'}")
        value = getattr(value, part)
    if not callable(value):
        raise UsageError(f"target {target} must be callable, but is {type(value).__name__}")
    return value


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"target module {name} cannot be imported: {_brief(error)}") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"target file {path} does not exist")
    name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"target file {path} cannot be imported: {_brief(error)}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _brief(error: BaseException) -> str:
    """Type and first line of somebody else's exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[:limit].rpartition(",")[0] + ", ..."
