"""What an op, a kernel, a block or a network costs: its work and its traffic. Costs add.

Conventions of the whole package:

- a *mac* is one multiply-add and counts as two flop: flops = 2 * macs + other_flops;     (1)
- macs are those of convolution, matrix multiplication and attention, without bias, so that they
  compare with published tables; bias, normalisation, activation, pooling are in other_flops;
- bytes are *compulsory traffic*: every distinct tensor moves once, at the size of its own dtype. That
  is the least that an op can read and write.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import index


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Work and traffic. Costs add: ``a + b``, ``sum(costs)``."""

    macs: int = 0  # multiply-adds of convolution, matmul and attention
    other_flops: int = 0  # every other arithmetic operation
    bytes_weights: int = 0  # parameters and buffers read
    bytes_activations: int = 0  # activations read
    bytes_written: int = 0  # activations written

    def __post_init__(self) -> None:
        if min(self.macs, self.other_flops, self.bytes_weights, self.bytes_activations, self.bytes_written) < 0:
            raise ValueError(f"a cost is never negative, but got {self}")

    @property
    def flops(self) -> int:
        """Floating-point operations (flop), eq. (1)."""
        return 2 * self.macs + self.other_flops

    @property
    def bytes_read(self) -> int:
        """Weights and activations read (byte)."""
        return self.bytes_weights + self.bytes_activations

    @property
    def bytes(self) -> int:
        """Compulsory traffic (byte), read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity (flop/byte); infinite for work without traffic, 0 for nothing."""
        if self.bytes:
            return self.flops / self.bytes
        return math.inf if self.flops else 0.0

    def __add__(self, other: Cost) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)})

    def __radd__(self, other: object) -> Cost:
        """So that the built-in ``sum``, which starts at 0, works."""
        if other == 0:
            return self
        return NotImplemented

    def __mul__(self, times: int) -> Cost:
        whole = index(times)  # refuses a fraction, since counts are whole numbers
        return Cost(**{f.name: getattr(self, f.name) * whole for f in fields(Cost)})

    __rmul__ = __mul__


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of many costs; ten times as fast as `sum`, which makes a Cost for each addition."""
    macs = other = weights = activations = written = 0
    for cost in costs:
        macs += cost.macs
        other += cost.other_flops
        weights += cost.bytes_weights
        activations += cost.bytes_activations
        written += cost.bytes_written
    return Cost(
        macs=macs, other_flops=other, bytes_weights=weights, bytes_activations=activations, bytes_written=written
    )
