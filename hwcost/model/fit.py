"""Fitting: from measurements to residual, overhead, errors, and an account of accuracy.

Every reported error is that of networks which the fit did not see: five folds, split by network, and for each fold the
whole fit is made anew without it. The width of the intervals is calibrated on the same predictions, so that the share
of these networks inside them is the stated one by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwcost.measure.arrays import Flat
from hwcost.measure.clock import quiet_interpreter
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.errors import calibrated, errors_by_kind, own_error, parts_of_error, with_drift
from hwcost.model.features import Target
from hwcost.model.intervals import Errors, interval_of
from hwcost.model.overhead import Overhead, fit_overhead
from hwcost.model.residual import Residual
from hwcost.model.rows import FOLDS, Rows, folds_of, rows_of, take
from hwcost.model.trees import Settings, one_thread

Array = NDArray[np.float64]

_TREES_ERR = 0.04  # log error of the trees: a kernel that was measured more precisely than this counts little more
_BETWEEN = 1.5  # largest factor by which kernels are scaled, up or down, to sum to the time of a whole run


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fit gives."""

    residual: Residual
    overhead: Overhead
    errors: Errors
    held_out: Accuracy | None = None  # on networks that the fits of the cross-validation did not see


def fit(
    flat: Flat,
    target: Target,
    settings: Settings,
    prior: Residual | None = None,
    known: tuple[Errors, Accuracy | None] | None = None,
) -> Fitted:
    """Cross-validate, then fit on everything.

    Args:
        flat: the measurements.
        target: what they were taken on.
        settings: of the trees.
        prior: what other measurements taught, to be refined.
        known: errors and accuracy of an earlier cross-validation of the same data, which then is not made again.
    """
    with quiet_interpreter():  # garbage collection would walk through all kernels again and again
        rows = rows_of(flat, target)
        errors, account = known or _cross_validate(flat, rows, settings, prior)
        residual, overhead = _fit_on(rows, np.ones(len(rows.total), dtype=bool), settings, prior)
    return Fitted(residual, overhead, errors, account)


def _cross_validate(flat: Flat, rows: Rows, settings: Settings, prior: Residual | None) -> tuple[Errors, Accuracy]:
    from joblib import Parallel, delayed

    folds = folds_of(flat.names, settings.seed)
    predicted_row = np.zeros_like(rows.latency)
    predicted = np.zeros_like(rows.total)
    known = np.zeros(len(rows.latency), dtype=bool)

    def leave_out(fold: int) -> None:
        train = folds != fold
        residual, overhead = _fit_on(rows, train, settings, prior)
        found = residual.predict(rows.data)
        times, test_rows = found.latency[rows.kernel], ~train[rows.network]
        known[test_rows] = found.known[rows.kernel][test_rows]
        predicted_row[test_rows] = overhead.kernels(times[test_rows])
        predicted[~train] = _networks(times, rows, overhead)[~train]

    with one_thread():  # for the trees of each fold, since the folds run beside one another
        Parallel(n_jobs=-1, require="sharedmem")(delayed(leave_out)(fold) for fold in range(FOLDS))
    sigma = errors_by_kind(rows, predicted_row, known)
    own = own_error(rows, predicted_row, sigma, known)
    unknown = np.bincount(rows.network, predicted_row * ~known, len(predicted)) / np.maximum(
        np.bincount(rows.network, predicted_row, len(predicted)), 1e-12
    )
    error = np.log(rows.total / predicted)
    common, borne, shared = parts_of_error(error, own, unknown)
    z, shared = calibrated(error, np.hypot(common, borne * own), unknown, shared)
    errors = Errors({kind: borne * s for kind, s in sigma.items()}, with_drift(common, z), shared, z, 1.0 / borne)
    low, high = interval_of(predicted, errors, borne * own, shared * unknown)
    return errors, account_of(flat.names, predicted, low, high, flat.latency, flat.spread)


def _fit_on(
    rows: Rows, train: NDArray[np.bool_], settings: Settings, prior: Residual | None
) -> tuple[Residual, Overhead]:
    """Residual on the kernels of the training networks, overhead on the networks themselves.

    The time of a kernel that several networks hold is the geometric mean over these, weighted by the inverse square of
    their spreads. Its weight in the fit of the residual is sqrt(s / v), with s the sum of its shares of their times,
    and v the variance of that mean plus that of the trees.
    """
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
    residual = Residual.fit(
        take(rows.data, known), np.exp(mean_log), weight / weight.mean(), holds[known].astype(float),
        settings=settings, prior=prior,
    )  # fmt: skip
    if not whole.any():
        return residual, Overhead()
    times = residual.predict(rows.data).latency[rows.kernel]
    return residual, fit_overhead(times, rows.network, rows.calls, rows.total, whole, rows.spread)


def _as_they_ran(rows: Rows, whole: NDArray[np.bool_]) -> Array:
    """Times of kernels (s), [rows], scaled network by network so that the law of a network gives its measured latency.

    A profile tells well which share of a network's time each kernel has. How long the network takes is better told by
    its whole runs: there are more of them, nothing is timed inside them, and during the profile the caches may have
    been in another state, or another tenant of the machine busier.
    """
    if not whole.any():
        return rows.latency
    overhead = fit_overhead(rows.latency, rows.network, rows.calls, rows.total, whole, rows.spread)
    composed = np.bincount(rows.network, overhead.kernels(rows.latency), len(rows.total))
    factor = np.clip((rows.total - overhead.beside(rows.calls)) / composed, 1 / _BETWEEN, _BETWEEN)
    scaled: Array = rows.latency * np.where(rows.lone, 1.0, factor)[rows.network]
    return scaled


def _networks(times: Array, rows: Rows, overhead: Overhead) -> Array:
    """Latency of each network (s), [networks], from the times of its kernels in context, [rows]."""
    n = len(rows.total)
    whole = np.bincount(rows.network, overhead.kernels(times), n) + overhead.beside(rows.calls)
    return np.where(rows.lone, np.bincount(rows.network, times, n), whole)


def account_of(
    names: Sequence[str], predicted: Array, low: Array, high: Array, measured: Array, spread: Array
) -> Accuracy:
    """Predictions (s) beside what was measured (s), each of length [networks]."""
    times = (x.tolist() for x in (predicted, low, high, measured, spread))
    return Accuracy(
        tuple(
            Comparison(target=name, predicted=middle, low=least, high=most, measured=found, spread=clock)
            for name, middle, least, most, found, clock in zip(names, *times, strict=True)
        )
    )
