"""How good a search was, for benchmarks in which latency and metric of every architecture are known.

    regret              best metric within the budget, minus best metric that was trained within it (1)
    hypervolume ratio   area that the search's front dominates, over that of the true front         (2)

A front is the architectures that no other one dominates, that is, beats in latency (minimised) or metric (maximised)
without being worse in the other. Areas are taken in the plane of the two, up to a reference point of large latency and
small metric; architectures beyond it do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class ScoringError(ValueError):
    """Data that cannot be scored."""


def front(latency: ArrayLike, metric: ArrayLike) -> NDArray[np.intp]:
    """Indices of the architectures on the front, by rising latency; of equal architectures the first."""
    t, m = _pair(latency, metric)
    best, chosen = -np.inf, []
    for i in np.lexsort((-m, t)):
        if m[i] > best:
            best = m[i]
            chosen.append(i)
    return np.array(chosen, dtype=np.intp)


def hypervolume(latency: ArrayLike, metric: ArrayLike, reference: tuple[float, float]) -> float:
    """Area (s times the metric's unit) that the architectures dominate, up to the reference point (latency, metric)."""
    t, m = _pair(latency, metric)
    inside = (t < reference[0]) & (m > reference[1])
    t, m = t[inside], m[inside]
    order = front(t, m)
    ends = np.append(t[order][1:], reference[0])
    return float(((ends - t[order]) * (m[order] - reference[1])).sum())


def hypervolume_ratio(
    found: tuple[ArrayLike, ArrayLike],
    truth: tuple[ArrayLike, ArrayLike],
    *,
    budget: float | None = None,
    reference: tuple[float, float] | None = None,
) -> float:
    """Eq. (2), from 0 to 1.

    Args:
        found: latency (s) and metric of each architecture that the search trained.
        truth: latency (s) and metric of every architecture.
        budget: latency (s); architectures above it do not count. None counts all.
        reference: latency and metric of the reference point; None takes the budget, or the largest latency where there
            is none, and the smallest metric on the true front.

    Raises:
        ScoringError: no architecture is within the budget, or the true front is a single point.
    """
    t, m = _within(truth, budget)
    if reference is None:
        on_front = front(t, m)
        reference = (budget if budget is not None else float(t.max()), float(m[on_front].min()))
    total = hypervolume(t, m, reference)
    if total <= 0:
        raise ScoringError("the true front dominates no area: it is a single point, or lies beyond the reference")
    found_t, found_m = _pair(*found)
    keep = found_t <= (budget if budget is not None else np.inf)
    return hypervolume(found_t[keep], found_m[keep], reference) / total


def regret(
    found: tuple[ArrayLike, ArrayLike], truth: tuple[ArrayLike, ArrayLike], *, budget: float | None = None
) -> float:
    """Eq. (1), in the metric's unit; infinite where the search trained nothing within the budget.

    Arguments and errors are those of `hypervolume_ratio`.
    """
    _, m = _within(truth, budget)
    found_t, found_m = _pair(*found)
    keep = found_t <= (budget if budget is not None else np.inf)
    return float(m.max() - found_m[keep].max()) if keep.any() else np.inf


def regret_curve(
    found: tuple[ArrayLike, ArrayLike], truth: tuple[ArrayLike, ArrayLike], *, budget: float | None = None
) -> Array:
    """Regret after each training; `found` is in the order of the trainings."""
    t, m = _pair(*found)
    return np.array([regret((t[:i], m[:i]), truth, budget=budget) for i in range(1, len(t) + 1)])


def hypervolume_curve(
    found: tuple[ArrayLike, ArrayLike], truth: tuple[ArrayLike, ArrayLike], *, budget: float | None = None
) -> Array:
    """Hypervolume ratio after each training; `found` is in the order of the trainings."""
    t, m = _pair(*found)
    return np.array([hypervolume_ratio((t[:i], m[:i]), truth, budget=budget) for i in range(1, len(t) + 1)])


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, mean and largest of the regrets of several seeds."""
    v = np.asarray(values, dtype=float)
    return {"median": float(np.median(v)), "mean": float(v.mean()), "worst": float(v.max())}


def _pair(latency: ArrayLike, metric: ArrayLike) -> tuple[Array, Array]:
    t, m = np.asarray(latency, dtype=float), np.asarray(metric, dtype=float)
    if t.shape != m.shape or t.ndim != 1:
        raise ScoringError(f"latency and metric must be of one length, but got shapes {t.shape} and {m.shape}")
    return t, m


def _within(truth: tuple[ArrayLike, ArrayLike], budget: float | None) -> tuple[Array, Array]:
    t, m = _pair(*truth)
    keep = t <= (budget if budget is not None else np.inf)
    if not keep.any():
        raise ScoringError(f"no architecture is within the budget of {budget} s; the fastest takes {t.min()} s")
    return t[keep], m[keep]
