"""From kernels to networks: eq. (1) of `hwcost.model.cost_model` over many networks at once.

A network is rows of a catalogue of distinct kernels. Each kernel is predicted once, sums over networks
are sums over the catalogue's columns, and what a network's `Estimate` says of its single kernels is
written down only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hwcost.cost import Cost
from hwcost.kernel import Kernel, bucket, label
from hwcost.model.estimate import Bound, Estimate, KernelEstimate
from hwcost.model.features import Columns
from hwcost.model.fit import Fitted, Overhead
from hwcost.model.residual import Prediction
from hwcost.rules.registry import cost_of
from hwcost.runtimes.base import Placed

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Key = tuple[Kernel, int, int]  # kernel, bucket of its distance, reach of its network


@dataclass(frozen=True)
class Known:
    """What the model says of one distinct kernel at one distance; times in seconds."""

    kernel: Kernel
    latency: float
    sigma: float
    supported: bool
    shared: float
    roofline: float
    least: float  # s, below which no answer is
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


class Catalogue:
    """The distinct kernels that were predicted so far."""

    def __init__(self) -> None:
        self.known: list[Known] = []
        self.uncounted: dict[int, str] = {}  # rows with an op that no rule counts, and its kind
        self._rows: dict[Key, int] = {}
        self._groups: dict[Kernel, int] = {}
        none = np.empty(0)
        self._columns: tuple[Array, Array, Array, Array, Rows] = (none, none, none, none, np.empty(0, dtype=np.intp))

    def unknown(self, kernels: Iterable[tuple[Placed, int]]) -> list[Key]:
        """The kernels, each in a network of some reach, that are not in it yet, each once."""
        return list({k: None for p, reach in kernels if (k := key(p, reach)) not in self._rows})

    def add(self, keys: Sequence[Key], data: Columns, predicted: Prediction, shared: float = 0.0) -> None:
        """Take in predictions, in the order of `keys`; `shared` is the error of unmeasured kernels together."""
        together = np.where(predicted.known, 0.0, shared)
        compute_bound, roofline, lowest = data.compute_bound, data.roofline, data.least(predicted.supported)
        for i, one in enumerate(keys):
            kernel, *_ = one
            self._rows[one] = len(self.known)
            if unknown := next((op.kind for op in kernel.ops if cost_of(op)[1] == "unknown"), ""):
                self.uncounted[len(self.known)] = unknown
            self._groups.setdefault(kernel, len(self._groups))
            self.known.append(
                Known(
                    kernel, float(predicted.latency[i]), float(predicted.sigma[i]), bool(predicted.supported[i]),
                    float(together[i]), float(roofline[i]), float(lowest[i]),
                    "compute" if compute_bound[i] else "memory",
                )
            )  # fmt: skip
        groups = [self._groups[kernel] for kernel, *_ in keys]
        latency, least, sigma, common, group = self._columns
        self._columns = (
            np.append(latency, predicted.latency),
            np.append(least, lowest),
            np.append(sigma, predicted.sigma),
            np.append(common, together),
            np.append(group, np.array(groups, dtype=np.intp)),
        )

    def part(self, kernels: Sequence[Placed], calls: int, reach: int) -> Part:
        """A lowered network whose kernels are all known, or a part of one of that reach."""
        rows = np.fromiter((self._rows[key(p, reach)] for p in kernels), dtype=np.intp, count=len(kernels))
        return Part(tuple([p.module for p in kernels]), rows, calls)

    def sums(self, rows: Sequence[Rows], overhead: Overhead) -> tuple[Array, Array]:
        """For each network the sum of its kernels' latencies (s), and the standard error of its log
        that comes from its kernels: eq. (1) of `hwcost.model.estimate` without the common part."""
        raw, least, sigma, shared, group = self._columns
        n, latency = len(rows), overhead.kernels(raw, least)
        flat = np.concatenate(rows) if n else np.empty(0, dtype=np.intp)
        network = np.repeat(np.arange(n), [len(r) for r in rows])
        total = np.bincount(network, latency[flat], n).astype(float)
        pair, inverse = np.unique(network * len(self._groups) + group[flat], return_inverse=True)
        together = np.bincount(inverse, (latency * sigma)[flat])
        variance = np.bincount(pair // max(len(self._groups), 1), together**2, n)
        variance = variance + np.bincount(network, (latency * shared)[flat], n) ** 2
        return total, np.sqrt(variance) / np.where(total > 0, total, 1.0)


def compose(wholes: Sequence[Whole], catalogue: Catalogue, fitted: Fitted, like: Estimate) -> list[Estimate]:
    """Estimates of networks; `like` gives what all of them share."""
    rows = [w.parts[0][1].rows if len(w.parts) == 1 else np.concatenate([p.rows for _, p in w.parts]) for w in wholes]
    total, own = catalogue.sums(rows, fitted.overhead)
    overhead = fitted.overhead.beside(np.array([w.calls for w in wholes], dtype=float))
    latency = total + overhead
    spread = np.exp(fitted.z * np.hypot(fitted.common, own))
    columns = (latency, latency / spread, latency * spread, overhead)
    return [
        Estimate.later(
            partial(_kernels, w.parts, r, catalogue.known, fitted),
            like,
            latency=t,
            low=low,
            high=high,
            overhead=o,
            notes=like.notes + _uncounted(r, catalogue.uncounted),
        )
        for w, r, t, low, high, o in zip(wholes, rows, *(c.tolist() for c in columns), strict=True)
    ]


def _uncounted(rows: Rows, uncounted: dict[int, str]) -> tuple[str, ...]:
    """What an estimate says of kernels whose work it does not know."""
    kinds = sorted({uncounted[row] for row in rows.tolist() if row in uncounted}) if uncounted else []
    return (f"not counted, so that their time is a guess: {', '.join(kinds)}",) if kinds else ()


def _kernels(
    parts: Sequence[tuple[str, Part]], rows: Rows, known: Sequence[Known], fitted: Fitted
) -> tuple[KernelEstimate, ...]:
    modules = chain.from_iterable(_placed(prefix, part.modules) for prefix, part in parts)
    found = [known[row] for row in rows.tolist()]
    least = np.array([k.least for k in found])
    latency = fitted.overhead.kernels(np.array([k.latency for k in found]), least)
    alone = [k.sigma * (fitted.alone if k.supported else 1.0) for k in found]  # what nobody measured errs as a whole
    error = np.sqrt(fitted.common**2 + np.square(alone) + np.array([k.shared**2 for k in found]))
    numbers = zip(latency.tolist(), np.exp(fitted.z * error).tolist(), strict=True)
    return tuple([_kernel(k, module, *n) for k, module, n in zip(found, modules, numbers, strict=True)])


def _placed(prefix: str, modules: tuple[str, ...]) -> Iterable[str]:
    return (f"{prefix}.{m}" if m else prefix for m in modules) if prefix else modules


def _kernel(known: Known, module: str, latency: float, spread: float) -> KernelEstimate:
    name, kind, labelled, digest, cost = known.identity
    return KernelEstimate(
        name=name, kind=kind, module=module, latency=latency, low=latency / spread, high=latency * spread,
        roofline=known.roofline, bound=known.bound, cost=cost, supported=known.supported, sigma=known.sigma,
        shared=known.shared, key=digest, label=labelled,
    )  # fmt: skip


def key(placed: Placed, reach: int = 1) -> Key:
    """Kernels at about the same distance (to a factor of two) are told apart no further."""
    return placed.kernel, bucket(placed.distance), reach


def distance(number: int) -> int:
    """The largest distance (byte) of a bucket of `key`."""
    return (1 << number) - 1 if number > 0 else number
