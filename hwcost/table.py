"""Latency tables: the blocks of a search space with their predicted time, made once, used offline.

A space says at which places blocks stand and which decisions each place depends on; so a network's
latency is a sum of table look-ups,

    t(choices) = fixed + sum_s  T_s[choices of the decisions of site s]        (1)

one array T_s a site. A row of the table is a distinct block; sites share rows. The file is Parquet:
rows are the blocks, the schema's metadata hold the space, the target and eq. (1)'s structure, so a
table is read without the space's code.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

import hwcost
from hwcost.estimate import relative_error
from hwcost.lookup import Lookup, Term
from hwcost.tablefile import TableError, read, write

if TYPE_CHECKING:
    from hwcost.graph import Graph
    from hwcost.model import CostModel

__all__ = ["LatencyTable", "TableError", "TableEstimate"]

Progress = Callable[[int, int], None]
_BATCH = 256  # blocks traced before their kernels are predicted together


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


@dataclass(frozen=True, slots=True)
class Place:
    """A site of the space: the decisions it depends on, and the row of each combination of choices."""

    name: str
    decisions: tuple[int, ...]  # positions in the space's order
    rows: NDArray[np.int32]  # flat over the choices, last decision fastest; -1: nothing stands there

    def row(self, choices: NDArray[np.integer], sizes: Sequence[int]) -> int:
        """The row of what stands here in one architecture; -1 for nothing."""
        flat = 0
        for d in self.decisions:
            flat = flat * sizes[d] + int(choices[d])
        return int(self.rows[flat])


class LatencyTable:
    """Blocks with latency, and how a network is composed of them."""

    def __init__(self, frame: pd.DataFrame, places: Sequence[Place], meta: Mapping[str, Any]) -> None:
        self.frame = frame
        self.places = tuple(places)
        self.meta = dict(meta)
        wrong = frame.index[~(frame["latency_s"] > 0)]
        if len(wrong):
            raise TableError(f"a latency must be above 0 s, but row {wrong[0]} has {frame['latency_s'][wrong[0]]}")

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    def build(cls, space: Any, model: CostModel, *, progress: Progress | None = None) -> LatencyTable:
        """Price every distinct block of a space.

        Args:
            space: a `hwcost.search.spaces.Space`, or anything with its `name`, `decisions`, `sites`.
            model: what prices the blocks.
            progress: called with (blocks done, blocks in all).
        """
        blocks: dict[str, Any] = {}
        places = [_place(space, site, blocks) for site in space.sites]
        rows: list[dict[str, Any]] = []
        todo = list(blocks.values())
        for start in range(0, len(todo), _BATCH):
            rows += _price(todo[start : start + _BATCH], model)
            if progress is not None:
                progress(len(rows), len(blocks))
        meta = {
            "space": space.name,
            "decisions": [{"name": d.name, "choices": list(d.choices)} for d in space.decisions],
            "target": _target(model),
            "fixed_s": model.overhead[2] if model.is_fitted else 0.0,
            **model.interval,
            "model": model.digest,
            "hwcost": hwcost.__version__,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        return cls(pd.DataFrame(rows), places, meta)

    # -- what it says -----------------------------------------------------------------------------

    @property
    def choices(self) -> tuple[int, ...]:
        """Number of choices of each decision, in order."""
        return tuple(len(d["choices"]) for d in self.meta["decisions"])

    def latency(self, choices: ArrayLike) -> NDArray[np.float64]:
        """Latency (s) of architectures given as choice indices, eq. (1).

        Args:
            choices: [n, n_decisions] integers; one architecture may be given as [n_decisions].

        Returns:
            [n] seconds.

        Raises:
            TableError: another number of decisions, or a choice that does not exist.
        """
        array = np.asarray(choices)
        try:
            if array.ndim == 1 and len(array) == len(self.choices) and (array >= 0).all():
                return np.array([self._lookup.one(array.tolist())])
            return self._lookup.many(self._shaped(array))
        except IndexError:
            self._refuse(self._shaped(array))
            raise

    def estimate(self, architecture: Mapping[str, Any] | Sequence[int], inputs: Any = None) -> TableEstimate:
        """Latency of one architecture, with interval; so that a table serves as a model.

        Args:
            architecture: decision name -> value (inactive ones left out), or choice indices.
            inputs: ignored; the space fixes them.
        """
        choices = self._indices(architecture) if isinstance(architecture, Mapping) else np.asarray(architecture)
        array = self._shaped(choices)
        self._refuse(array)
        stands = {p.name: row for p in self.places if (row := p.row(array[0], self.choices)) >= 0}
        rows = np.array(list(stands.values()), dtype=np.intp)
        column = {name: values[rows] for name, values in self._columns.items()}
        times = column["latency_s"]
        kernels = float(times.sum())
        spread = math.exp(self.meta["z"] * self._error(rows, kernels))
        latency = kernels + float(self.meta["fixed_s"])
        own = zip(stands, times, column["low_s"], column["high_s"], strict=True)
        return TableEstimate(
            latency=latency, low=latency / spread, high=latency * spread, confidence=self.meta["confidence"],
            support=float((column["support"] * times).sum() / kernels),
            memory_share=float((column["memory_share"] * times).sum() / kernels),
            **{what: float(column[what].sum()) for what in ("macs", "flops", "bytes", "params")},
            peak_memory=_peak(column),
            blocks={name: TableBlock(latency=float(t), low=float(lo), high=float(hi)) for name, t, lo, hi in own},
        )  # fmt: skip

    def _error(self, rows: NDArray[np.intp], total: float) -> float:
        """Standard error of the log of the sum; a block that stands twice errs twice the same way."""
        own = np.bincount(rows, weights=(self._columns["latency_s"] * self._columns["sigma"])[rows])
        return math.hypot(self.meta["common"], math.sqrt(float((own**2).sum())) / total)

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.float64]]:
        """The numbers of the rows as arrays: a search asks for one architecture at a time, and pandas is slow there."""
        return {str(c): self.frame[c].to_numpy(dtype=float) for c in self.frame.select_dtypes("number")}

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write Parquet, or CSV (the rows alone) where the name ends so.

        Raises:
            TableError: the file cannot be written.
        """
        write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table's Parquet file.

        Raises:
            TableError: no such file, not a table, truncated, or with rows that break a rule.
        """
        frame, places, meta = read(Path(path))
        return cls(frame, [Place(name, decisions, rows) for name, decisions, rows in places], meta)

    def __len__(self) -> int:
        return len(self.frame)

    # -- inside -----------------------------------------------------------------------------------

    @cached_property
    def _lookup(self) -> Lookup:
        times = np.append(self.frame["latency_s"].to_numpy(dtype=float), 0.0)  # row -1: nothing stands there
        terms = []
        for place in self.places:
            order = np.argsort(place.decisions)
            values = times[place.rows].reshape([self.choices[d] for d in place.decisions]).transpose(order)
            terms.append(Term(tuple(sorted(place.decisions)), values))
        return Lookup(terms, self.choices, float(self.meta["fixed_s"]))

    def _shaped(self, choices: ArrayLike) -> NDArray[np.integer]:
        array = np.atleast_2d(np.asarray(choices))
        if array.ndim != 2 or array.shape[1] != len(self.choices) or array.dtype.kind not in "iu":
            raise TableError(
                f"choices must be integers of the shape [n, {len(self.choices)}], "
                f"but got {array.dtype} of {np.shape(choices)}"
            )
        return array

    def _refuse(self, array: NDArray[np.integer]) -> None:
        """Raise for the first choice that does not exist, if there is one."""
        limits = np.array(self.choices)
        wrong = np.argwhere((array < 0) | (array >= limits))
        if len(wrong):
            row, decision = (int(i) for i in wrong[0])
            name = self.meta["decisions"][decision]["name"]
            raise TableError(
                f"the choice of {name!r} must lie in 0..{limits[decision] - 1}, "
                f"but row {row} has {array[row, decision]}"
            )

    def _indices(self, params: Mapping[str, Any]) -> NDArray[np.int64]:
        names = [d["name"] for d in self.meta["decisions"]]
        unknown = set(params) - set(names)
        if unknown:
            raise TableError(
                f"this table is of space {self.meta['space']}, which has no decision {sorted(unknown)[0]!r}"
            )
        index = []
        for d in self.meta["decisions"]:
            value = params.get(d["name"], d["choices"][0])
            if value not in d["choices"]:
                raise TableError(f"{d['name']!r} must be one of {d['choices']}, but got {value!r}")
            index.append(d["choices"].index(value))
        return np.array(index)


def _peak(column: Mapping[str, NDArray[np.float64]]) -> float:
    """Peak memory (byte): all weights, and the activations of the hungriest block; blocks after the
    first run while the caller still holds the network's input."""
    held = column["peak_memory"] - column["weight_bytes"]
    later = held[1:].max() + column["input_bytes"][0] if len(held) > 1 else 0.0
    return float(column["weight_bytes"].sum() + max(held[0], later))


def _place(space: Any, site: Any, blocks: dict[str, Any]) -> Place:
    """Every combination of a site's choices, and the row of the block that stands there."""
    names = [d.name for d in space.decisions]
    positions = tuple(names.index(name) for name in site.decisions)
    order = {key: row for row, key in enumerate(blocks)}
    rows = []
    for values in itertools.product(*(space.decisions[p].choices for p in positions)):
        block = site.block(dict(zip(site.decisions, values, strict=True)))
        if block is None:
            rows.append(-1)
            continue
        if block.key not in blocks:
            order[block.key] = len(blocks)
            blocks[block.key] = block
        rows.append(order[block.key])
    return Place(site.name, positions, np.array(rows, dtype=np.int32))


def _price(blocks: Sequence[Any], model: CostModel) -> list[dict[str, Any]]:
    graphs = [_graph(block) for block in blocks]
    estimates = model.estimate_many(graphs)
    fixed = model.overhead[2] if model.is_fitted else 0.0
    rows = []
    for block, graph, estimate in zip(blocks, graphs, estimates, strict=True):
        latency = max(estimate.latency - fixed, 1e-12)
        rows.append({
            "block": block.key, "name": block.name, "input_shape": "x".join(map(str, block.input_shape)),
            "latency_s": latency, "low_s": latency * estimate.low / estimate.latency,
            "high_s": latency * estimate.high / estimate.latency,
            "sigma": relative_error(estimate.kernels, 0.0),
            "macs": graph.cost.macs, "flops": graph.cost.flops, "bytes": graph.cost.bytes, "params": graph.params,
            "input_bytes": sum(t.bytes for t in graph.inputs), "weight_bytes": graph.weight_bytes,
            "peak_memory": graph.peak_memory,
            "bound": estimate.bound, "memory_share": estimate.memory_share,
            "support": estimate.support, "coverage": _coverage(estimate.support), "kernels": len(estimate.kernels),
        })  # fmt: skip
    return rows


def _coverage(support: float) -> str:
    """In words: whether the block's kernels lie inside what was measured."""
    return "interpolated" if support == 1.0 else "extrapolated"


def _graph(block: Any) -> Graph:
    import torch

    from hwcost.tracing import trace

    with torch.device("meta"):
        module = block.build()
    return trace(module, (torch.empty(block.input_shape, device="meta"),))


def _target(model: CostModel) -> dict[str, Any]:
    return {
        "device": model.device.name, "runtime": model.runtime, "threads": model.threads, "dtype": model.target.dtype,
    }  # fmt: skip
