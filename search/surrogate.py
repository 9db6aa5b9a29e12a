"""A Gaussian process over architectures, for dozens of observations and thousands of candidates.

Kernel, on the three views of `encoding` (d1: half the L1 distance of places, d2: Euclidean distance of counts,
d3: difference of log costs):

    k = w1 exp(-d1 / l1) + w2 exp(-d2^2 / 2 l2^2) + w3 exp(-d3^2 / 2 l3^2) + noise                    (1)

Its settings are not optimised but averaged over: of a random set, the likeliest few, each weighed by its marginal
likelihood with the variance profiled out, and the set is drawn anew for every proposal. With ten observations
many settings are nearly as likely as the best one, and a search that believes one too soon gets stuck.

Accuracies are warped before (2), since a search is about differences among the best and a few networks that
learn nothing would otherwise set the scale:

    z = -ln( (y_max - y) / (y_max - median) + 0.3 ),  then standardised                              (2)

C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", 2006, alg. 2.1 and eq. 5.8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist
from scipy.stats import norm

from hwcost.search.encoding import Views

Array = NDArray[np.float64]
_SETTINGS = 64
_KEPT = 8  # settings that are averaged over
_OFFSET = 0.3


def warp(y: Array) -> Array:
    """Eq. (2); larger is better before and after; all zeros where all y are equal."""
    scale = float(y.max() - np.median(y)) or float(y.max() - y.min())
    if scale <= 0:
        return np.zeros_like(y)
    z = -np.log((y.max() - y) / scale + _OFFSET)
    return np.asarray((z - z.mean()) / (z.std() or 1.0))


@dataclass(frozen=True, slots=True)
class Settings:
    """Weights and lengths of eq. (1)."""

    weights: tuple[float, float, float]
    lengths: tuple[float, float, float]
    noise: float


def settings(rng: np.random.Generator, places: int, counted: int) -> list[Settings]:
    """Random settings for spaces of so many parameters, of which `counted` share their choices."""
    return [
        Settings(
            (rng.choice([0.2, 0.5, 1.0]), rng.choice([0.0, 0.2, 0.5, 1.0]), rng.choice([0.0, 0.2, 0.5, 1.0])),
            (
                rng.choice([1.0, 2.0, 4.0, 8.0]) * max(places, 1) / 6,
                rng.choice([1.0, 2.0, 4.0]) * math.sqrt(max(counted, 1) / 6),
                rng.choice([0.3, 1.0, 2.0]),
            ),
            rng.choice([1e-4, 1e-3, 1e-2, 5e-2]),
        )
        for _ in range(_SETTINGS)
    ]


class Surrogate:
    """The process, fitted to `z` (zero mean) at the architectures `seen`."""

    def __init__(self, seen: Views, z: Array, candidates: list[Settings]) -> None:
        distances = _distances(seen, seen)
        fits = [fit for s in candidates if (fit := _fit(distances, z, s)) is not None]
        if not fits:
            raise ValueError(
                f"a surrogate needs settings under which its kernel is positive, but got {len(candidates)}"
            )
        self._seen = seen
        self._fits = sorted(fits, key=lambda fit: -fit[0])[:_KEPT]

    def expect(self, what: Callable[[Array, Array], Array], at: Views) -> Array:
        """Average over settings of `what`(mean, standard deviation of z) at other architectures, all [n]."""
        distances = _distances(at, self._seen)
        weights = np.exp([fit[0] - self._fits[0][0] for fit in self._fits])
        parts = [w * what(*_predict(distances, fit)) for w, fit in zip(weights, self._fits, strict=True)]
        return np.asarray(sum(parts) / weights.sum())


def _distances(a: Views, b: Views) -> tuple[Array, Array, Array]:
    return (
        cdist(a.places, b.places, "cityblock") / 2,
        cdist(a.counts, b.counts, "sqeuclidean") if a.counts.shape[1] else np.zeros((len(a.cost), len(b.cost))),
        cdist(a.cost, b.cost, "sqeuclidean"),
    )


def _kernel(d: tuple[Array, Array, Array], s: Settings) -> Array:
    """Eq. (1) without the noise."""
    (w1, w2, w3), (l1, l2, l3) = s.weights, s.lengths
    return np.asarray(w1 * np.exp(-d[0] / l1) + w2 * np.exp(-d[1] / (2 * l2**2)) + w3 * np.exp(-d[2] / (2 * l3**2)))


_Fit = tuple[float, Settings, float, Array, Array, float]  # likelihood, settings, scale, factor, weights, variance


def _predict(d: tuple[Array, Array, Array], fit: _Fit) -> tuple[Array, Array]:
    """Mean and standard deviation at architectures of these distances to the seen ones."""
    _, s, scale, chol, alpha, variance = fit
    k = _kernel(d, s) / scale
    solved = solve_triangular(chol, k.T, lower=True)
    left = np.maximum(1.0 - (solved**2).sum(axis=0), 1e-9)
    return k @ alpha, np.sqrt(left * variance)


def _fit(d: tuple[Array, Array, Array], z: Array, s: Settings) -> _Fit | None:
    """Log marginal likelihood of one setting, and what predictions need; None where the kernel is singular."""
    scale = float(sum(s.weights))
    n = len(z)
    try:
        chol = np.linalg.cholesky(_kernel(d, s) / scale + (s.noise + 1e-8) * np.eye(n))
    except np.linalg.LinAlgError:
        return None
    half = solve_triangular(chol, z, lower=True)
    variance = max(float(half @ half) / n, 1e-9)
    likelihood = -0.5 * n * math.log(variance) - float(np.log(chol.diagonal()).sum())
    return likelihood, s, scale, np.asarray(chol, dtype=float), solve_triangular(chol.T, half), variance


def expected_improvement(mean: Array, deviation: Array, best: Array | float) -> Array:
    """E max(z - best, 0) for z ~ N(mean, deviation^2)."""
    gain = (mean - best) / deviation
    return np.asarray(deviation * (gain * norm.cdf(gain) + norm.pdf(gain)))
