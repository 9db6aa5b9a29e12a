"""Latency tables: the blocks of a search space with their time, made once, used offline.

A space says at which places blocks stand and which decisions each place depends on, so that a network's latency is a
sum of table look-ups,

    t(choices) = fixed + sum_s  T_s[choices of the decisions of site s]        (1)

with one array T_s for each site. A row of the table is a distinct block; sites share rows. Where times depend on how
many bytes the whole network moves, T_s holds one time for each class of that (`hwcost.table.sums`). In the Parquet file
the rows are the blocks, and the schema's metadata hold the space, the target and the structure of (1), so that a table
is read without the space's code.

A table is made by a cost model (`build`, `write`), or from measurements alone (`measured`): the classical look-up
table, which has rows only for blocks that were measured. A block without a row is refused, naming the nearest rows,
until `complete` has a model price it.

Reading a table and asking it needs numpy and pyarrow alone; what builds, edits or compares tables is imported by the
methods that do so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from hwcost.table.file import Parts, checked, read, write
from hwcost.table.lookup import Lookup
from hwcost.table.misses import Hits, count_hits, nearest
from hwcost.table.schema import Head, Place, TableError, TableEstimate, holds_times
from hwcost.table.sums import Sums

if TYPE_CHECKING:
    import pandas as pd

    from hwcost.measure.types import Measurements
    from hwcost.model.accuracy import Accuracy
    from hwcost.model.cost_model import CostModel
    from hwcost.spaces.base import Space
    from hwcost.table.build import Progress


class LatencyTable:
    """Blocks with their latency, and how networks are composed of them.

    Args:
        rows: one row for each distinct block (`hwcost.table.schema`).
        places: where blocks stand, with the row of each combination of choices.
        meta: the space, its decisions, the target, the fixed time (s), the interval and the origin.
        missing: keys of the blocks that have no row.

    Raises:
        TableError: a time that is not above 0 s, or a place that names a row that does not exist.
    """

    def __init__(
        self, rows: pa.Table, places: Sequence[Place], meta: Mapping[str, Any], missing: Sequence[str] = ()
    ) -> None:
        self.rows = rows
        self.places = tuple(places)
        self.meta = dict(meta)
        self.missing = tuple(missing)
        self._columns = _numeric(rows)
        for column, times in self._columns.items():
            if not holds_times(column):
                continue
            wrong = np.flatnonzero(~((times > 0) & np.isfinite(times)))
            if len(wrong):
                said = f"row {wrong[0]} has {times[wrong[0]]} in {column}; make the table again"
                raise TableError(f"a latency must be above 0 s, but {said}")
        for place in self.places:
            at = place.rows
            if len(at) and not (-2 - len(missing) < at.min() and at.max() < len(rows)):
                raise TableError(f"place {place.name!r} names a row that is not among the {len(rows)}; make it again")

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    def build(
        cls, space: Space, model: CostModel, *, jobs: int | None = 1, progress: Progress | None = None
    ) -> LatencyTable:
        """Price every distinct block of a space, in memory.

        Args:
            space: the search space.
            model: what prices the blocks.
            jobs: processes; None: as `joblib.parallel_config` says (`hwcost.table.build`).
            progress: called with (combinations walked, combinations in all).

        Raises:
            TableError: the model's runtime fuses across the blocks of this space, or a worker process died.
        """
        from hwcost.table.build import Walk, head_of, priced, pricer, tasks

        walk = Walk(space)
        parts = []
        for columns in priced(pricer(space, model), tasks(walk.blocks()), jobs):
            parts.append(pa.table(columns))
            if progress is not None:
                progress(walk.done, walk.total)
        return cls(pa.concat_tables(parts), walk.places, head_of(space, model))

    @staticmethod
    def write(
        space: Space, model: CostModel, path: str | Path, *, jobs: int | None = 1, progress: Progress | None = None
    ) -> int:
        """Price every distinct block of a space straight to a file, in bounded memory; resumes.

        Args:
            space, model, jobs, progress: as `build` takes them.
            path: ends in .parquet, .csv or .yaml (`hwcost.table.file`).

        Returns:
            The number of rows.

        Raises:
            TableError: another ending, parts of another table beside it, or a full disk; what was priced until then
                is kept and the next call goes on from there. Also as `build`.
        """
        from hwcost.table import build

        path, meta = checked(path), build.head_of(space, model)
        identity = {k: meta[k] for k in ("space", "decisions", "target", "model", "hwcost")}
        return build.write(space, build.pricer(space, model), Parts(path, identity), meta, jobs, progress)

    @classmethod
    def measured(cls, space: Space, measurements: Measurements) -> LatencyTable:
        """The classical look-up table: rows straight from measured networks of the space, without a model.

        A block's time is the mean over the networks that it stood in (`count` of them) of the sum of its
        kernels there. Blocks that were never measured have no row.

        Raises:
            TableError: no network of this space was measured.
        """
        from hwcost.measure.statistics import COVERAGE, Z
        from hwcost.table.build import described
        from hwcost.table.measured import places_of, rows_of

        rows, fixed, common = rows_of(space, measurements)
        places, missing = places_of(space, rows["block"].to_pylist())
        e = measurements.environment
        target = {"device": e.cpu, "runtime": e.runtime, "threads": e.threads, "dtype": e.dtype}
        interval = {"common": common, "z": Z, "confidence": COVERAGE}
        meta = described(space, target) | {"fixed_s": fixed, "model": "", "environment": e.to_json()} | interval
        return cls(rows, places, meta, missing)

    def complete(self, space: Space, model: CostModel, choices: ArrayLike | None = None) -> LatencyTable:
        """A table in which the model has priced the blocks without a row: all, or those that `choices` need.

        Raises:
            TableError: the model is of another target, or the space another one.
        """
        from hwcost.table.build import Walk, priced, pricer, target_of, tasks

        target, its_target = self.meta["target"], target_of(model)
        for what, mine, its in (
            ("space", self.meta["space"], space.name),
            ("target", _without_device(target), _without_device(its_target)),
        ):
            if mine != its:
                raise TableError(f"a table is completed for its own {what}, {mine}, but got {its}")
        needed = set(self.missing if choices is None else self.hits(choices).missing)
        blocks = [b for b in Walk(space).blocks() if b.key in needed]
        if not blocks:
            return self
        new = pa.concat_tables([pa.table(columns) for columns in priced(pricer(space, model), tasks(blocks))])
        return self._with_rows_of(
            self.frame, new.to_pandas(), self.meta | {"model": model.digest, "device": model.device.to_toml()}
        )

    def merge(self, other: LatencyTable) -> LatencyTable:
        """The rows of both, for one space and target.

        Rows that both have are averaged, weighted by how often they were measured; rows that a model
        made must come from the same model.

        Raises:
            TableError: another space, target or model.
        """
        from hwcost.table.edit import averaged

        for what in ("space", "decisions", "target", "model"):
            mine, theirs = self.meta[what], other.meta[what]
            if mine != theirs and not (what == "model" and "" in (mine, theirs)):
                said = f"{mine} and {theirs}" if what != "decisions" else "other choices"
                raise TableError(
                    f"tables are merged where they have the same {what}, but got {said}; `diff` compares any two"
                )
        only_measured = not self.meta["model"] and not other.meta["model"]
        frame = averaged(self.frame, other.frame) if only_measured else self.frame
        return self._with_rows_of(frame, other.frame, self.meta)

    def diff(self, other: LatencyTable) -> pd.DataFrame:
        """The blocks of two tables, of two devices for instance, by how many times longer `other` takes.

        Returns:
            Columns block, a_s (here), b_s (there) and ratio, b_s / a_s, ascending.

        Raises:
            TableError: they share no block.
        """
        from hwcost.table.edit import difference

        return difference(self.frame, other.frame)

    def _with_rows_of(self, frame: pd.DataFrame, other: pd.DataFrame, meta: Mapping[str, Any]) -> LatencyTable:
        """The table of the rows `frame` and, for the blocks that are missing, those of `other`."""
        from hwcost.table.edit import absorb

        frame, places, missing = absorb(frame, self.places, self.missing, other)
        return LatencyTable(pa.Table.from_pandas(frame, preserve_index=False), places, meta, missing)

    # -- what it says -----------------------------------------------------------------------------

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as a pandas data frame, made once; change a copy, since `complete`, `merge` and `diff` read it."""
        frame: pd.DataFrame = self.rows.to_pandas()
        return frame

    @cached_property
    def choices(self) -> tuple[int, ...]:
        """Number of choices of each decision, in order."""
        return tuple(len(d["choices"]) for d in self.meta["decisions"])

    @property
    def runtime(self) -> str:
        """The target's runtime."""
        return str(self.meta["target"]["runtime"])

    @property
    def threads(self) -> int:
        """The target's number of threads."""
        return int(self.meta["target"]["threads"])

    def latency(self, choices: ArrayLike) -> NDArray[np.float64]:
        """Latency (s) of architectures given as choice indices, eq. (1).

        Args:
            choices: [n, n_decisions] integers; one architecture may be given as [n_decisions].

        Returns:
            [n] seconds.

        Raises:
            TableError: another number of decisions, a choice that does not exist, or a block without a row.
        """
        array = np.asarray(choices)
        try:
            if array.shape == (len(self.choices),) and array.dtype.kind in "iu":
                found = np.array([self._lookup.one(array.tolist())])
            else:
                found = self._lookup.many(self._shaped(array))
        except IndexError as error:
            raise self._wrong(np.atleast_2d(array), *error.args) from error
        if self.missing and np.isnan(found).any():
            self._miss(self._shaped(array)[np.isnan(found)][:1])
        return found

    def hits(self, choices: ArrayLike) -> Hits:
        """How many of the blocks of architectures have a row, and which have none.

        Args:
            choices: as `latency` takes them.
        """
        array = self._shaped(choices)
        self._refuse(array)
        return count_hits(self.places, array, self.choices, self.missing)

    def evaluate(self, measurements: Measurements) -> Accuracy:
        """Predicted against measured, for measured networks of this space; of a table of another quantile than the
        unloaded latency, that quantile of the measurements.

        Raises:
            TableError: measurements of another target, or of no network of this space.
            MeasurementError: a quantile of networks that were timed in one round only.
        """
        from hwcost.measure.quantiles import measured_time
        from hwcost.model.accuracy import Accuracy, Comparison

        e = measurements.environment
        for what, mine, theirs in (("runtime", self.runtime, e.runtime), ("threads", self.threads, e.threads)):
            if mine != theirs:
                raise TableError(f"this table is of {what} {mine}, but the measurements are of {theirs}")
        networks = [n for n in measurements.networks if n.spec.get("space") == self.meta["space"]]
        if not networks:
            raise TableError(f"this table is of space {self.meta['space']}, of which no network was measured")
        pairs = [(n, self.estimate(n.spec["params"])) for n in networks]
        quantile = str(self.meta["target"].get("quantile", "low"))
        compared = (
            Comparison(
                target=network.name,
                predicted=found.latency,
                low=found.low,
                high=found.high,
                measured=measured_time(network.timing, quantile, network.name),
                spread=network.timing.spread,
            )
            for network, found in pairs
        )
        return Accuracy(tuple(compared))

    def estimate(self, architecture: Mapping[str, Any] | Sequence[int], inputs: Any = None) -> TableEstimate:
        """Latency of one architecture, with interval; so that a table serves as a model.

        Args:
            architecture: decision name -> value (inactive ones left out), or choice indices.
            inputs: ignored; the space fixes them.

        Raises:
            TableError: no such decision or choice, or a block without a row; names the nearest rows.
        """
        choices = self._indices(architecture) if isinstance(architecture, Mapping) else np.asarray(architecture)
        array = self._shaped(choices)
        self._refuse(array)
        chosen = array[0].tolist()
        rows = {place.name: place.row(chosen, self.choices) for place in self.places}
        stands = {name: row for name, row in rows.items() if row != -1}
        if min(stands.values(), default=0) < 0:
            self._miss(array[:1])
        return self._sums.estimate(stands)

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write Parquet; or, where the name ends so, CSV or the YAML of Once-for-All (`hwcost.table.file`).

        Raises:
            TableError: another ending, or the file cannot be written.
        """
        write(self.rows, Head(self.places, self.meta, self.missing), checked(path))

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table's Parquet file.

        Raises:
            TableError: no such file, not a table, truncated, or with rows that break a rule.
        """
        rows, head = read(Path(path))
        try:
            return cls(rows, head.places, head.meta, head.missing)
        except TableError as error:
            raise TableError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.rows)

    # -- inside -----------------------------------------------------------------------------------

    @cached_property
    def _sums(self) -> Sums:
        return Sums(self._columns, self.places, self.meta, self.choices)

    @cached_property
    def _lookup(self) -> Lookup:
        return self._sums.lookup()

    def _miss(self, choices: NDArray[np.integer]) -> None:
        """Refuse an architecture that has a block without a row."""
        missing = list(self.hits(choices).missing)
        near = "; ".join(repr(key) for key in nearest(missing[0], self.rows["block"].to_pylist()))
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise TableError(
            f"no row for block {missing[0]!r}{more}; the nearest are {near}. Measure more, or have a model "
            "price what is missing with `LatencyTable.complete`"
        )

    def _shaped(self, choices: ArrayLike) -> NDArray[np.integer]:
        """`choices` as [n, n_decisions]; refuses other shapes and numbers that are no integers."""
        array = np.atleast_2d(np.asarray(choices))
        if array.ndim != 2 or array.shape[1] != len(self.choices) or array.dtype.kind not in "iu":
            raise TableError(
                f"choices must be integers of the shape [n, {len(self.choices)}], "
                f"but got {array.dtype} of {np.shape(choices)}"
            )
        return array

    def _refuse(self, array: NDArray[np.integer]) -> None:
        """Raise for the first choice that does not exist, if there is one."""
        wrong = np.argwhere((array < 0) | (array >= np.array(self.choices)))
        if len(wrong):
            raise self._wrong(array, *(int(i) for i in wrong[0]))

    def _wrong(self, array: NDArray[np.integer], row: int, decision: int) -> TableError:
        name, size = self.meta["decisions"][decision]["name"], self.choices[decision]
        return TableError(f"the choice of {name!r} must lie in 0..{size - 1}, but row {row} has {array[row, decision]}")

    def _indices(self, params: Mapping[str, Any]) -> NDArray[np.int64]:
        """The choice index of each decision; 0 for those that are not active."""
        names = [d["name"] for d in self.meta["decisions"]]
        unknown = set(params) - set(names)
        if unknown:
            raise TableError(
                f"this table is of space {self.meta['space']}, which has no decision {sorted(unknown)[0]!r}"
            )
        index, active = [], set[str]()
        for d in self.meta["decisions"]:
            when = d.get("when")
            if when is None or (when[0] in active and params.get(when[0]) in when[1]):
                active.add(d["name"])
            if d["name"] in active and d["name"] not in params:
                raise TableError(f"{d['name']!r} must be given, one of {d['choices']}, but got none")
            value = params.get(d["name"], d["choices"][0])
            if value not in d["choices"]:
                raise TableError(f"{d['name']!r} must be one of {d['choices']}, but got {value!r}")
            index.append(d["choices"].index(value))
        return np.array(index)


def _numeric(rows: pa.Table) -> dict[str, NDArray[np.float64]]:
    """The columns of numbers, as arrays: a search asks for one architecture at a time, and pandas is slow there."""
    numeric = (f.name for f in rows.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type))
    return {name: _numbers(rows[name]) for name in numeric}


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column as an array, NaN where it is null. (`ChunkedArray.to_numpy` would do, but imports pandas.)"""
    if column.null_count:
        return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=np.float64)
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks]
    return np.concatenate([np.zeros(0), *chunks])


def _without_device(target: Mapping[str, Any]) -> dict[str, Any]:
    """A target without its device, which the same hardware has several names for."""
    return {name: value for name, value in target.items() if name != "device"}
