"""Tensors made of other tensors: quantised weights with their scales, nested tensors with their offsets.

Their classes tell torch which tensors they hold (`__tensor_flatten__`), and what an op on them means in ops on those
(`__torch_dispatch__`). A trace follows the latter, so what counts is what is held and really done: packed weights at
their packed size, no padding of nested tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass_type

_known: dict[type, bool] = {}


def is_wrapper(kind: type) -> bool:
    """Whether tensors of this class are made of others."""
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = is_traceable_wrapper_subclass_type(kind)
    return found


def held_by(tensor: Any) -> Iterator[torch.Tensor]:
    """The tensors that a tensor is made of, and those that these are made of; a plain tensor itself."""
    if not is_wrapper(type(tensor)):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from held_by(getattr(tensor, name))


def remade(tensor: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A tensor of the same class, made of `change` of the tensors that this one is made of."""
    names, context = tensor.__tensor_flatten__()
    inner = {name: change(getattr(tensor, name)) for name in names}
    return type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())
