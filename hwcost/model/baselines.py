"""What a cost model must beat: six simple predictors, fitted on the same measurements as the model.

    flops            t = a W                                     through the origin
    flops + bytes    t = a W + b Q + c
    roofline         t = sum_k max(W_k / P, Q_k / B)             nothing is fitted
    no roofline      t = a sum_k t_k + b calls + c               t_k: boosted trees on shape features
    look-up          t = sum_k t_k                               t_k: measured time of the nearest kernel of its kind
    forests          t = sum_k t_k                               t_k: a random forest for each kind, on shape features

t is the time of a network (s), and W and Q are its work (flop) and traffic (byte); those with an index k are of its
kernel k. The coefficients a, b and c are at least 0 and minimise the squared relative error.

"no roofline" is the cost model without ceilings: the same kind of trees, and the same overhead for each call. The
look-up holds kernels as timed inside networks; it answers a kernel of a kind that was never measured with 0, as
published look-up tables do. The forests are the method of L. L. Zhang et al., "nn-Meter", MobiSys 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

from hwcost.model.catalogue import Key, distance, key
from hwcost.model.cost_model import CostModel
from hwcost.model.data import ModelError
from hwcost.model.features import NAMES, Columns, Target, columns
from hwcost.runtimes.base import Network

Array = NDArray[np.float64]
Ints = NDArray[np.intp]
KernelTimes = Callable[[Columns], Array]  # time (s) of each kernel

_TREES = 30  # of a forest; more of them change its accuracy by less than measurements repeat
# Columns of the shape features: all but the kind and those that depend on the device's ceilings and threads.
_SHAPE = [i for i, n in enumerate(NAMES) if n not in {"kind", "compute_time", "memory_time", "bound", "parallel"}]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A simple predictor of network latency."""

    name: str
    predict: Callable[[Sequence[Network]], Array]  # lowered networks -> [n] seconds


@dataclass(frozen=True, slots=True)
class _Flat:
    """Networks as numbers of distinct kernels; the kernels of all networks stand one after the other."""

    data: Columns  # [distinct kernels]
    traffic: Array  # [distinct kernels], byte
    row: Ints  # [kernels of all networks], which distinct one each is
    network: Ints  # [kernels of all networks], which network holds each
    calls: Array  # [networks], how many ops each calls

    def sum(self, of_kernels: Array) -> Array:
        """Sum of a quantity over the kernels of each network: [distinct kernels] -> [networks]."""
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
    lone = np.array([n.is_lone for n in networks])  # a kernel that was timed by itself is no network
    total = np.where(lone, np.nan, [n.timing.latency for n in networks])
    return tuple(_fitted(flat, latency, total, model.target))


def _fitted(flat: _Flat, latency: Array, total: Array, target: Target) -> Iterator[Baseline]:
    """Fit the six predictors.

    Args:
        flat: the measured networks.
        latency: [distinct kernels], measured time (s) of each.
        total: [networks], measured time (s); NaN where no coefficient of whole networks may be fitted on it.
        target: what predictions are for.
    """

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
    """Find the distinct kernels of lowered networks; at another reuse distance, a kernel is another one."""
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
    """[kernels of all networks] -> [distinct kernels]: geometric mean of the measured times (s) of each."""
    logs = np.bincount(flat.row, np.log(np.maximum(latency, 1e-9)))
    return np.asarray(np.exp(logs / np.bincount(flat.row)))


def _sums(flat: _Flat) -> Array:
    """[networks, 3]: work (flop), traffic (byte), 1."""
    return np.column_stack([flat.sum(flat.data.flops), flat.sum(flat.traffic), np.ones_like(flat.calls)])


def _with_calls(flat: _Flat, of_kernels: KernelTimes) -> Array:
    """[networks, 3]: sum of the kernels' times (s), calls, 1."""
    return np.column_stack([flat.sum(of_kernels(flat.data)), flat.calls, np.ones_like(flat.calls)])


def relative_fit(design: Array, total: Array) -> Array:
    """Coefficients x, all at least 0, that minimise the squared relative error of `design @ x`.

    Args:
        design: [networks, coefficients].
        total: [networks], the times to be met (s); networks of which it is NaN or infinite are left out.
    """
    known = np.isfinite(total)
    relative = design[known] / total[known, None]
    size = np.maximum(np.linalg.norm(relative, axis=0), 1e-300)  # scaled alike: flops are around 1e9, calls 1e2
    solution, _ = nnls(relative / size, np.ones(len(relative)))
    return np.asarray(solution / size)


def _boosted(data: Columns, latency: Array) -> KernelTimes:
    """Boosted trees on the logarithm of time, from the kind and the shape features."""
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
    """Each kind with the rows of its kernels."""
    kinds = np.array(data.kinds)
    for kind in dict.fromkeys(data.kinds):
        yield kind, np.flatnonzero(kinds == kind)


def _look_up(data: Columns, latency: Array) -> KernelTimes:
    """Time of the measured kernel of the same kind whose shape features are nearest; 0 of a kind without one."""
    held = {kind: (cKDTree(data.features[rows][:, _SHAPE]), latency[rows]) for kind, rows in _by_kind(data)}

    def answer(d: Columns) -> Array:
        found = np.zeros(len(d.kinds))
        for kind, rows in _by_kind(d):
            if kind in held:
                tree, times = held[kind]
                found[rows] = times[tree.query(d.features[rows][:, _SHAPE])[1]]
        return found

    return answer


def _forests(data: Columns, latency: Array) -> KernelTimes:
    """A random forest of times for each kind, on shape features; 0 of a kind that was not measured."""
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
