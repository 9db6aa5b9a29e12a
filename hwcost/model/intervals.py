"""The error of an estimate, and the interval that follows from it.

Errors of different kernels are partly the same error: a machine that is faster than believed is faster on all of them.
So the standard error of the log of a sum of kernels, which have shares w_i of its time, has three parts,

    s^2 = s_common^2 + (sum_i w_i s_shared,i)^2 + sum_k (sum_(i of k) w_i s_i)^2.                        (1)

s_common is an error that all kernels of a network have in common, s_shared one that those of them have in common which
were not measured themselves. s_i is a kernel's own error, by its kind, and less where it was measured itself; equal
kernels k have the same own error, others err apart. The interval of a latency t is t * exp(+-z s).

s_i is what a *network* bears of a kernel's own error: a profile that charges one kernel too much charges others too
little. A kernel by itself errs more, by the factor `Errors.alone`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """What cross-validation found; a model file keeps it, since it takes five fits."""

    sigma: Mapping[str, float] = field(default_factory=dict)  # s_i by kind, and under `known_as` of it
    common: float = 0.0  # s_common
    shared: float = 0.0  # s_shared of kernels that were not measured themselves
    z: float = 0.0  # half-width of the interval in standard errors
    alone: float = 1.0  # alone * s_i is the own error of a kernel by itself, inside the measured range


def parts_of_sums(
    which: NDArray[np.integer], same: NDArray[np.integer], time: Array, sigma: Array, shared: Array, sums: int
) -> tuple[Array, Array]:
    """The second and third part of eq. (1) for several sums of kernels at once, each as a standard error.

    Args:
        which: sum that each kernel belongs to, [kernels].
        same: a number that equal kernels share, [kernels].
        time: of each kernel (s), [kernels].
        sigma: own error of each, [kernels].
        shared: error of each that it shares with all kernels which were not measured, [kernels].
        sums: how many sums there are.

    Returns:
        (own, shared): relative standard errors, [sums]; 0 for sums without any time.
    """
    total = np.bincount(which, time, sums)
    total = np.where(total > 0, total, 1.0)
    kinds = int(same.max(initial=0)) + 1
    pair, place = np.unique(which.astype(np.int64) * kinds + same, return_inverse=True)
    together = np.bincount(place.reshape(-1), time * sigma, len(pair))
    own = np.sqrt(np.bincount(pair // kinds, together**2, sums)) / total
    return own, np.bincount(which, time * shared, sums) / total


def interval_of(latency: Array, errors: Errors, own: Array | float, shared: Array | float = 0.0) -> tuple[Array, Array]:
    """(low, high) of latencies whose own and shared relative errors are given, eq. (1)."""
    spread = np.exp(errors.z * np.sqrt(errors.common**2 + np.square(own) + np.square(shared)))
    return latency / spread, latency * spread
