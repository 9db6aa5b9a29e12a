"""What a training or a look-up is, as plain JSON, so that a study can tell it from another one.

A thing is its name and what it is configured with. The name is that of the function or class. The settings are, for an
object, its fields or what its own `__getstate__` gives; for a `functools.partial` its arguments; for a function its
defaults and the values around it that it uses. An attribute `identity` or `version` says it shorter: an object that
states one is compared by its name and that alone.

What a training changes itself while it runs, such as a counter or a list of results, is not a setting (`Watched`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import Any, ClassVar

Settings = dict[str, Any]  # "args[0].steps" -> a number, a short text, or a digest of what is longer
NAME = "name"  # the entry of the thing itself
_FIRST = re.compile(r"\[[^\]]*\]|[^.\[]*")  # the first name of a path: "[0]" or "train"
_STATED = ("identity", "version")
_LONGEST = 80  # characters of a text that is kept as it is
_DEEPEST = 6  # objects within objects; what lies deeper is compared by its class
_WATCHED = 3  # trainings of an objective that are looked at for what they change themselves
_MOST = 60  # entries that are kept one by one; of more, those with the same first name become one digest,
_FEW = 12  # where they are more than this


def settings_of(thing: Any) -> Settings:
    """The settings of a thing; two equal results mean the same thing."""
    found: Settings = {}
    _add(found, NAME, thing, set(), 0)
    if len(found) <= _MOST:
        return found
    groups: dict[str, Settings] = {}
    for path, value in found.items():
        groups.setdefault(_FIRST.match(path)[0], {})[path] = value  # type: ignore[index] # it matches any text
    kept: Settings = {}
    for first, group in groups.items():
        kept |= {first: digest(group)} if len(group) > _FEW else group
    return kept


def digest(value: Any) -> str:
    """12 hexadecimal digits of what JSON makes of a value, sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def name_of(thing: Any) -> str:
    """Module and name of a function or class, or of the class of an object.

    A script has the name of its file, also where another process imports it.
    """
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    module = str(getattr(named, "__module__", ""))
    if module in ("__main__", "__mp_main__"):
        file = getattr(sys.modules.get(module), "__file__", None)
        module = PurePath(file).stem if file else "__main__"
    return f"{module}.{named.__qualname__}"


# -- reading settings -----------------------------------------------------------------------------


def _add(found: Settings, path: str, value: Any, above: set[int], depth: int) -> None:
    """Add the entries of a value at `path`; `above` holds the ids of the objects that contain it."""
    plain = _plain(value)
    if plain is not None:
        found[path] = plain[0]
        return
    if depth > _DEEPEST or id(value) in above:
        found[path] = name_of(value)
        return
    above = above | {id(value)}
    name, parts = _parts(value)
    found[path] = name
    for key, part in parts.items():
        inner = key if path == NAME else f"{path}[{key[1:-1]}]" if key.startswith("[") else f"{path}.{key}"
        _add(found, inner, part, above, depth + 1)


def _plain(value: Any) -> tuple[Any] | None:
    """A value that has no parts, as JSON, in a tuple; None for all others."""
    if isinstance(value, Enum):
        return (f"{name_of(value)}.{value.name}",)
    if isinstance(value, float) and not math.isfinite(value):
        return (str(value),)
    if value is None or isinstance(value, (bool, int, float)):
        return (value,)
    if isinstance(value, (str, PurePath)):
        text = str(value)
        return (text if len(text) <= _LONGEST else digest(text),)
    if isinstance(value, (bytes, bytearray)):
        return (hashlib.sha256(value).hexdigest()[:12],)
    array = _array(value)
    return None if array is None else (array,)


def _array(value: Any) -> str | None:
    """Shape, dtype and a digest of an array, tensor or frame; None for anything else."""
    if hasattr(value, "to_csv") and hasattr(value, "dtypes"):  # a frame of pandas
        return digest(value.to_csv())
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor of torch
        if str(getattr(value, "device", "")) == "meta":
            return f"{tuple(value.shape)} {value.dtype} meta"
        import torch

        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(raw).hexdigest()[:12]}"
    if hasattr(value, "__array_interface__") and hasattr(value, "tobytes"):
        return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(value.tobytes()).hexdigest()[:12]}"
    if hasattr(value, "item") and hasattr(value, "dtype"):  # a scalar of NumPy
        return str(value.item())
    return None


def _parts(value: Any) -> tuple[Any, dict[str, Any]]:
    """What stands for a value that has parts, and the parts by name."""
    for name in _STATED:
        if not isinstance(value, type) and getattr(value, name, None) is not None:
            return name_of(value), {name: getattr(value, name)}
    if isinstance(value, functools.partial):
        arguments = {f"[{i}]": a for i, a in enumerate(value.args)} | dict(value.keywords)
        return "functools.partial", {"of": value.func} | arguments
    if isinstance(value, MethodType):
        return name_of(value.__func__), {"of": value.__self__}
    if isinstance(value, FunctionType):
        return name_of(value), _surroundings(value)
    if isinstance(value, (type, BuiltinFunctionType)) or not _has_parts(value):
        return name_of(value), {}
    if isinstance(value, Mapping):
        return type(value).__name__, {str(k): v for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, {f"[{i}]": v for i, v in enumerate(sorted(value, key=repr))}
    if isinstance(value, (list, tuple)):
        if all(_plain(v) is not None for v in value):
            plain = [(_plain(v) or (None,))[0] for v in value]
            return plain if len(json.dumps(plain)) <= _LONGEST else digest(plain), {}
        return type(value).__name__, {f"[{i}]": v for i, v in enumerate(value)}
    return name_of(value), _state(value)


def _has_parts(value: Any) -> bool:
    """Whether a value is a container, or an object of a class that Python itself does not bring: no lock, no file."""
    if isinstance(value, (Mapping, set, frozenset, list, tuple, SimpleNamespace)):
        return True
    return type(value).__module__.partition(".")[0] not in sys.stdlib_module_names


def _surroundings(function: FunctionType) -> dict[str, Any]:
    """Defaults of a function and the values of an enclosing function that it uses; of a lambda also its code."""
    parts: dict[str, Any] = {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    parts |= function.__kwdefaults__ or {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts[name] = _captured(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    if function.__name__ == "<lambda>":
        code = function.__code__
        constants = [c for c in code.co_consts if c is None or isinstance(c, (bool, int, float, str, tuple))]
        parts["code"] = digest([code.co_code.hex(), repr(constants), code.co_names])
    return parts


def _captured(value: Any) -> Any:
    """A value around a function, where it says how the function works; of any other object only the class.

    A function may use an object of which it is a part, such as a test's fixture or a study, and which changes.
    """
    frozen = is_dataclass(value) and getattr(value, "__dataclass_params__").frozen  # noqa: B009 - typeshed lacks it
    container = isinstance(value, (Mapping, list, tuple, set, frozenset))
    if frozen or container or callable(value) or _plain(value) is not None:
        return value
    return type(value)


def _state(value: Any) -> dict[str, Any]:
    """The fields of an object: what its own `__getstate__` gives, those of a dataclass, or its attributes."""
    own: Any = type(value).__getstate__
    if is_dataclass(value) and (own is object.__getstate__ or own.__module__ == "dataclasses"):
        return {f.name: getattr(value, f.name, None) for f in fields(value)}
    if own is not object.__getstate__:
        state = value.__getstate__()
        return {str(k): v for k, v in state.items()} if isinstance(state, Mapping) else {"state": state}
    slots = [s for c in type(value).__mro__ for s in _slots(c) if hasattr(value, s)]
    found = {s: getattr(value, s) for s in slots} | dict(getattr(value, "__dict__", {}))
    return {k: v for k, v in found.items() if not isinstance(getattr(type(value), k, None), functools.cached_property)}


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    named = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(s for s in named if s not in ("__dict__", "__weakref__"))


# -- what a training changes itself ---------------------------------------------------------------


class Watched:
    """The settings of a training, and which of them it has changed itself while it ran in this process.

    What was seen to change is shared by all trainings of one name.
    """

    _changed: ClassVar[dict[tuple[Any, Any], set[str]]] = {}

    def __init__(self, training: Callable[..., Any]) -> None:
        self.of = training
        self._watched = 0  # trainings that were watched

    def settings(self) -> Settings:
        """As of now."""
        return settings_of(self.of)

    def changes(self) -> set[str]:
        """Names of the settings that the training has changed itself; also all that begin with one of these change."""
        settings = self.settings()
        return self._changed.setdefault((settings.get(NAME), settings.get("of")), set())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Note what changes meanwhile, during the first few trainings: reading the settings takes milliseconds."""
        if self._watched >= _WATCHED:
            yield
            return
        self._watched += 1
        before = self.settings()
        try:
            yield
        finally:
            changed = _changed(before, self.settings())
            if changed:
                self.changes().update(changed)


def _changed(before: Settings, after: Settings) -> set[str]:
    """Names of the settings that differ; of an entry that came or went, the name of what holds it."""
    both = before.keys() & after.keys()
    changed = {name for name in both if before[name] != after[name]}
    for name in before.keys() ^ after.keys():
        holders = [other for other in both if name.startswith((f"{other}.", f"{other}["))]
        changed.add(max(holders, key=len, default=name))
    return changed


def without(settings: Settings, changing: Collection[str]) -> Settings:
    """The settings that do not change by themselves."""
    begins = tuple(f"{name}{mark}" for name in changing for mark in ".[")
    return {k: v for k, v in settings.items() if k not in changing and not k.startswith(begins)}
