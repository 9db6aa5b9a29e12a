"""What objects of Python refer to: the variables of functions, the attributes of classes, the content of containers."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

# Types of objects that never change.
SAME = frozenset((
    int, float, bool, str, bytes, complex, type(None), type(Ellipsis), slice, range, torch.dtype, torch.device,
    torch.Size, torch.layout, torch.memory_format, torch.Generator, type,
))  # fmt: skip


def plain(values: Iterable[Any]) -> bool:
    """Whether all are numbers, text and the like."""
    return set(map(type, values)) <= SAME


def slots(kind: type) -> Iterator[Any]:
    """The attributes of a class that lie in slots."""
    for each in kind.__mro__:
        if "__slots__" in each.__dict__:
            yield from (v for v in list(each.__dict__.values()) if isinstance(v, types.MemberDescriptorType))


def content(cell: Any) -> Any:
    """What a variable of a closure holds; None where it has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def holds_modules(value: Any) -> bool:
    """Whether a list, dictionary or object of a class of the user holds modules itself."""
    if isinstance(value, (list, tuple)):
        return any(isinstance(v, nn.Module) for v in value)
    held = value if isinstance(value, dict) else getattr(value, "__dict__", None)
    if isinstance(value, (type, types.ModuleType)) or not isinstance(held, dict):
        return False
    return any(isinstance(v, nn.Module) for v in list(held.values()))


@functools.lru_cache(maxsize=256)
def global_names(code: types.CodeType) -> tuple[str, ...]:
    """The global variables that a function reads, in order."""
    names = {i.argval: None for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names.update(dict.fromkeys(global_names(inner)))
    return tuple(names)


def refill_deque(made: Any, items: list[Any]) -> None:
    """Put `items` in place of the content of a deque."""
    made.clear()
    made.extend(items)
