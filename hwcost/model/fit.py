"""Fitting: from measurements to residual, overhead, errors, and an honest account of accuracy.

Everything that is reported comes from networks that the fit did not see: five folds, split by
network, the whole pipeline fitted anew in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from hwcost.measure.arrays import Flat
from hwcost.measure.clock import quiet_interpreter
from hwcost.measure.statistics import DRIFT
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.errors import calibrated, errors_by_kind, own_error, parts_of_error, with_drift
from hwcost.model.features import Columns, Target, buckets, columns, reach_of, traffic_of
from hwcost.model.residual import Residual, Settings, one_thread

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
_INSTRUMENT = (-6e-6, 3e-6)  # s that a kernel timed in context may bear less or more than when nobody looks
_PREFER_CALLS = 1e4  # 1/s: where every call is a kernel, so that data cannot tell, the time is the call's
_PASSES = 3  # of the fit of overhead
_TREES_ERR = 0.04  # log error of the trees: more certain than this no kernel needs to be
_LEAST = 0.1  # of a kernel's time remains, however much of it timing added
_BETWEEN = 1.5  # times at most a whole run is taken to differ from what its kernels sum to


@dataclass(frozen=True, slots=True)
class Overhead:
    """What lies between kernels timed in context and a network that nobody watches.

        t(network) = sum_k max(scale * t_k + per_kernel, 0.1 * scale * t_k) + per_call * calls + fixed       (1)

    Times in s. `per_kernel` is mostly below 0: reading the clock takes time that the kernel is charged with.
    """

    scale: float = 1.0
    per_call: float = 0.0
    fixed: float = 0.0
    per_kernel: float = 0.0

    def kernels(self, times: Array, least: Array | float = 0.0) -> Array:
        """Times (s) of kernels as they run unwatched, none below `least`: the roofline of what nobody measured."""
        ran = self.scale * times
        return np.maximum(np.maximum(ran + self.per_kernel, _LEAST * ran), least)

    def beside(self, calls: Array) -> Array:
        """Time (s) of networks that no kernel explains."""
        return self.per_call * calls + self.fixed

    def slower(self, factor: float) -> Overhead:
        """Of a target on which everything takes `factor` times as long."""
        return Overhead(*(factor * x for x in (self.scale, self.per_call, self.fixed, self.per_kernel)))


@dataclass(frozen=True, slots=True)
class Errors:
    """What cross-validation found. It takes five fits, so a model file keeps it beside the data."""

    sigma: Mapping[str, float]  # standard error of log latency by kind, out of fold, as networks bear it
    common: float  # error that all kernels of a network share
    shared: float  # error that those kernels of a network share besides which were not measured themselves
    z: float  # half-width of the interval in standard errors
    held_out: Accuracy | None
    alone: float = 1.0  # times `sigma`: the error of a kernel by itself


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fit gives."""

    residual: Residual
    overhead: Overhead
    errors: Errors

    @property
    def sigma(self) -> Mapping[str, float]:
        """Standard error of log latency by kind, out of fold, as networks bear it."""
        return self.errors.sigma

    @property
    def alone(self) -> float:
        """How much more a kernel errs by itself: a profile that charges one too much charges others too little."""
        return self.errors.alone

    @property
    def common(self) -> float:
        """The error that all kernels of a network share."""
        return self.errors.common

    @property
    def shared(self) -> float:
        """The error that kernels which were not measured themselves share besides."""
        return self.errors.shared

    @property
    def z(self) -> float:
        """Half-width of the interval in standard errors."""
        return self.errors.z

    @property
    def held_out(self) -> Accuracy | None:
        """Accuracy on networks that the fit did not see."""
        return self.errors.held_out


@dataclass(frozen=True, slots=True)
class Rows:
    """All measured kernels: row -> network, row -> distinct kernel."""

    data: Columns  # of the distinct kernels
    kernel: Ints  # [rows]
    network: Ints  # [rows]
    latency: Array  # [rows] (s)
    total: Array  # [networks] measured latency (s)
    calls: Array  # [networks]
    spread: Array  # [networks] of the measured latency
    lone: NDArray[np.bool_]  # [networks] kernels measured by themselves: they say nothing of overhead


def fit(
    flat: Flat,
    target: Target,
    settings: Settings,
    prior: Residual | None = None,
    errors: Errors | None = None,
    rows: Rows | None = None,
) -> Fitted:
    """Cross-validate, unless the errors are known already, then fit on everything.

    `rows` are those of `flat`, where they were made already.
    """
    with quiet_interpreter():  # which would look again and again through all the kernels
        rows = rows or rows_of(flat, target)
        errors = errors or _cross_validate(flat, rows, settings, prior)
        residual, overhead = _fit_on(rows, np.ones(len(rows.total), dtype=bool), settings, prior)
    return Fitted(residual, overhead, errors)


def _cross_validate(flat: Flat, rows: Rows, settings: Settings, prior: Residual | None) -> Errors:
    folds = _folds(flat.names, settings.seed)
    predicted_row = np.zeros_like(rows.latency)
    predicted = np.zeros_like(rows.total)
    known = np.zeros(len(rows.latency), dtype=bool)

    def leave_out(fold: int) -> None:
        train = folds != fold
        with one_thread():  # each fold has one
            residual, overhead = _fit_on(rows, train, settings, prior)
            found = residual.predict(rows.data)
        times, test_rows = found.latency[rows.kernel], ~train[rows.network]
        known[test_rows] = found.known[rows.kernel][test_rows]
        predicted_row[test_rows] = overhead.kernels(times[test_rows])
        predicted[~train] = _compose(times, rows, overhead)[~train]

    Parallel(n_jobs=-1, require="sharedmem")(delayed(leave_out)(fold) for fold in range(FOLDS))
    sigma = errors_by_kind(rows, predicted_row, known)
    own = own_error(rows, predicted_row, sigma, known)
    unknown = np.bincount(rows.network, predicted_row * ~known, len(predicted)) / np.maximum(
        np.bincount(rows.network, predicted_row, len(predicted)), 1e-12
    )
    error = np.log(rows.total / predicted)
    common, borne, shared = parts_of_error(error, own, unknown)
    z, shared = calibrated(error, np.hypot(common, borne * own), unknown, shared)
    common = with_drift(common, z)
    spread = np.exp(z * np.sqrt(common**2 + (borne * own) ** 2 + (shared * unknown) ** 2))
    account = account_of(flat, predicted, predicted / spread, predicted * spread)
    return Errors({kind: borne * s for kind, s in sigma.items()}, common, shared, z, account, 1.0 / borne)


def rows_of(flat: Flat, target: Target) -> Rows:
    """Kernels that are alike in contexts that are alike become one, in the order in which they are met."""
    moved = np.array([traffic_of(kernel) for kernel in flat.kernels], dtype=float)
    traffic = np.bincount(flat.network, moved[flat.kernel], len(flat))
    reaches = np.array([reach_of(t, target.device) for t in traffic], dtype=np.int64)
    bucket, reach = buckets(flat.distance), reaches[flat.network]
    context = (flat.kernel * 128 + bucket + 1) * 128 + reach  # a number: distances have at most 63 bits
    _, first, which = np.unique(context, return_index=True, return_inverse=True)
    order = np.argsort(first)
    met = first[order]
    farthest = [(1 << b) - 1 if b > 0 else b for b in bucket[met].tolist()]
    pairs = [(flat.kernels[k], d) for k, d in zip(flat.kernel[met].tolist(), farthest, strict=True)]
    return Rows(
        columns(pairs, target, reach[met]),
        np.argsort(order)[which],
        flat.network,
        np.maximum(flat.time, 1e-9),
        flat.latency,
        flat.calls,
        np.clip(np.nan_to_num(flat.spread, nan=1.0), DRIFT, 1.0),
        flat.lone,
    )


def _folds(names: Sequence[str], seed: int) -> Ints:
    """The fold of each network; one that was measured twice is left out as one."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    folds = np.arange(len(numbers)) % FOLDS
    np.random.default_rng(seed).shuffle(folds)
    return folds[[numbers[name] for name in names]]


def _fit_on(
    rows: Rows, train: NDArray[np.bool_], settings: Settings, prior: Residual | None
) -> tuple[Residual, Overhead]:
    """Residual on the kernels of the training networks, overhead on the networks themselves. Of a kernel that several
    networks hold, each counts as its spread allows, and the more hold it, the more it is taken at their word."""
    use, whole = train[rows.network], train & ~rows.lone
    kernel, latency = rows.kernel[use], _as_they_ran(rows, whole)[use]
    n = len(rows.data.kinds)
    certainty = 1.0 / rows.spread[rows.network[use]] ** 2
    summed = np.bincount(kernel, certainty, n)
    known = np.flatnonzero(summed)
    mean_log = np.bincount(kernel, certainty * np.log(latency), n)[known] / summed[known]
    share = np.bincount(kernel, latency / rows.total[rows.network[use]], n)[known]
    weight = np.sqrt(share / (_TREES_ERR**2 + 1.0 / summed[known]))
    pairs = np.unique(kernel * len(rows.total) + rows.network[use])
    holds = np.bincount(pairs // len(rows.total), minlength=n)
    residual = Residual(settings, prior).fit(
        _take(rows.data, known), np.exp(mean_log), weight / weight.mean(), holds[known].astype(float)
    )
    times = residual.predict(rows.data).latency[rows.kernel]
    if not whole.any():
        return residual, Overhead()
    return residual, fit_overhead(times, rows.network, rows.calls, rows.total, whole, rows.spread)


def _as_they_ran(rows: Rows, whole: NDArray[np.bool_]) -> Array:
    """Times of kernels (s), [rows], each network's times a factor with which eq. (1) of `Overhead` gives what it took.

    What a profile tells well is how a network's time is shared out. How long that is, its whole runs tell better: there
    are more of them, nobody watches, and a profile may have met the caches, or another tenant, in another state.
    """
    if not whole.any():
        return rows.latency
    overhead = fit_overhead(rows.latency, rows.network, rows.calls, rows.total, whole, rows.spread)
    composed = np.bincount(rows.network, overhead.kernels(rows.latency), len(rows.total))
    factor = np.clip((rows.total - overhead.beside(rows.calls)) / composed, 1 / _BETWEEN, _BETWEEN)
    scaled: Array = rows.latency * np.where(rows.lone, 1.0, factor)[rows.network]
    return scaled


def fit_overhead(
    times: Array, network: Ints, calls: Array, total: Array, use: NDArray[np.bool_], spread: Array | None = None
) -> Overhead:
    """Eq. (1) of `Overhead` from networks; which kernels its floor holds follows from the last solution.

    Args:
        times: of kernels in context (s), [kernels].
        network: which network each kernel is in, [kernels].
        calls: of each network, [networks].
        total: time of each network (s), [networks].
        use: the networks to fit on, [networks].
        spread: of each network's time, [networks]; all count alike where none is given.
    """
    n, found = len(total), Overhead()
    weight = np.ones(n) if spread is None else 1.0 / np.hypot(1.0, spread / _TREES_ERR)
    for _ in range(_PASSES):
        ran = found.scale * times
        free = ran + found.per_kernel > _LEAST * ran
        sums = np.bincount(network, np.where(free, times, _LEAST * times), n).astype(float)
        count = np.bincount(network, free, n).astype(float)
        found = _fit_overhead(sums[use], calls[use], count[use], total[use], weight[use])
    return found


def _take(data: Columns, index: Ints) -> Columns:
    return replace(
        data,
        flops=data.flops[index],
        compute_time=data.compute_time[index],
        at_best=data.at_best[index],
        memory_time=data.memory_time[index],
        floor=data.floor[index],
        streams=data.streams[index],
        features=data.features[index],
        kinds=tuple(data.kinds[i] for i in index),
    )


def _fit_overhead(sums: Array, calls: Array, kernels: Array, total: Array, weight: Array) -> Overhead:
    """Least squares of relative errors of eq. (1) within physical bounds; outliers are left out once."""
    design = np.column_stack([sums, calls, np.ones_like(sums), kernels]) / total[:, None]
    keep = np.ones(len(total), dtype=bool)
    bounds = ([0.5, 0.0, 0.0, _INSTRUMENT[0]], [2.0, 1e-3, 1e-2, _INSTRUMENT[1]])
    solution = np.array([1.0, 0.0, 0.0, 0.0])
    for _ in range(2):
        rows = np.vstack([design[keep] * weight[keep, None], [0.0, 0.0, 0.0, _PREFER_CALLS]])
        solution = lsq_linear(rows, np.append(weight[keep], 0.0), bounds=bounds).x
        error = design @ solution - 1.0
        scale = 1.4826 * np.median(np.abs(error - np.median(error)))
        keep = np.abs(error - np.median(error)) <= max(4 * scale, 1e-6)
    return Overhead(*map(float, solution))


def _compose(times: Array, rows: Rows, overhead: Overhead) -> Array:
    n = len(rows.total)
    whole = np.bincount(rows.network, overhead.kernels(times), n) + overhead.beside(rows.calls)
    return np.where(rows.lone, np.bincount(rows.network, times, n), whole)


def account_of(flat: Flat, predicted: Array, low: Array, high: Array) -> Accuracy:
    """Predictions (s), [networks], beside what was measured."""
    times = (x.tolist() for x in (predicted, low, high, flat.latency, flat.spread))
    each = zip(flat.names, *times, strict=True)
    return Accuracy(
        tuple(
            Comparison(target=name, predicted=middle, low=least, high=most, measured=measured, spread=spread)
            for name, middle, least, most, measured, spread in each
        )
    )
