"""Networks ready to run, made cheaply.

Drawing random weights takes longer than measuring with them, so random initialisation is replaced
while a network is built: weights are filled from one pool of normal numbers, scaled to keep
activations near 1: numbers that vanish or overflow on the way would take another time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

_RANDOM_INITS = (
    "uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "orthogonal_",
)  # fmt: skip
_POOL = 1 << 20  # numbers
_STEP = 7919  # numbers between the weights of one layer and the next


def materialise(
    build: Callable[[], tuple[Any, tuple[Any, ...]]],
    device: str = "cpu",
    check: Callable[[nn.Module, tuple[Any, ...]], None] | None = None,
) -> tuple[nn.Module, tuple[Any, ...]]:
    """Build a network with weights and inputs on a device, in inference mode; meta tensors are filled.

    `check` is shown what was built before anything is filled, and may raise.
    """
    with _without_random_init():
        module, inputs = build()
    if check:
        check(module, inputs)
    was_meta = any(t.is_meta for t in (*module.parameters(), *module.buffers()))
    if was_meta:
        module = module.to_empty(device="cpu")
        _fill_buffers(module)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            if was_meta and parameter.dim() < 2:
                parameter.fill_(0.01 if name.endswith("bias") else 1.0)
            _fill(parameter, number)
    module.to(device).eval().requires_grad_(requires_grad=False)
    filled = (_input(x) for x in inputs)
    return module, tuple(x.to(device) if isinstance(x, torch.Tensor) else x for x in filled)


@contextmanager
def _without_random_init() -> Iterator[None]:
    with ExitStack() as stack:
        for name in _RANDOM_INITS:
            stack.enter_context(patch.object(nn.init, name, _cheap_init))
        yield


def _cheap_init(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Small numbers instead of random ones: a builder may run what it has built."""
    with torch.no_grad():
        return tensor if tensor.is_meta else tensor.copy_(_normal(tensor.shape, tensor.dtype)).mul_(0.05)


@lru_cache(maxsize=1)
def _pool() -> torch.Tensor:
    return torch.randn(_POOL, generator=torch.Generator().manual_seed(0))


def _normal(shape: torch.Size, dtype: torch.dtype, number: int = 0) -> torch.Tensor:
    """Normal numbers, others for each `number`: equal weights would be stored once by some runtimes."""
    wanted, start = math.prod(shape), number * _STEP % _POOL
    pool = _pool().roll(-start) if wanted > _POOL - start else _pool()[start:]
    numbers = pool[:wanted] if wanted <= len(pool) else pool.repeat(-(-wanted // len(pool)))[:wanted]
    return numbers.reshape(shape).to(dtype)


def _fill(parameter: nn.Parameter, number: int) -> None:
    """Matrices and filters keep the variance of their input; vectors that were left empty become 1."""
    if not parameter.is_floating_point():
        return
    if parameter.dim() >= 2:
        fan_in = math.prod(parameter.shape[1:])
        parameter.copy_(_normal(parameter.shape, parameter.dtype, number)).mul_(math.sqrt(1.5 / max(fan_in, 1)))
    elif not bool(torch.isfinite(parameter).all()) or bool((parameter.abs() > 1).any()):
        parameter.fill_(1.0)
    else:
        parameter.masked_fill_((parameter != 0) & (parameter.abs() < 1e-3), 1e-2)


def _fill_buffers(module: nn.Module) -> None:
    """Buffers of a module that came on meta: means 0, variances 1, whole numbers 0."""
    for name, buffer in module.named_buffers():
        buffer.fill_(1.0 if buffer.is_floating_point() and "mean" not in name else 0)


def _input(x: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not x.is_meta:
        return x
    if x.dtype.is_floating_point:
        return _normal(x.shape, x.dtype)
    return torch.zeros(x.shape, dtype=x.dtype)
