"""What cross-validation tells of a model's errors: the numbers of `hwcost.model.intervals`.

All of them are found on networks that were left out of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwcost.measure.statistics import COVERAGE, DRIFT, Z
from hwcost.model.intervals import parts_of_sums
from hwcost.model.residual import known_as
from hwcost.model.rows import Rows

Array = NDArray[np.float64]

_FEW = 10  # networks that weigh as much as the expectation that `borne` of eq. (2) is 1
_ENOUGH = 10  # errors, at least, from which a standard error is estimated
_TELLING = 50  # networks of each sort, at least, for intervals of the two sorts to be calibrated apart
_MOSTLY = 0.2  # share of the time in unmeasured kernels, below which a network counts as one of measured kernels


def errors_by_kind(rows: Rows, predicted: Array, known: NDArray[np.bool_]) -> dict[str, float]:
    """Standard error of log latency by kind, and under `known_as` of a kind, that of its kernels which were measured
    themselves, where there are enough of them.

    A kernel counts by its share of its network's time: the many short kernels of a kind, whose times the clock rounds,
    say little of its long ones.

    Args:
        rows: measured kernels.
        predicted: their times (s) by fits that did not see their networks, [rows].
        known: which of them those fits had measured in other networks, [rows].
    """
    error, share = np.log(rows.latency / predicted), rows.latency / rows.total[rows.network]
    kinds = np.array(rows.data.kinds)[rows.kernel]
    spread = {}
    for kind in map(str, np.unique(kinds)):
        of_kind = kinds == kind
        for name, which in ((kind, of_kind & ~known), (known_as(kind), of_kind & known)):
            if which.sum() >= _ENOUGH or (name == kind and not which.any()):
                use = which if which.any() else of_kind
                spread[name] = _standard(error[use], share[use])
        spread.setdefault(kind, _standard(error[of_kind], share[of_kind]))
    return spread


def _standard(error: Array, weight: Array | None = None) -> float:
    """Standard deviation of a normal error, from its middle 80 %, so that single stalls do not matter."""
    low, high = np.quantile(error, [0.1, 0.9], weights=weight, method="inverted_cdf")
    return float(max(high - low, 0.01) / 2.563)  # 2 x 1.2816 standard deviations


def own_error(rows: Rows, predicted: Array, sigma: Mapping[str, float], known: NDArray[np.bool_]) -> Array:
    """Standard error of each network's log latency that comes from its single kernels, [networks].

    Args:
        rows, predicted, known: as of `errors_by_kind`.
        sigma: what `errors_by_kind` returned.
    """
    kinds = [rows.data.kinds[k] for k in rows.kernel]
    names = [known_as(k) if is_known else k for k, is_known in zip(kinds, known, strict=True)]
    by_kernel = np.array([sigma.get(n, sigma[k]) for n, k in zip(names, kinds, strict=True)])
    none = np.zeros(len(by_kernel))
    return parts_of_sums(rows.network, rows.kernel, predicted, by_kernel, none, len(rows.total))[0]


def parts_of_error(error: Array, own: Array, unknown: Array) -> tuple[float, float, float]:
    """(common, borne, shared) such that a network's standard error is

        sqrt(common^2 + (borne * own)^2 + (shared * unknown)^2).           (2)

    `common` is an error of all networks alike, `borne` the share of its kernels' own errors that a network bears, and
    `shared` what unmeasured kernels err together.

    They are those whose intervals have the least mean interval score (Gneiting and Raftery, JASA 102, 2007, eq. 43),
    the sum of an interval's width and of a penalty for what it misses. With few networks `borne` stays near 1; `shared`
    is found only where there are networks of measured kernels and networks of others, and is 0 elsewhere.

    Args:
        error: of log latency, [networks].
        own: the standard error that single kernels cause if they err independently, [networks].
        unknown: share of the time in kernels that were not measured themselves, [networks].
    """
    from scipy.optimize import minimize

    of_known = unknown < _MOSTLY
    told = min(of_known.sum(), (~of_known).sum()) >= _ENOUGH
    size = max(float(np.median(np.hypot(error, own))), 1e-3)

    def parts(logs: Array) -> tuple[float, float, float]:
        common, borne, shared = np.exp(np.clip(logs, -5.0, 5.0))
        return float(size * common), float(borne), float(size * shared) if told else 0.0

    def score(logs: Array) -> float:
        common, borne, shared = parts(logs)
        half = Z * np.sqrt(common**2 + (borne * own) ** 2 + (shared * unknown) ** 2)
        missed = np.maximum(np.abs(error) - half, 0.0)
        return float(np.mean(half + missed / (1 - COVERAGE)) / size + _FEW / len(error) * logs[1] ** 2)

    return parts(minimize(score, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6}).x)


def calibrated(error: Array, known: Array, unknown: Array, shared: float) -> tuple[float, float]:
    """(z, shared) with which the stated share of networks lies inside its interval: z for those of measured kernels,
    and with this z, `shared` for the others.

    With one z for both, intervals of the former would be too wide, since their errors are nearer to normal, and those
    of the latter too narrow.

    Args:
        error: of log latency, [networks].
        known: standard error without what unmeasured kernels share, [networks].
        unknown: share of the time in kernels that were not measured, [networks].
        shared: of eq. (2); kept where there are too few networks of either sort to tell.
    """
    of_known = unknown < _MOSTLY
    if min(of_known.sum(), (~of_known).sum()) < _TELLING:
        return _conformal(np.abs(error) / np.hypot(known, shared * unknown)), shared
    z = _conformal((np.abs(error) / np.hypot(known, shared * unknown))[of_known])
    # an error is inside from this `shared` on: z^2 (known^2 + (shared * unknown)^2) = error^2
    needed = np.sqrt(np.maximum((error / z) ** 2 - known**2, 0.0))[~of_known] / unknown[~of_known]
    return z, _conformal(needed)


def with_drift(common: float, z: float) -> float:
    """The common error, widened so that z of it also covers the drift between campaigns (`hwcost.measure.statistics`):
    the networks of a cross-validation were measured in the same hours as those of the fit.

    Of 494 networks of `mbconv` and `tiny-cnn`, held out fold by fold of a torch-eager fit and measured again in two
    hours of the next day, a drift of 1.5 % leaves 86 % inside, and of a fit on those two hours, held to the night
    before, 94 %. Without it they are 83 and 91 %, with 2.5 % they are 90 and 96 %.
    """
    return float(np.hypot(common, DRIFT / z)) if z > 0 else common


def _conformal(score: Array) -> float:
    """The score below which the stated share of networks lies (split conformal prediction)."""
    rank = min(int(np.ceil((len(score) + 1) * COVERAGE)), len(score)) - 1
    return float(np.sort(score)[rank])
