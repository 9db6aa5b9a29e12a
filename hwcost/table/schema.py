"""What a latency table consists of: its columns, its places, and the answer it gives for one architecture.

Needs numpy alone, so that a table is read and asked without torch, pandas or any library of models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REQUIRED_COLUMNS = {
    "block", "latency_s", "low_s", "high_s", "sigma", "shared", "macs", "flops", "bytes", "params", "input_bytes",
    "weight_bytes", "peak_memory", "support", "memory_share",
}  # fmt: skip
_REACH_COLUMN = re.compile(r"reach_\d+_s")


class TableError(ValueError):
    """A latency table that cannot be made, read or asked."""


def at_reach(reach: int) -> str:
    """Name of the column of block times (s) in networks of that reach (`hwcost.model.features.reach_of`)."""
    return f"reach_{reach}_s"


def holds_times(column: str) -> bool:
    """Whether a column holds the time of a block (s): its mean over the space, or that in networks of one reach."""
    return column == "latency_s" or _REACH_COLUMN.fullmatch(column) is not None


@dataclass(frozen=True, slots=True)
class Place:
    """A site of the space: the decisions it depends on, and the row of each combination of their choices.

    A row of -1 means that no block stands here, and -2 - i that the block is `Head.missing[i]`, which the table has
    no row for.
    """

    name: str
    decisions: tuple[int, ...]  # positions in the space's order
    rows: NDArray[np.int32]  # flat over the choices, last decision fastest

    def row(self, choices: Sequence[int], sizes: Sequence[int]) -> int:
        """The row of the block that stands here in one architecture.

        Args:
            choices: the index of each decision's choice.
            sizes: the number of choices of each decision.
        """
        flat = 0
        for d in self.decisions:
            flat = flat * sizes[d] + choices[d]
        return int(self.rows[flat])


@dataclass(frozen=True, slots=True)
class Head:
    """All of a table but its rows."""

    places: tuple[Place, ...]
    meta: Mapping[str, Any]  # space, decisions, target, fixed time, interval, origin
    missing: tuple[str, ...] = ()  # keys of blocks without a row


@dataclass(frozen=True, slots=True, kw_only=True)
class TableBlock:
    """Latency of a block of one architecture, with its interval (s)."""

    latency: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEstimate:
    """Latency of one architecture from a table, with its interval (s); accepted wherever an `Estimate` is."""

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
    peak_memory: float  # byte: all weights, and the activations of the block that holds the most of them
    blocks: Mapping[str, TableBlock]  # by place

    @property
    def bound(self) -> str:
        """What most of the time is bound by: "memory" or "compute"."""
        return "memory" if self.memory_share >= 0.5 else "compute"

    @property
    def intensity(self) -> float:
        """Arithmetic intensity (flop/byte) of all blocks together."""
        return self.flops / self.bytes if self.bytes else 0.0
