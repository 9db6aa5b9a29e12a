"""What a latency table says of one architecture. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TableBlock:
    """A block of an architecture, from its row (s)."""

    latency: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEstimate:
    """Latency of one architecture from a table (s); serves wherever an `Estimate` does."""

    latency: float
    low: float
    high: float
    confidence: float
    support: float
    memory_share: float
    macs: float
    flops: float
    bytes: float
    params: float
    peak_memory: float  # byte: all weights, and the activations of the hungriest block
    blocks: Mapping[str, TableBlock]  # by place

    @property
    def bound(self) -> str:
        """What most of the time is bound by."""
        return "memory" if self.memory_share >= 0.5 else "compute"

    @property
    def intensity(self) -> float:
        """Arithmetic intensity (flop/byte) of all blocks together."""
        return self.flops / self.bytes if self.bytes else 0.0


def peak_memory(column: Mapping[str, NDArray[np.float64]]) -> float:
    """Peak memory (byte): all weights, and the activations of the hungriest block; blocks after the
    first run while the caller still holds the network's input."""
    held = column["peak_memory"] - column["weight_bytes"]
    later = held[1:].max() + column["input_bytes"][0] if len(held) > 1 else 0.0
    return float(column["weight_bytes"].sum() + max(held[0], later))
