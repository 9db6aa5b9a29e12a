"""Random choices of which designed networks are made: sizes, activation functions, and pieces that fit any input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from hwcost.spaces.designed.modules import Arithmetic, Reordered, Shape

Rng = np.random.Generator
Maker = Callable[[Rng, Shape], nn.Module]


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number between `low` and `high` whose logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def channels(rng: Rng, low: int = 8, high: int = 512) -> int:
    """A number of channels, log-uniform; a multiple of 8 with probability 0.7."""
    size = log_uniform(rng, low, high)
    return max(8, 8 * round(size / 8)) if rng.random() < 0.7 else max(3, round(size))


def pick(rng: Rng, *choices: Any) -> Any:
    """One of the choices, each position equally likely; a choice that is listed twice is twice as likely."""
    return choices[int(rng.integers(len(choices)))]


def width(rng: Rng) -> int:
    """The width of a token: a number of attention heads times the width of a head."""
    return int(pick(rng, 1, 2, 3, 4, 6, 8, 12)) * int(pick(rng, 16, 24, 32, 48, 64))


_FUNCTIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.ReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.Sigmoid, nn.Tanh,
    nn.Hardsigmoid, nn.ELU, nn.Softplus, nn.Mish,
)  # fmt: skip


def function(rng: Rng, gelu: float = 0.0) -> nn.Module:
    """A random activation function; with probability `gelu` it is GELU, otherwise one of `_FUNCTIONS`."""
    if rng.random() < gelu:
        return nn.GELU()
    return _FUNCTIONS[int(rng.integers(len(_FUNCTIONS)))]()


def after_others(rng: Rng) -> nn.Module:
    """An activation function for an input that no other op reads: it works in place half of the time, where it can."""
    act = function(rng)
    if hasattr(act, "inplace"):
        setattr(act, "inplace", bool(rng.random() < 0.5))  # noqa: B010 - modules let any attribute be set
    return act


def activation(rng: Rng, shape: Shape) -> nn.Module:
    """A piece of a chain: an activation function."""
    return function(rng)


def arithmetic(rng: Rng, shape: Shape) -> nn.Module:
    """A piece of a chain: an elementwise operation."""
    return Arithmetic(str(pick(rng, "add", "mul", "sub", "scale", "channel")), shape)


def reordered(rng: Rng, shape: Shape) -> nn.Module:
    """A piece of a chain: a copy of a map, or of tokens with heads, into a random order of dimensions."""
    dim = 1 if len(shape) == 4 else 2
    groups = [g for g in (2, 3, 4, 6, 8, 12) if shape[dim] % g == 0] or [1]
    order = rng.permutation(np.arange(1, len(shape) + 1))
    return Reordered(int(rng.choice(groups)), (0, *(int(i) for i in order)), dim)
