"""The latency of an architecture as a sum over rows of a table.

A block takes longer in a network that moves more bytes, because less of what it reads is still in a cache. The *reach*
of a network is one of a few classes of its total traffic (`hwcost.model.features.reach_of`). The table of a model that
was fitted therefore has the traffic (byte) of each block and its time (s) in networks of each reach; the traffic of all
blocks of an architecture selects the column of times that is summed. Any other table has one time a block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcost.model.intervals import Errors, interval_of, parts_of_sums
from hwcost.table.lookup import Lookup, Term
from hwcost.table.schema import Place, TableBlock, TableEstimate, at_reach

Rows = NDArray[np.intp]
Columns = Mapping[str, NDArray[np.float64]]


class Sums:
    """Sums over the rows of a table.

    Args:
        columns: the numeric columns of the table, [rows] each.
        places: where the blocks stand.
        meta: the table's fixed time, interval and, where it has times by reach, the traffic at which each reach begins.
        sizes: the number of choices of each decision.
    """

    def __init__(
        self, columns: Columns, places: Sequence[Place], meta: Mapping[str, Any], sizes: Sequence[int]
    ) -> None:
        self.columns, self.places, self.meta, self.sizes = columns, places, meta, sizes
        edges = tuple(meta.get("reach_edges", ()))
        self.edges = edges if at_reach(len(edges)) in self.columns and "traffic" in self.columns else ()
        self.times = [at_reach(r) for r in range(len(self.edges) + 1)] if self.edges else ["latency_s"]

    def lookup(self) -> Lookup:
        """Latency (s) as a look-up in arrays over the choices; NaN where a block has no row."""
        names = ["traffic", *self.times] if self.edges else self.times
        values = np.stack([self.columns[name] for name in names])
        terms = [self._term(place, values) for place in self.places]
        return Lookup(terms, self.sizes, float(self.meta["fixed_s"]), self.edges)

    def _term(self, place: Place, values: NDArray[np.float64]) -> Term:
        """The `values` [columns, rows] of the blocks that stand at a place, as an array over its decisions' choices."""
        flat = np.full((len(values), len(place.rows)), np.nan)
        flat[:, place.rows == -1] = 0.0  # no block stands there
        flat[:, place.rows >= 0] = values[:, place.rows[place.rows >= 0]]
        order = np.argsort(place.decisions)
        array = flat.reshape([len(values), *(self.sizes[d] for d in place.decisions)]).transpose(0, *(order + 1))
        return Term(tuple(sorted(place.decisions)), array if self.edges else array[0])

    def estimate(self, stands: Mapping[str, int]) -> TableEstimate:
        """The estimate of one architecture.

        Args:
            stands: place -> the row of the block that stands there.
        """
        rows = np.array(list(stands.values()), dtype=np.intp)
        column = {name: values[rows] for name, values in self.columns.items()}
        times = column[self.times[bisect_right(self.edges, column["traffic"].sum()) if self.edges else 0]]
        kernels = float(times.sum())
        latency = kernels + float(self.meta["fixed_s"])
        low, high = self._interval(latency, rows, times)
        own = zip(times, column["low_s"] / column["latency_s"], column["high_s"] / column["latency_s"], strict=True)
        return TableEstimate(
            latency=latency, low=low, high=high, confidence=self.meta["confidence"],
            support=float((column["support"] * times).sum() / kernels),
            memory_share=float((column["memory_share"] * times).sum() / kernels),
            **{what: float(column[what].sum()) for what in ("macs", "flops", "bytes", "params")},
            peak_memory=_peak_memory(column),
            blocks={
                name: TableBlock(latency=float(t), low=float(t * low), high=float(t * high))
                for name, (t, low, high) in zip(stands, own, strict=True)
            },
        )  # fmt: skip

    def _interval(self, latency: float, rows: Rows, times: NDArray[np.float64]) -> tuple[float, float]:
        """(low, high) of the sum of these rows. A row that stands at several places has one error there; errors of
        different rows are independent of each other."""
        _, same = np.unique(rows, return_inverse=True)
        sigma, shared = self.columns["sigma"][rows], self.columns["shared"][rows]
        parts = parts_of_sums(np.zeros(len(rows), dtype=np.int64), same, times, sigma, shared, 1)
        errors = Errors(common=self.meta["common"], z=self.meta["z"])
        low, high = interval_of(np.array([latency]), errors, *parts)
        return float(low[0]), float(high[0])


def _peak_memory(column: Columns) -> float:
    """Peak memory (byte): all weights, and the activations of the block that holds the most of them.

    Blocks after the first run while the caller still holds the network's input.
    """
    held = column["peak_memory"] - column["weight_bytes"]
    later = held[1:].max() + column["input_bytes"][0] if len(held) > 1 else 0.0
    return float(column["weight_bytes"].sum() + max(held[0], later))
