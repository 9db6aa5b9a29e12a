"""What a forward left outside its modules and arguments: tensors without data that something still refers to.

A forward may keep an activation in a global variable, a cache or an object that the trace could not copy. Nobody can
take it back from there, so that it is told by name.
"""

from __future__ import annotations

import gc
import sys
import types
import warnings
from collections.abc import Iterable
from typing import Any

from hwcost.tracing.shadow import ALIVE, Shadow

_STEPS = 8  # from a tensor to what holds it
_NAMED = 5  # places that a warning names


class LeftoverWarning(UserWarning):
    """A forward kept a tensor without data where a trace cannot take it back; the message says where."""


def tell(lives: Iterable[list[int]]) -> None:
    """Warn of tensors of a trace that are still held, from the lives of its memories."""
    if not _alive(lives):
        return
    gc.collect(1)  # most are garbage, such as what functions that refer to themselves have seen
    if not _alive(lives):
        return
    gc.collect()
    ids = {id(life) for life in _alive(lives)}
    if not ids:
        return
    held = [thing for thing in gc.get_objects() if type(thing) is Shadow and id(thing.memory.life) in ids]
    skip = {id(held)}
    names: dict[str, None] = {}
    for tensor in held:
        name = _place(tensor, skip)
        if name:  # else it is garbage that is not collected yet, or the frame of an error that somebody keeps
            names[name] = None
    if not names:
        return
    shown = list(names)[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    warnings.warn(
        f"the forward kept tensors without data in {', '.join(shown)}{more}, which a trace cannot take back; "
        "clear it, or have the forward keep them in the module or in an argument",
        LeftoverWarning,
        stacklevel=6,
    )


def _alive(lives: Iterable[list[int]]) -> list[list[int]]:
    return [life for life in lives if life[2] == ALIVE]


def _place(thing: Any, skip: set[int]) -> str:
    """The global variable, cached function or class that holds a thing, also through others; "" where none does."""
    path = ""
    scopes = {id(m.__dict__): m.__name__ for m in list(sys.modules.values()) if isinstance(m, types.ModuleType)}
    for _ in range(_STEPS):
        skip.add(id(thing))
        referrers = [r for r in gc.get_referrers(thing) if id(r) not in skip and not isinstance(r, types.FrameType)]
        skip.add(id(referrers))
        holder = next((r for r in referrers if id(r) in scopes), None)
        if holder is not None:
            return f"{path}{scopes[id(holder)]}.{_key(holder, thing)}"
        holder = referrers[0] if referrers else None
        if holder is None:
            break
        if hasattr(holder, "cache_info"):
            return f"{path}the cache of {holder.__module__}.{holder.__qualname__}"
        if isinstance(holder, dict):
            owner = next((o for o in gc.get_referrers(holder) if _has(o, holder)), None)
            if isinstance(owner, type):
                return f"attribute {_key(holder, thing)!r} of class {owner.__module__}.{owner.__qualname__}"
            if owner is not None:
                path = path or f"attribute {_key(holder, thing)!r} of a {type(owner).__name__} in "
                holder = owner
        thing = holder
    return ""


def _key(holder: dict[Any, Any], thing: Any) -> str:
    return next((str(key) for key, value in list(holder.items()) if value is thing), "?")


def _has(owner: Any, attributes: dict[Any, Any]) -> bool:
    """Whether a dictionary is that of the attributes of an object or a class."""
    return isinstance(owner, type) or getattr(owner, "__dict__", None) is attributes
