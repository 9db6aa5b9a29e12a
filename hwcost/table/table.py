"""Latency tables: the blocks of a search space with their time, made once, used offline.

A space says at which places blocks stand and which decisions each place depends on; so a network's
latency is a sum of table look-ups,

    t(choices) = fixed + sum_s  T_s[choices of the decisions of site s]        (1)

one array T_s a site, for networks that reach equally far (`hwcost.table.sums`). A row of the table is a distinct
block; sites share rows. The file is Parquet:
rows are the blocks, the schema's metadata hold the space, the target and eq. (1)'s structure, so a
table is read without the space's code.

A table is made by a cost model (`build`, `write`), or from measurements alone (`measured`): the
classical look-up table, which has rows only for blocks that were measured. A block without a row is
a miss; it is refused with the names of the nearest rows, until `complete` has a model price it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.table import build as generation
from hwcost.table.build import Progress, Walk, priced, pricer, tasks
from hwcost.table.edit import Hits, absorb, averaged, count_hits, difference, nearest
from hwcost.table.file import Head, Parts, Place, TableError, checked, read, write
from hwcost.table.lookup import Lookup
from hwcost.table.measured import places_of, rows_of
from hwcost.table.price import REACH, reach_edges
from hwcost.table.sums import Sums
from hwcost.table.values import TableEstimate
from hwcost.version import __version__

if TYPE_CHECKING:
    from hwcost.measure.types import Measurements
    from hwcost.model.cost_model import CostModel

__all__ = ["LatencyTable", "TableError", "TableEstimate"]


class LatencyTable:
    """Blocks with latency, and how a network is composed of them."""

    def __init__(
        self, frame: pd.DataFrame, places: Sequence[Place], meta: Mapping[str, Any], missing: Sequence[str] = ()
    ) -> None:
        self.frame = frame
        self.places = tuple(places)
        self.meta = dict(meta)
        self.missing = tuple(missing)  # keys of blocks without a row
        for column in (name for name in frame if name == "latency_s" or REACH.fullmatch(str(name))):
            times = frame[column].to_numpy(dtype=float)
            wrong = np.flatnonzero(~((times > 0) & np.isfinite(times)))
            if len(wrong):
                said = f"row {wrong[0]} has {times[wrong[0]]} in {column}; make the table again"
                raise TableError(f"a latency must be above 0 s, but {said}")
        for place in self.places:
            rows = place.rows
            if len(rows) and not (-2 - len(missing) < rows.min() and rows.max() < len(frame)):
                raise TableError(f"place {place.name!r} names a row that is not among the {len(frame)}; make it again")

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    def build(
        cls, space: Any, model: CostModel, *, jobs: int | None = 1, progress: Progress | None = None
    ) -> LatencyTable:
        """Price every distinct block of a space, in memory.

        Args:
            space: a `hwcost.spaces.base.Space`, or anything with its `name`, `decisions`, `sites`.
            model: what prices the blocks.
            jobs: processes; None: as `joblib.parallel_config` says (`hwcost.table.build`).
            progress: called with (combinations walked, combinations in all).
        """
        walk = Walk(space)
        parts = []
        for columns in priced(pricer(space, model), tasks(walk.blocks()), jobs):
            parts.append(pd.DataFrame(columns))
            if progress is not None:
                progress(walk.done, walk.total)
        frame = pd.concat(parts, ignore_index=True)
        return cls(frame, walk.places, _meta(space, model))

    @staticmethod
    def write(
        space: Any, model: CostModel, path: str | Path, *, jobs: int | None = 1, progress: Progress | None = None
    ) -> int:
        """Price every distinct block of a space straight to a file, in bounded memory; resumes.

        Args:
            space, model, jobs, progress: as `build` takes them.
            path: ends in .parquet, .csv or .yaml (`hwcost.table.file`).

        Returns:
            The number of rows.

        Raises:
            TableError: another ending, parts of another table beside it, or a full disk; what was
                priced until then is kept and the next call goes on from there.
        """
        path, meta = checked(path), _meta(space, model)
        identity = {k: meta[k] for k in ("space", "decisions", "target", "model", "hwcost")}
        return generation.write(space, pricer(space, model), Parts(path, identity), meta, jobs, progress)

    @classmethod
    def measured(cls, space: Any, measurements: Measurements) -> LatencyTable:
        """The classical look-up table: rows straight from measured networks of the space, without a model.

        A block's time is the mean over the networks that it stood in (`count` of them) of the sum of its
        kernels there. Blocks that were never measured have no row.

        Raises:
            TableError: no network of this space was measured.
        """
        frame, fixed, common = rows_of(space, measurements)
        places, missing = places_of(space, list(frame["block"]))
        e = measurements.environment
        target = {"device": e.cpu, "runtime": e.runtime, "threads": e.threads, "dtype": e.dtype}
        interval = {"common": common, "z": 1.645, "confidence": 0.9}
        meta = _about(space, target) | {"fixed_s": fixed, "model": "", "environment": e.to_json()} | interval
        return cls(frame, places, meta, missing)

    def complete(self, space: Any, model: CostModel, choices: ArrayLike | None = None) -> LatencyTable:
        """A table in which the model has priced the blocks without a row: all, or those that `choices` need.

        Raises:
            TableError: the model is of another target, or the space another one.
        """
        own = {k: v for k, v in _target(model).items() if k != "device"}  # a device has several names
        target = {k: v for k, v in self.meta["target"].items() if k != "device"}
        for what, mine, its in (("space", self.meta["space"], space.name), ("target", target, own)):
            if mine != its:
                raise TableError(f"a table is completed for its own {what}, {mine}, but got {its}")
        needed = set(self.missing if choices is None else self.hits(choices).missing)
        blocks = [b for b in Walk(space).blocks() if b.key in needed]
        if not blocks:
            return self
        rows = pd.concat([pd.DataFrame(c) for c in priced(pricer(space, model), tasks(blocks))], ignore_index=True)
        frame, places, missing = absorb(self.frame, self.places, self.missing, rows)
        return LatencyTable(
            frame, places, self.meta | {"model": model.digest, "device": model.device.to_toml()}, missing
        )

    def merge(self, other: LatencyTable) -> LatencyTable:
        """The rows of both, for one space and target.

        Rows that both have are averaged, weighted by how often they were measured; rows that a model
        made must come from the same model.

        Raises:
            TableError: another space, target or model.
        """
        for what in ("space", "decisions", "target", "model"):
            mine, theirs = self.meta[what], other.meta[what]
            if mine != theirs and not (what == "model" and "" in (mine, theirs)):
                said = f"{mine} and {theirs}" if what != "decisions" else "other choices"
                raise TableError(
                    f"tables are merged where they have the same {what}, but got {said}; `diff` compares any two"
                )
        frame = averaged(self.frame, other.frame) if not self.meta["model"] and not other.meta["model"] else self.frame
        frame, places, missing = absorb(frame, self.places, self.missing, other.frame)
        return LatencyTable(frame, places, self.meta, missing)

    def diff(self, other: LatencyTable) -> pd.DataFrame:
        """The blocks of two tables, of two devices for instance, by how many times longer `other` takes.

        Returns:
            Columns block, a_s (here), b_s (there) and ratio, b_s / a_s, ascending.

        Raises:
            TableError: they share no block.
        """
        return difference(self.frame, other.frame)

    # -- what it says -----------------------------------------------------------------------------

    @cached_property
    def choices(self) -> tuple[int, ...]:
        """Number of choices of each decision, in order."""
        return tuple(len(d["choices"]) for d in self.meta["decisions"])

    @property
    def runtime(self) -> str:
        """Of the target."""
        return str(self.meta["target"]["runtime"])

    @property
    def threads(self) -> int:
        """Of the target."""
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
        """How many of the blocks of architectures have a row, and which have none."""
        array = self._shaped(choices)
        self._refuse(array)
        return count_hits(self.places, array, self.choices, self.missing)

    def evaluate(self, measurements: Measurements) -> Accuracy:
        """Predicted against measured, for measured networks of this space.

        Raises:
            TableError: measurements of another target, or of no network of this space.
        """
        e = measurements.environment
        for what, mine, theirs in (("runtime", self.runtime, e.runtime), ("threads", self.threads, e.threads)):
            if mine != theirs:
                raise TableError(f"this table is of {what} {mine}, but the measurements are of {theirs}")
        networks = [n for n in measurements.networks if n.spec.get("space") == self.meta["space"]]
        if not networks:
            raise TableError(f"this table is of space {self.meta['space']}, of which no network was measured")
        pairs = [(n, self.estimate(n.spec["params"])) for n in networks]
        return Accuracy(
            tuple(
                Comparison(
                    target=n.name, predicted=t.latency, low=t.low, high=t.high, measured=n.timing.latency,
                    spread=n.timing.spread,
                )
                for n, t in pairs
            )
        )  # fmt: skip

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
        chosen, sizes = array[0].tolist(), self.choices
        stands = {p.name: row for p in self.places if (row := p.row(chosen, sizes)) != -1}
        if min(stands.values(), default=0) < 0:
            self._miss(array[:1])
        return self._sums.estimate(stands)

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write Parquet; or, where the name ends so, CSV or the YAML of Once-for-All (`hwcost.table.file`).

        Raises:
            TableError: another ending, or the file cannot be written.
        """
        write(self.frame, Head(self.places, self.meta, self.missing), checked(path))

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table's Parquet file.

        Raises:
            TableError: no such file, not a table, truncated, or with rows that break a rule.
        """
        frame, head = read(Path(path))
        try:
            return cls(frame, head.places, head.meta, head.missing)
        except TableError as error:
            raise TableError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.frame)

    # -- inside -----------------------------------------------------------------------------------

    @cached_property
    def _sums(self) -> Sums:
        return Sums(self.frame, self.places, self.meta, self.choices)

    @cached_property
    def _lookup(self) -> Lookup:
        return self._sums.lookup()

    def _miss(self, choices: NDArray[np.integer]) -> None:
        """Refuse an architecture that has a block without a row."""
        missing = list(self.hits(choices).missing)
        near = "; ".join(repr(key) for key in nearest(missing[0], self.frame["block"]))
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise TableError(
            f"no row for block {missing[0]!r}{more}; the nearest are {near}. Measure more, or have a model "
            "price what is missing with `LatencyTable.complete`"
        )

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
        wrong = np.argwhere((array < 0) | (array >= np.array(self.choices)))
        if len(wrong):
            raise self._wrong(array, *(int(i) for i in wrong[0]))

    def _wrong(self, array: NDArray[np.integer], row: int, decision: int) -> TableError:
        name, size = self.meta["decisions"][decision]["name"], self.choices[decision]
        return TableError(f"the choice of {name!r} must lie in 0..{size - 1}, but row {row} has {array[row, decision]}")

    def _indices(self, params: Mapping[str, Any]) -> NDArray[np.int64]:
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


def _meta(space: Any, model: CostModel) -> dict[str, Any]:
    fixed = model.overhead.fixed if model.is_fitted else 0.0
    reach = {"reach_edges": reach_edges(model.device)} if model.is_fitted else {}
    origin = {"model": model.digest, "source": model.provenance, "device": model.device.to_toml()}
    return _about(space, _target(model)) | {"fixed_s": fixed, **model.interval, **origin, **reach}


def _about(space: Any, target: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "space": space.name,
        "decisions": [_decision(d) for d in space.decisions],
        "target": dict(target),
        "hwcost": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _decision(d: Any) -> dict[str, Any]:
    when = getattr(d, "when", None)
    return {"name": d.name, "choices": list(d.choices)} | ({"when": [when[0], list(when[1])]} if when else {})


def _target(model: CostModel) -> dict[str, Any]:
    meant = {} if model.quantile == "low" else {"quantile": model.quantile}
    return {
        "device": model.device.name, "runtime": model.runtime, "threads": model.threads, "dtype": model.target.dtype,
    } | meant  # fmt: skip
