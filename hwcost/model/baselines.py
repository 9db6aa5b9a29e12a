"""What a cost model must beat: six simple predictors, fitted on the very measurements of the model.

    flops            t = a W                                     through the origin
    flops + bytes    t = a W + b Q + c                           all at least 0
    roofline         t = sum_k max(W / P, Q / B)                 nothing is fitted
    no roofline      boosted trees on log t of shape features    t = a sum_k t_k + b calls + c
    look-up          t = sum_k of the measured kernel that is nearest among its kind
    forests          a random forest a kind on shape features    t = sum_k t_k

W, Q: flop and byte of the network. Coefficients are least squares of relative errors. "no roofline" is
the cost model's own recipe, overhead included, without ceilings. The look-up knows kernels timed in
context; one that it does not hold is answered by the nearest measured one, a kind that it does not hold
by 0, as such tables do. The forests are the recipe of L. L. Zhang et al., "nn-Meter", MobiSys 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

from hwcost.model.catalogue import Key, distance, key
from hwcost.model.cost_model import ModelError
from hwcost.model.features import NAMES, Columns, Target, columns

if TYPE_CHECKING:
    from hwcost.model.cost_model import CostModel
    from hwcost.runtimes.base import Network

Array = NDArray[np.float64]
Ints = NDArray[np.intp]
OfKernels = Callable[[Columns], Array]

_TREES = 30  # of a forest; more change its accuracy by less than the clock's error
# Columns that the device's ceilings go into, and the kind, which a forest a kind does not need.
_NOT_SHAPE = ("kind", "compute_time", "memory_time", "bound", "parallel")
_SHAPE = [i for i, name in enumerate(NAMES) if name not in _NOT_SHAPE]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A simple predictor."""

    name: str
    predict: Callable[[Sequence[Network]], Array]  # lowered networks -> [n] seconds


@dataclass(frozen=True, slots=True)
class _Flat:
    """Networks as rows of distinct kernels."""

    data: Columns  # of the distinct kernels
    moved: Array  # byte of each distinct kernel
    row: Ints  # [kernels of all networks], into the distinct ones
    network: Ints  # [kernels of all networks]
    calls: Array  # [networks]

    def sum(self, of_kernels: Array) -> Array:
        """[distinct kernels] -> [networks]."""
        return np.bincount(self.network, of_kernels[self.row], len(self.calls)).astype(float)


def fit_baselines(model: CostModel) -> tuple[Baseline, ...]:
    """Fit every baseline on the measurements of `model`.

    Raises:
        ModelError: the model is the roofline alone and holds no measurements.
    """
    if model.measurements is None:
        raise ModelError("baselines are fitted on a model's own measurements, but the roofline alone has none")
    networks = model.measurements.networks
    flat = _flatten(model.lower_measured(model.measurements), model.target)
    latency = _mean(flat, np.array([k.timing.latency for n in networks for k in n.kernels]))
    lone = np.array([n.is_lone for n in networks])  # kernels timed alone say nothing of whole networks
    total = np.where(lone, np.inf, [n.timing.latency for n in networks])
    return tuple(_fitted(flat, latency, total, model.target))


def _fitted(flat: _Flat, latency: Array, total: Array, target: Target) -> Iterator[Baseline]:
    """`total` [networks] (s) is infinite where a network has no say."""

    def baseline(name: str, of_networks: Callable[[_Flat], Array]) -> Baseline:
        return Baseline(name, lambda networks: of_networks(_flatten(networks, target)))

    by_flops = relative_fit(_sums(flat)[:, :1], total)
    yield baseline("flops", lambda f: _sums(f)[:, :1] @ by_flops)
    by_both = relative_fit(_sums(flat), total)
    yield baseline("flops + bytes", lambda f: _sums(f) @ by_both)
    yield baseline("roofline", lambda f: f.sum(f.data.roofline))
    boosted = _boosted(flat.data, latency)
    overhead = relative_fit(_with_calls(flat, boosted), total)
    yield baseline("no roofline", lambda f: _with_calls(f, boosted) @ overhead)
    nearest = _look_up(flat.data, latency)
    yield baseline("look-up", lambda f: f.sum(nearest(f.data)))
    forests = _forests(flat.data, latency)
    yield baseline("forests", lambda f: f.sum(forests(f.data)))


def _flatten(networks: Sequence[Network], target: Target) -> _Flat:
    distinct: dict[Key, int] = {}
    row, network = [], []
    for number, one in enumerate(networks):
        for placed in one.kernels:
            row.append(distinct.setdefault(key(placed), len(distinct)))
            network.append(number)
    return _Flat(
        columns([(kernel, distance(bucket)) for kernel, bucket, _ in distinct], target),
        np.array([kernel.cost.bytes for kernel, *_ in distinct], dtype=float),
        np.array(row, dtype=np.intp),
        np.array(network, dtype=np.intp),
        np.array([n.calls for n in networks], dtype=float),
    )


def _mean(flat: _Flat, latency: Array) -> Array:
    """Geometric mean of the measured times (s) of each distinct kernel."""
    logs = np.bincount(flat.row, np.log(np.maximum(latency, 1e-9)))
    return np.asarray(np.exp(logs / np.bincount(flat.row)))


def _sums(flat: _Flat) -> Array:
    """[networks, 3]: flop, byte, one."""
    return np.column_stack([flat.sum(flat.data.flops), flat.sum(flat.moved), np.ones_like(flat.calls)])


def _with_calls(flat: _Flat, of_kernels: OfKernels) -> Array:
    """[networks, 3]: sum of kernels (s), calls, one."""
    return np.column_stack([flat.sum(of_kernels(flat.data)), flat.calls, np.ones_like(flat.calls)])


def relative_fit(design: Array, total: Array) -> Array:
    """Coefficients, all at least 0, with the least squares of relative errors."""
    known = np.isfinite(total)
    relative = design[known] / total[known, None]
    size = np.maximum(np.linalg.norm(relative, axis=0), 1e-300)  # columns of like size: flops are 1e9, calls 1e2
    solution, _ = nnls(relative / size, np.ones(len(relative)))
    return np.asarray(solution / size)


def _boosted(data: Columns, latency: Array) -> OfKernels:
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(data.kinds))}

    def features(d: Columns) -> Any:
        coded = [kinds.get(kind, np.nan) for kind in d.kinds]
        return np.column_stack([coded, d.features[:, _SHAPE]])

    trees = HistGradientBoostingRegressor(
        max_iter=300, learning_rate=0.06, max_leaf_nodes=24, min_samples_leaf=8, l2_regularization=1.0,
        early_stopping=False, random_state=0, categorical_features=[0] if len(kinds) <= 255 else None,
    )  # fmt: skip
    trees.fit(features(data), np.log(latency))
    return lambda d: np.asarray(np.exp(trees.predict(features(d))))


def _by_kind(data: Columns) -> Iterator[tuple[str, Ints]]:
    kinds = np.array(data.kinds)
    for kind in dict.fromkeys(data.kinds):
        yield kind, np.flatnonzero(kinds == kind)


def _look_up(data: Columns, latency: Array) -> OfKernels:
    held = {kind: (cKDTree(data.features[rows][:, _SHAPE]), latency[rows]) for kind, rows in _by_kind(data)}

    def answer(d: Columns) -> Array:
        found = np.zeros(len(d.kinds))
        for kind, rows in _by_kind(d):
            if kind in held:
                tree, times = held[kind]
                found[rows] = times[tree.query(d.features[rows][:, _SHAPE])[1]]
        return found

    return answer


def _forests(data: Columns, latency: Array) -> OfKernels:
    forests = {
        kind: RandomForestRegressor(_TREES, random_state=0).fit(data.features[rows][:, _SHAPE], latency[rows])
        for kind, rows in _by_kind(data)
    }

    def answer(d: Columns) -> Array:
        found = np.zeros(len(d.kinds))
        for kind, rows in _by_kind(d):
            if kind in forests:
                found[rows] = forests[kind].predict(d.features[rows][:, _SHAPE])
        return found

    return answer
