"""What a forward may change outside its modules and arguments, and what of it is put back.

Nothing here may disturb another thread. Draws that a trace makes for itself come from its own generator
(`hwcost.tracing.draws`). A forward may also call `torch.manual_seed` or Python's `random` itself, or change a setting
of the process. That is put back where no other thread of Python runs; where one does, nobody can tell its changes from
those of the forward, and putting back old states would repeat numbers that it drew.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def untouched() -> Iterator[None]:
    """After the block, put back random states and settings that it changed, if this thread is the only one."""
    alone = _is_alone()
    states = [read() for read, _, _ in _states()] if alone else []
    try:
        yield
    finally:
        if alone and _is_alone():
            for (read, write, same), state in zip(_states(), states, strict=False):
                if not same(read(), state):
                    write(state)


def _is_alone() -> bool:
    return len(sys._current_frames()) == 1


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b)


def _same_numpy(a: Any, b: Any) -> bool:
    return bool(a[0] == b[0] and (a[1] == b[1]).all() and a[2:] == b[2:])


_State = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any, Any], bool]]

# How to read, how to write, and how to compare each state.
_SETTINGS: tuple[_State, ...] = (
    (torch.get_rng_state, torch.set_rng_state, torch.equal),
    (random.getstate, random.setstate, _equal),
    (torch.get_default_dtype, torch.set_default_dtype, _equal),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, _equal),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, _equal),
    (torch.get_num_threads, torch.set_num_threads, _equal),
    (partial(getattr, torch.backends.cudnn, "benchmark"), partial(setattr, torch.backends.cudnn, "benchmark"), _equal),
    (partial(getattr, torch.backends.cudnn, "enabled"), partial(setattr, torch.backends.cudnn, "enabled"), _equal),
)


def _states() -> tuple[_State, ...]:
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    if numpy_random is None:
        return _SETTINGS
    return (*_SETTINGS, (numpy_random.get_state, numpy_random.set_state, _same_numpy))
