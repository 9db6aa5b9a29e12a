"""The law of a network: how the times of its kernels add up to its latency.

    t(network) = sum_k max(scale * t_k + per_kernel, 0.1 * scale * t_k) + per_call * calls + fixed       (1)

t_k is the time of kernel k in context. The four numbers are a runtime's overhead, fitted on whole networks.
`per_kernel` is mostly below 0, because a kernel that is timed is also charged with reading the clock; 0.1 keeps a
short kernel from being predicted to take no time. `calls` counts the operator calls, and whatever else the runtime
calls. A block of a network follows the same law without `fixed`, which a network pays once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_LEAST = 0.1  # of a kernel's time remains, however much of it timing added
_PASSES = 3  # of the fit
_INSTRUMENT = (-6e-6, 3e-6)  # s: bounds of `per_kernel`
_PREFER_CALLS = 1e4  # 1/s: where every call is a kernel, so that data cannot tell them apart, the time is the call's
_ERROR = 0.04  # relative error of the law: networks measured more precisely than this count no more


@dataclass(frozen=True, slots=True)
class Overhead:
    """The four numbers of eq. (1); times in s."""

    scale: float = 1.0
    per_call: float = 0.0
    fixed: float = 0.0
    per_kernel: float = 0.0

    def kernels(self, times: Array, least: Array | float = 0.0) -> Array:
        """What kernels with these times in context contribute (s); none less than `least` (s)."""
        ran = self.scale * times
        return np.maximum(np.maximum(ran + self.per_kernel, _LEAST * ran), least)

    def calls(self, calls: Array) -> Array:
        """What so many calls contribute (s); without `fixed`, as in a block."""
        return self.per_call * calls

    def beside(self, calls: Array) -> Array:
        """The part of the time (s) of networks with so many calls that no kernel explains."""
        return self.per_call * calls + self.fixed

    def slower(self, factor: float) -> Overhead:
        """Of a target on which everything takes `factor` times as long."""
        return Overhead(*(factor * x for x in (self.scale, self.per_call, self.fixed, self.per_kernel)))


def fit_overhead(
    times: Array, network: Ints, calls: Array, total: Array, use: NDArray[np.bool_], spread: Array | None = None
) -> Overhead:
    """Eq. (1) from measured networks. Which kernels the floor of 0.1 holds follows from the solution before.

    Args:
        times: of kernels in context (s), [kernels].
        network: which network each kernel is in, [kernels].
        calls: of each network, [networks].
        total: time of each network (s), [networks].
        use: the networks to fit on, [networks].
        spread: of each network's time, [networks]; all count alike where none is given.
    """
    n, found = len(total), Overhead()
    weight = np.ones(n) if spread is None else 1.0 / np.hypot(1.0, spread / _ERROR)
    for _ in range(_PASSES):
        ran = found.scale * times
        free = ran + found.per_kernel > _LEAST * ran
        sums = np.bincount(network, np.where(free, times, _LEAST * times), n).astype(float)
        count = np.bincount(network, free, n).astype(float)
        found = _fit_overhead(sums[use], calls[use], count[use], total[use], weight[use])
    return found


def _fit_overhead(sums: Array, calls: Array, kernels: Array, total: Array, weight: Array) -> Overhead:
    """Least squares of relative errors of eq. (1) within physical bounds; outliers are left out once."""
    from scipy.optimize import lsq_linear

    design = np.column_stack([sums, calls, np.ones_like(sums), kernels]) / total[:, None]
    keep = np.ones(len(total), dtype=bool)
    # lower and upper bounds of scale, per_call (s), fixed (s) and per_kernel (s)
    bounds = ([0.5, 0.0, 0.0, _INSTRUMENT[0]], [2.0, 1e-3, 1e-2, _INSTRUMENT[1]])
    solution = np.array([1.0, 0.0, 0.0, 0.0])
    for _ in range(2):
        rows = np.vstack([design[keep] * weight[keep, None], [0.0, 0.0, 0.0, _PREFER_CALLS]])
        solution = lsq_linear(rows, np.append(weight[keep], 0.0), bounds=bounds).x
        error = design @ solution - 1.0
        scale = 1.4826 * np.median(np.abs(error - np.median(error)))
        keep = np.abs(error - np.median(error)) <= max(4 * scale, 1e-6)
    return Overhead(*map(float, solution))
