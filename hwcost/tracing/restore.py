"""What a forward may change besides its results, saved before a trace and put back after."""

from __future__ import annotations

import gc
import operator
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn


@contextmanager
def untouched(places: Mapping[str, nn.Module], *, training: bool) -> Iterator[None]:
    """Put the modules in the given mode, and after the block put everything back that a forward may change.

    That is what the modules hold, the states of the random generators, and settings of the whole process. No garbage
    is collected in the block: the recorder tells from an activation's destruction how long it was held, and a
    collection would cost more time than the trace.
    """
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    numpy_state = numpy_random.get_state() if numpy_random else None
    settings = [read() for read, _ in _SETTINGS]
    collecting = gc.isenabled()
    gc.disable()
    saved = _Saved(places)
    try:
        for module in places.values():
            module.__dict__["training"] = training
        yield
    finally:
        saved.put_back()
        torch.set_rng_state(torch_state)
        for (read, write), setting in zip(_SETTINGS, settings, strict=True):
            if read() != setting:
                write(setting)
        random.setstate(python_state)
        if numpy_random:
            numpy_random.set_state(numpy_state)
        if collecting:
            gc.enable()


# Settings of the whole process that a forward may change: how to read and how to write each.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_num_threads, torch.set_num_threads),
    (partial(getattr, torch.backends.cudnn, "benchmark"), partial(setattr, torch.backends.cudnn, "benchmark")),
    (partial(getattr, torch.backends.cudnn, "enabled"), partial(setattr, torch.backends.cudnn, "enabled")),
)


class _Saved:
    """The attributes of modules, and the content of those attributes that are containers."""

    def __init__(self, places: Mapping[str, nn.Module]) -> None:
        # Names and values as two lists, since copying the dictionary of an object is slow.
        self._attributes = [(d, list(d), list(d.values())) for d in (m.__dict__ for m in places.values())]
        self._full: list[tuple[Any, Any]] = []  # containers and copies of them
        self._empty: list[Any] = []  # apart, since most are empty: a module has a dozen for its hooks
        for _, _, values in self._attributes:
            for value in values:
                if isinstance(value, _CONTAINERS):
                    if value:
                        self._full.append((value, value.copy()))
                    else:
                        self._empty.append(value)

    def put_back(self) -> None:
        """Restore attributes and contents; what did not change is not written."""
        for attributes, names, values in self._attributes:
            if "training" in names:  # `untouched` set it; put back alone, since rewriting all attributes is slow
                attributes["training"] = values[names.index("training")]
            if list(attributes) != names or not all(map(operator.is_, attributes.values(), values)):
                attributes.clear()
                attributes.update(zip(names, values, strict=True))
        if any(self._empty):  # whether the forward put something into one of them
            for container in self._empty:
                container.clear()
        for container, content in self._full:
            if not _is_same(container, content):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)


_CONTAINERS = (dict, list, set)


def _is_same(now: Any, then: Any) -> bool:
    """Whether two containers hold the very same objects, in order (tensors must not be compared by ==)."""
    if len(now) != len(then):
        return False
    if isinstance(now, dict):
        return list(now) == list(then) and all(map(operator.is_, now.values(), then.values()))
    if isinstance(now, list):
        return all(map(operator.is_, now, then))
    return set(map(id, now)) == set(map(id, then))
