"""From kernels to estimates of networks, many networks at once.

A network is rows of a catalogue of distinct kernels. Each kernel is predicted once, and sums over networks are sums
over the catalogue's columns. What an estimate says of its single kernels is made only when somebody looks at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hwcost.cost import Cost
from hwcost.kernel import Kernel, bucket, label
from hwcost.model.estimate import Bound, Estimate, KernelEstimate, KernelEstimates
from hwcost.model.features import Columns
from hwcost.model.fit import Fitted
from hwcost.model.intervals import interval_of, parts_of_sums
from hwcost.model.residual import Prediction
from hwcost.rules.registry import cost_of
from hwcost.runtimes.base import Placed

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Key = tuple[Kernel, int, int]  # kernel, bucket of its reuse distance, reach of its network


@dataclass(frozen=True)
class Predicted:
    """What the model says of one distinct kernel in one context; times in seconds."""

    kernel: Kernel
    latency: float  # in context, before the overhead's scale
    sigma: float  # own standard error of log latency
    supported: bool  # inside the measured range
    shared: float  # error that it has in common with all kernels that were not measured themselves
    roofline: float
    least: float  # shortest time that is answered (`hwcost.model.features.Columns.least`)
    bound: Bound

    @cached_property
    def identity(self) -> tuple[str, str, str, str, Cost]:
        """(name, kind, label, digest, cost) of the kernel."""
        return self.kernel.name, self.kernel.kind, label(self.kernel), self.kernel.digest, self.kernel.cost


@dataclass(frozen=True, slots=True)
class Part:
    """A lowered network or block: rows of the catalogue in the order they run."""

    modules: tuple[str, ...]
    rows: Rows
    calls: int


@dataclass(frozen=True, slots=True)
class Whole:
    """A network: parts, each at its place (a prefix of the module paths)."""

    parts: tuple[tuple[str, Part], ...]

    @property
    def calls(self) -> int:
        """Operator calls of all parts."""
        return sum(part.calls for _, part in self.parts)

    @property
    def rows(self) -> Rows:
        """Of all parts, in the order they run."""
        return self.parts[0][1].rows if len(self.parts) == 1 else np.concatenate([p.rows for _, p in self.parts])


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The catalogue's predictions as arrays, [kernels]."""

    latency: Array
    least: Array
    sigma: Array
    shared: Array
    same: Rows  # a number that equal kernels in different contexts share

    def joined(self, more: _Columns) -> _Columns:
        return _Columns(*(np.append(getattr(self, n), getattr(more, n)) for n in _Columns.__slots__))


class Catalogue:
    """The distinct kernels that were predicted so far."""

    def __init__(self) -> None:
        self.predicted: list[Predicted] = []
        self.uncounted: dict[int, str] = {}  # rows with an op that no rule counts, and its kind
        self._rows: dict[Key, int] = {}
        self._same: dict[Kernel, int] = {}
        none = np.empty(0)
        self._columns = _Columns(none, none, none, none, np.empty(0, dtype=np.intp))

    def unknown(self, kernels: Iterable[tuple[Placed, int]]) -> list[Key]:
        """Keys of those kernels that were not predicted so far, each once; a kernel comes with its network's reach."""
        return list({k: None for p, reach in kernels if (k := key(p, reach)) not in self._rows})

    def add(self, keys: Sequence[Key], data: Columns, predicted: Prediction, shared: float = 0.0) -> None:
        """Take in predictions, in the order of `keys`; `shared` is the error of unmeasured kernels together."""
        together = np.where(predicted.known, 0.0, shared)
        compute_bound, roofline, least = data.compute_bound, data.roofline, data.least(predicted.supported)
        for i, one in enumerate(keys):
            kernel, row = one[0], len(self.predicted)
            self._rows[one] = row
            self._same.setdefault(kernel, len(self._same))
            if unknown := next((op.kind for op in kernel.ops if cost_of(op)[1] == "unknown"), ""):
                self.uncounted[row] = unknown
            self.predicted.append(
                Predicted(
                    kernel=kernel,
                    latency=float(predicted.latency[i]),
                    sigma=float(predicted.sigma[i]),
                    supported=bool(predicted.supported[i]),
                    shared=float(together[i]),
                    roofline=float(roofline[i]),
                    least=float(least[i]),
                    bound="compute" if compute_bound[i] else "memory",
                )
            )
        same = np.array([self._same[kernel] for kernel, *_ in keys], dtype=np.intp)
        self._columns = self._columns.joined(_Columns(predicted.latency, least, predicted.sigma, together, same))

    def part(self, kernels: Sequence[Placed], calls: int, reach: int) -> Part:
        """A lowered network whose kernels are all known, or a part of one of that reach."""
        rows = np.fromiter((self._rows[key(p, reach)] for p in kernels), dtype=np.intp, count=len(kernels))
        return Part(tuple([p.module for p in kernels]), rows, calls)

    def sums(self, rows: Sequence[Rows], fitted: Fitted) -> tuple[Array, Array, Array]:
        """For each network the sum of its kernels' latencies (s), and the two errors of that sum that its kernels cause
        (`hwcost.model.intervals.parts_of_sums`), [networks] each."""
        c, n = self._columns, len(rows)
        flat = np.concatenate(rows) if n else np.empty(0, dtype=np.intp)
        network = np.repeat(np.arange(n), [len(r) for r in rows])
        latency = fitted.overhead.kernels(c.latency, c.least)[flat]
        own, shared = parts_of_sums(network, c.same[flat], latency, c.sigma[flat], c.shared[flat], n)
        return np.bincount(network, latency, n).astype(float), own, shared


def compose(wholes: Sequence[Whole], catalogue: Catalogue, fitted: Fitted, like: Estimate) -> list[Estimate]:
    """Estimates of networks by the law of `hwcost.model.overhead`; `like` gives what all of them have in common."""
    rows = [whole.rows for whole in wholes]
    total, own, shared = catalogue.sums(rows, fitted)
    overhead = fitted.overhead.beside(np.array([w.calls for w in wholes], dtype=float))
    latency = total + overhead
    low, high = interval_of(latency, fitted.errors, own, shared)
    each = zip(wholes, rows, *(c.tolist() for c in (latency, low, high, overhead)), strict=True)
    return [
        replace(
            like,
            latency=t,
            low=least,
            high=most,
            overhead=beside,
            kernels=KernelEstimates(partial(_kernels, whole.parts, r, catalogue.predicted, fitted)),
            notes=like.notes + _uncounted(r, catalogue.uncounted),
        )
        for whole, r, t, least, most, beside in each
    ]


def _uncounted(rows: Rows, uncounted: dict[int, str]) -> tuple[str, ...]:
    """The note of an estimate on kernels with an op that no rule counts; () where there is none."""
    kinds = sorted({uncounted[row] for row in rows.tolist() if row in uncounted}) if uncounted else []
    return (f"not counted, so that their time is a guess: {', '.join(kinds)}",) if kinds else ()


def _kernels(
    parts: Sequence[tuple[str, Part]], rows: Rows, predicted: Sequence[Predicted], fitted: Fitted
) -> tuple[KernelEstimate, ...]:
    modules = chain.from_iterable(_placed(prefix, part.modules) for prefix, part in parts)
    found = [predicted[row] for row in rows.tolist()]
    least = np.array([k.least for k in found])
    latency = fitted.overhead.kernels(np.array([k.latency for k in found]), least)
    # `sigma` is what a network bears; inside the measured range, a kernel by itself errs more by the factor `alone`
    own = np.array([k.sigma * (fitted.errors.alone if k.supported else 1.0) for k in found])
    low, high = interval_of(latency, fitted.errors, own, np.array([k.shared for k in found]))
    numbers = zip(latency.tolist(), low.tolist(), high.tolist(), strict=True)
    return tuple([_kernel(k, module, *n) for k, module, n in zip(found, modules, numbers, strict=True)])


def _placed(prefix: str, modules: tuple[str, ...]) -> Iterable[str]:
    return (f"{prefix}.{m}" if m else prefix for m in modules) if prefix else modules


def _kernel(found: Predicted, module: str, latency: float, low: float, high: float) -> KernelEstimate:
    name, kind, labelled, digest, cost = found.identity
    return KernelEstimate(
        name=name, kind=kind, module=module, latency=latency, low=low, high=high, roofline=found.roofline,
        bound=found.bound, cost=cost, supported=found.supported, sigma=found.sigma, shared=found.shared, key=digest,
        label=labelled,
    )  # fmt: skip


def key(placed: Placed, reach: int = 1) -> Key:
    """What the catalogue finds a kernel by: reuse distances within a factor of two are one context."""
    return placed.kernel, bucket(placed.distance), reach


def distance(number: int) -> int:
    """The largest reuse distance (byte) of a bucket of `key`."""
    return (1 << number) - 1 if number > 0 else number
