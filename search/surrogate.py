"""A Gaussian process over architectures: it predicts the metric of thousands of candidates from dozens of trainings.

The kernel is a sum over the four views of `encoding`. With d1 half the L1 distance of values, d2 the Euclidean distance
of counts, d3 the difference of log costs and d4 the Euclidean distance of features:

    k = w1 exp(-d1 / l1) + sum over i = 2, 3, 4 of wi exp(-di^2 / 2 li^2) + noise,   sum of wi = 1     (1)

The settings of the kernel, that is the weights w, the lengths l and the noise, are not optimised. Predictions are
averages over the likeliest few of a random set, weighted by their marginal likelihood with the variance of the process
at its maximum likelihood. The set is drawn anew for each proposal. With ten observations many settings are nearly as
likely as the best ones, and a search that commits to one of them gets stuck.

Metrics y are transformed first. A search is about differences among the best, but a few networks that learn nothing
would set the scale:

    z = -ln( (y_max - y) / (y_max - median) + 0.3 ),  then standardised                              (2)

C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", 2006, alg. 2.1 and eq. 5.8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from hwcost.search.encoding import Views

Array = NDArray[np.float64]
_SETTINGS = 64  # random settings of which the likeliest are taken
_KEPT = 8  # settings that are averaged over, at most
_NEGLIGIBLE = 1e-3  # a setting of a likelihood below this, relative to the likeliest one's, is left out
_JITTER = 1e-8  # added to the kernel's diagonal for the Cholesky factorisation
_OFFSET = 0.3  # of eq. (2); the smaller, the more the very best are spread


def warp(y: Array) -> Array:
    """z of eq. (2), in which larger is better, as in y; zeros where all y are equal."""
    scale = float(y.max() - np.median(y)) or float(y.max() - y.min())
    if scale <= 0:
        return np.zeros_like(y)
    z = -np.log((y.max() - y) / scale + _OFFSET)
    return np.asarray((z - z.mean()) / (z.std() or 1.0))


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the kernel, eq. (1): a weight and a length for each view, and the noise."""

    weights: tuple[float, float, float, float]
    lengths: tuple[float, float, float, float]
    noise: float


def settings(rng: np.random.Generator, views: Views) -> list[Settings]:
    """Random settings for architectures with these views; a view without columns gets weight 0."""
    counted, featured = views.counts.shape[1], views.features.shape[1]
    weights = (
        rng.choice([0.2, 0.5, 1.0], _SETTINGS),
        rng.choice([0.0, 0.2, 0.5, 1.0], _SETTINGS) * (counted > 0),
        rng.choice([0.0, 0.2, 0.5, 1.0], _SETTINGS),
        rng.choice([0.0, 0.5, 1.0, 2.0], _SETTINGS) * (featured > 0),
    )
    lengths = (
        rng.choice([1.0, 2.0, 4.0, 8.0], _SETTINGS) * max(views.parameters, 1) / 6,
        rng.choice([1.0, 2.0, 4.0], _SETTINGS) * math.sqrt(max(counted, 1) / 6),
        rng.choice([0.3, 1.0, 2.0], _SETTINGS),
        rng.choice([0.5, 1.0, 2.0, 4.0], _SETTINGS) * math.sqrt(max(featured, 1) / 6),
    )
    noises = rng.choice([1e-4, 1e-3, 1e-2, 5e-2], _SETTINGS)
    columns = np.column_stack([*weights, *lengths, noises]).tolist()
    return [Settings(tuple(c[:4]), tuple(c[4:8]), c[8]) for c in columns]


class Surrogate:
    """The Gaussian process.

    Args:
        seen: views of the n architectures that were trained.
        z: their metrics [n] after eq. (2), which have mean 0.
        candidates: settings of the kernel, of which the likeliest are averaged over.
    """

    def __init__(self, seen: Views, z: Array, candidates: Sequence[Settings]) -> None:
        similar = _Similarity(seen, seen)
        n = len(z)
        kernels = np.stack([similar(s) + (s.noise + _JITTER) * np.eye(n) for s in candidates])
        factors = np.linalg.cholesky(kernels)  # [settings, n, n]
        solved = np.linalg.solve(kernels, np.broadcast_to(z[:, None], (len(kernels), n, 1)))[..., 0]
        variances = np.maximum(solved @ z / n, 1e-9)  # of maximum likelihood
        half_log_determinants = np.log(factors.diagonal(axis1=1, axis2=2)).sum(axis=1)
        likelihood = -0.5 * n * np.log(variances) - half_log_determinants  # its logarithm, up to a constant
        kept = np.argsort(-likelihood, kind="stable")[:_KEPT]
        weights = np.exp(likelihood[kept] - likelihood[kept[0]])
        self._seen = seen
        self._fits = [
            _Fit(float(w), candidates[i], factors[i], solved[i], float(variances[i]))
            for w, i in zip(weights, kept, strict=True)
            if w >= _NEGLIGIBLE
        ]

    def expect(self, what: Callable[[Array, Array], Array], at: Views) -> Array:
        """Expected value of a function of the posterior at m other architectures, over the settings.

        Args:
            what: (mean [m], standard deviation [m]) of z -> [m].
            at: views of the architectures.
        """
        similar = _Similarity(at, self._seen)
        parts = [fit.weight * what(*fit.predict(similar(fit.settings))) for fit in self._fits]
        return np.asarray(sum(parts) / sum(fit.weight for fit in self._fits))


@dataclass(frozen=True, slots=True)
class _Fit:
    """The posterior for one setting."""

    weight: float  # its likelihood relative to the likeliest setting's
    settings: Settings
    factor: Array  # [n, n], lower Cholesky factor of the kernel of the n trained architectures
    solved: Array  # [n], kernel^-1 z
    variance: float  # of the process

    def predict(self, k: Array) -> tuple[Array, Array]:
        """Mean [m] and standard deviation [m] of z at architectures with kernel `k` [m, n] to the trained ones."""
        whitened = solve_triangular(self.factor, k.T, lower=True, check_finite=False)
        left = np.maximum(1.0 - np.einsum("ij,ij->j", whitened, whitened), 1e-9)
        return k @ self.solved, np.sqrt(left * self.variance)


class _Similarity:
    """The kernel of eq. (1), without the noise, between two sets of architectures.

    Many settings have the same length for a view, so each term is computed once for each length.
    """

    def __init__(self, a: Views, b: Views) -> None:
        self._distances = (
            cdist(a.values, b.values, "cityblock") / 2,
            *(_squared(x, y) / 2 for x, y in ((a.counts, b.counts), (a.cost, b.cost), (a.features, b.features))),
        )
        self._terms: dict[tuple[int, float], Array] = {}  # (view, length) -> the term without its weight

    def __call__(self, s: Settings) -> Array:
        """For settings `s`, [a, b]."""
        total = sum(s.weights)
        terms = [w / total * self._term(i, s.lengths[i]) for i, w in enumerate(s.weights) if w]
        return np.asarray(sum(terms))

    def _term(self, view: int, length: float) -> Array:
        key = (view, length)
        if key not in self._terms:
            scale = length if view == 0 else length**2
            self._terms[key] = np.exp(-self._distances[view] / scale)
        return self._terms[key]


def _squared(a: Array, b: Array) -> Array:
    """Squared Euclidean distances between the rows of two arrays; zeros where they have no columns."""
    return cdist(a, b, "sqeuclidean") if a.shape[1] else np.zeros((len(a), len(b)))


def expected_improvement(mean: Array, deviation: Array, best: Array | float) -> Array:
    """E max(z - best, 0) for z ~ N(mean, deviation^2)."""
    gain = (mean - best) / deviation
    return np.asarray(deviation * (gain * ndtr(gain) + np.exp(-(gain**2) / 2) / math.sqrt(2 * math.pi)))
