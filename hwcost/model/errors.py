"""Intervals: what networks that a fit did not see tell of its errors.

A kernel's error is that of its kind, and less where it was measured itself. Networks bear a share of their kernels'
errors, since a clock that charges one too much charges others too little, and two errors besides: one that all kernels
of a network share, and one that those share which were not measured. From these comes a standard error, and from the
shares of networks that lie inside how many of them an interval is. They were measured in the hours of the others, so
what campaigns of different hours differ by comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from hwcost.measure.statistics import DRIFT
from hwcost.model.residual import known_as

if TYPE_CHECKING:
    from hwcost.model.fit import Rows

Array = NDArray[np.float64]

_QUANTILE = 0.9
_Z = 1.645  # half-width of a 90 % interval of a normal error
_FEW = 10  # networks that weigh as much as what is expected of them
_ENOUGH = 10  # errors from which a spread is estimated
_TELLING = 50  # networks of a sort that tell which share of it is inside an interval
_MOSTLY = 0.2  # of the time in unmeasured kernels, up to which a network counts as one of measured kernels


def errors_by_kind(rows: Rows, predicted: Array, known: NDArray[np.bool_]) -> dict[str, float]:
    """Standard error of log latency of each kind, and of its kernels that were measured themselves. A kernel counts
    as much as it weighs in its network: a kind's many short ones, which clocks round, say little of its long ones."""
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
    """Standard deviation from the middle 80 %, so that one stall does not rule."""
    low, high = np.quantile(error, [0.1, 0.9], weights=weight, method="inverted_cdf")
    return float(max(high - low, 0.01) / 2.563)  # 2 x 1.2816 standard deviations


def own_error(rows: Rows, predicted: Array, sigma: Mapping[str, float], known: NDArray[np.bool_]) -> Array:
    """[networks] standard error that comes from single kernels; equal kernels share theirs."""
    kinds = [rows.data.kinds[k] for k in rows.kernel]
    names = [known_as(k) if is_known else k for k, is_known in zip(kinds, known, strict=True)]
    by_kernel = np.array([sigma.get(n, sigma[k]) for n, k in zip(names, kinds, strict=True)]) * predicted
    count = len(rows.data.kinds)
    pair = rows.network * count + rows.kernel
    unique, inverse = np.unique(pair, return_inverse=True)
    together = np.bincount(inverse, by_kernel)
    n = len(rows.total)
    variance = np.bincount(unique // count, together**2, n)
    return np.asarray(np.sqrt(variance) / np.bincount(rows.network, predicted, n))


def parts_of_error(error: Array, own: Array, unknown: Array) -> tuple[float, float, float]:
    """(common, borne, shared) such that a network's standard error is

        sqrt(common^2 + (borne * own)^2 + (shared * unknown)^2),           (2)

    `own` that of its kernels if they erred apart, `unknown` the share of its time in kernels that were not measured.
    Intervals of that width have the least mean interval score (Gneiting and Raftery, JASA 102, 2007, eq. 43), the sum
    of an interval's width and of a penalty for what it misses. A few networks keep near `borne` = 1; unless both
    networks of measured and of other kernels are there, nothing is known of `shared`.
    """
    of_known = unknown < _MOSTLY
    told = min(of_known.sum(), (~of_known).sum()) >= _ENOUGH
    size = max(float(np.median(np.hypot(error, own))), 1e-3)

    def parts(logs: Array) -> tuple[float, float, float]:
        common, borne, shared = np.exp(np.clip(logs, -5.0, 5.0))
        return float(size * common), float(borne), float(size * shared) if told else 0.0

    def score(logs: Array) -> float:
        common, borne, shared = parts(logs)
        half = _Z * np.sqrt(common**2 + (borne * own) ** 2 + (shared * unknown) ** 2)
        missed = np.maximum(np.abs(error) - half, 0.0)
        return float(np.mean(half + missed / (1 - _QUANTILE)) / size + _FEW / len(error) * logs[1] ** 2)

    return parts(minimize(score, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6}).x)


def calibrated(error: Array, known: Array, unknown: Array, shared: float) -> tuple[float, float]:
    """z and `shared` with which the stated share is inside, of networks of measured kernels and of the others.

    One z for both would state too much of the former, whose errors are nearer to normal, and too little of the latter.

    Args:
        error: of log latency, [networks].
        known: standard error without what unmeasured kernels share, [networks].
        unknown: share of the time in kernels that were not measured, [networks].
        shared: of eq. (2); kept where either sort of network is too rare to tell.
    """
    of_known = unknown < _MOSTLY
    if min(of_known.sum(), (~of_known).sum()) < _TELLING:
        return _conformal(np.abs(error) / np.hypot(known, shared * unknown)), shared
    z = _conformal((np.abs(error) / np.hypot(known, shared * unknown))[of_known])
    # an error is inside from this much on: z^2 (known^2 + (shared * unknown)^2) = error^2
    needed = np.sqrt(np.maximum((error / z) ** 2 - known**2, 0.0))[~of_known] / unknown[~of_known]
    return z, _conformal(needed)


def with_drift(common: float, z: float) -> float:
    """The error that all kernels of a network share, so that z of it covers the drift between campaigns
    (`hwcost.measure.statistics`) too.

    Of 494 networks of `mbconv` and `tiny-cnn`, held out fold by fold of a torch-eager fit and measured again in two
    hours of the next day, 1.5 % leaves 86 % inside, and of a fit on those two hours, held to the night before, 94 %.
    Without it they are 83 and 91 %, with 2.5 % they are 90 and 96 %.
    """
    return float(np.hypot(common, DRIFT / z)) if z > 0 else common


def _conformal(score: Array) -> float:
    """The score that the stated share of networks keeps below."""
    rank = min(int(np.ceil((len(score) + 1) * _QUANTILE)), len(score)) - 1
    return float(np.sort(score)[rank])
