"""Networks with weights and inputs, ready to run, at little cost.

Drawing random weights takes longer than measuring with them. So the random initialisers of torch are replaced while a
network is built, and weights are then filled from one pool of normal numbers. They are scaled so that activations stay
near 1, because arithmetic on denormal or infinite numbers takes another time.
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
    "uniform_",
    "normal_",
    "trunc_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "orthogonal_",
)
_POOL = 1 << 20  # numbers
_STEP = 7919  # numbers of the pool between where one parameter and the next begin


def materialise(
    build: Callable[[], tuple[Any, tuple[Any, ...]]],
    device: str = "cpu",
    check: Callable[[nn.Module, tuple[Any, ...]], None] | None = None,
) -> tuple[nn.Module, tuple[Any, ...]]:
    """Build a network and put it on a device, in eval mode and without gradients; tensors on meta get values.

    Args:
        build: returns the module and its inputs.
        device: where weights and inputs are put.
        check: called with module and inputs before weights are filled; may raise to refuse the network.
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
    """Replace torch's random initialisers inside, for all threads of the process."""
    with ExitStack() as stack:
        for name in _RANDOM_INITS:
            stack.enter_context(patch.object(nn.init, name, _cheap_init))
        yield


def _cheap_init(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Fill a tensor from the pool, with small numbers, because a builder may run the layers that it has made."""
    with torch.no_grad():
        return tensor if tensor.is_meta else tensor.copy_(_normal(tensor.shape, tensor.dtype)).mul_(0.05)


@lru_cache(maxsize=1)
def _pool() -> torch.Tensor:
    """The pool of normal numbers, the same in every process."""
    return torch.randn(_POOL, generator=torch.Generator().manual_seed(0))


def _normal(shape: torch.Size, dtype: torch.dtype, number: int = 0) -> torch.Tensor:
    """Normal numbers from the pool, beginning elsewhere for each `number`: some runtimes merge equal weights."""
    wanted, start = math.prod(shape), number * _STEP % _POOL
    pool = _pool().roll(-start) if wanted > _POOL - start else _pool()[start:]
    numbers = pool[:wanted] if wanted <= len(pool) else pool.repeat(-(-wanted // len(pool)))[:wanted]
    return numbers.reshape(shape).to(dtype)


def _fill(parameter: nn.Parameter, number: int) -> None:
    """Fill a parameter so that activations keep their scale.

    Matrices and filters get normal numbers that about preserve the variance of their input: 1.5 / fan_in lies between
    what does so without an activation function, 1 / fan_in, and with ReLU, 2 / fan_in. Vectors with numbers above 1 or
    not finite are taken for uninitialised memory and become 1; others keep their values, but tiny ones are raised.
    """
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
    """Fill the buffers of a module that was built on meta: floats with 1, but means and integers with 0."""
    for name, buffer in module.named_buffers():
        buffer.fill_(1.0 if buffer.is_floating_point() and "mean" not in name else 0)


def _input(x: Any) -> Any:
    """An input on meta with values: normal numbers, zeros for integers; other inputs are returned as they are."""
    if not isinstance(x, torch.Tensor) or not x.is_meta:
        return x
    if x.dtype.is_floating_point:
        return _normal(x.shape, x.dtype)
    return torch.zeros(x.shape, dtype=x.dtype)
