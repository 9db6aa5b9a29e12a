"""A table's rows as sums: which row stands at which place, and the times that hold there.

A block takes longer in a network that reaches further (`hwcost.model.features.reach_of`). A table that a fitted model
made has every block's traffic and its time at every reach, so that the sum knows which of them hold; any other
table has one time a block.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwcost.table.file import Place
from hwcost.table.lookup import Lookup, Term
from hwcost.table.price import at_reach
from hwcost.table.values import TableBlock, TableEstimate, peak_memory

Rows = NDArray[np.intp]


class Sums:
    """Sums over rows of `frame`; `sizes` is the number of choices of each decision."""

    def __init__(
        self, frame: pd.DataFrame, places: Sequence[Place], meta: Mapping[str, Any], sizes: Sequence[int]
    ) -> None:
        self.places, self.meta, self.sizes = places, meta, sizes
        # arrays: a search asks for one architecture at a time, and pandas is slow there
        self.columns = {str(c): frame[c].to_numpy(dtype=float) for c in frame.select_dtypes("number")}
        edges = tuple(meta.get("reach_edges", ()))
        self.edges = edges if at_reach(len(edges)) in self.columns and "traffic" in self.columns else ()
        self.times = [at_reach(r) for r in range(len(self.edges) + 1)] if self.edges else ["latency_s"]

    def lookup(self) -> Lookup:
        """The sums as arrays over choices; NaN where a block has no row."""
        names = ["traffic", *self.times] if self.edges else self.times
        values = np.stack([self.columns[name] for name in names])
        terms = [self._term(place, values) for place in self.places]
        return Lookup(terms, self.sizes, float(self.meta["fixed_s"]), self.edges)

    def _term(self, place: Place, values: NDArray[np.float64]) -> Term:
        known = np.full((len(values), len(place.rows)), np.nan)
        known[:, place.rows == -1] = 0.0  # nothing stands there
        known[:, place.rows >= 0] = values[:, place.rows[place.rows >= 0]]
        order = np.argsort(place.decisions)
        array = known.reshape([len(values), *(self.sizes[d] for d in place.decisions)]).transpose(0, *(order + 1))
        return Term(tuple(sorted(place.decisions)), array if self.edges else array[0])

    def estimate(self, stands: Mapping[str, int]) -> TableEstimate:
        """Of an architecture whose blocks are these rows, by place."""
        rows = np.array(list(stands.values()), dtype=np.intp)
        column = {name: values[rows] for name, values in self.columns.items()}
        times = column[self.times[bisect_right(self.edges, column["traffic"].sum()) if self.edges else 0]]
        kernels = float(times.sum())
        spread = math.exp(self.meta["z"] * self._error(rows, times))
        latency = kernels + float(self.meta["fixed_s"])
        own = zip(times, column["low_s"] / column["latency_s"], column["high_s"] / column["latency_s"], strict=True)
        return TableEstimate(
            latency=latency, low=latency / spread, high=latency * spread, confidence=self.meta["confidence"],
            support=float((column["support"] * times).sum() / kernels),
            memory_share=float((column["memory_share"] * times).sum() / kernels),
            **{what: float(column[what].sum()) for what in ("macs", "flops", "bytes", "params")},
            peak_memory=peak_memory(column),
            blocks={
                name: TableBlock(latency=float(t), low=float(t * low), high=float(t * high))
                for name, (t, low, high) in zip(stands, own, strict=True)
            },
        )  # fmt: skip

    def _error(self, rows: Rows, times: NDArray[np.float64]) -> float:
        """Standard error of the log of the sum; a block that stands twice errs twice the same way."""
        _, same = np.unique(rows, return_inverse=True)
        own = np.bincount(same, times * self.columns["sigma"][rows])
        shared = float((times * self.columns["shared"][rows]).sum())
        total = float(times.sum())
        return math.hypot(self.meta["common"], math.sqrt(float((own**2).sum())) / total, shared / total)
