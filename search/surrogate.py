"""A Gaussian process over architectures, for dozens of observations and thousands of candidates.

Kernel, on the four views of `encoding` (d1: half the L1 distance of places, d2: Euclidean distance of counts,
d3: difference of log costs, d4: Euclidean distance of features):

    k = w1 exp(-d1 / l1) + sum over i = 2, 3, 4 of wi exp(-di^2 / 2 li^2) + noise,   sum of wi = 1     (1)

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from hwcost.search.encoding import Views

Array = NDArray[np.float64]
_SETTINGS = 64
_KEPT = 8  # settings that are averaged over
_NEGLIGIBLE = 1e-3  # likelihood, relative to the best setting's, below which a setting is left out
_JITTER = 1e-8
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
    """Weights and lengths of eq. (1), one for each view, and the noise."""

    weights: tuple[float, float, float, float]
    lengths: tuple[float, float, float, float]
    noise: float


def settings(rng: np.random.Generator, views: Views) -> list[Settings]:
    """Random settings; those of a view that tells nothing have no weight."""
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
    """The process, fitted to `z` (zero mean) at the architectures `seen`."""

    def __init__(self, seen: Views, z: Array, candidates: Sequence[Settings]) -> None:
        similar = _Similarity(seen, seen)
        n = len(z)
        kernels = np.stack([similar(s) + (s.noise + _JITTER) * np.eye(n) for s in candidates])
        factors = np.linalg.cholesky(kernels)  # [settings, n, n]
        solved = np.linalg.solve(kernels, np.broadcast_to(z[:, None], (len(kernels), n, 1)))[..., 0]
        variances = np.maximum(solved @ z / n, 1e-9)
        halves = np.log(factors.diagonal(axis1=1, axis2=2)).sum(axis=1)
        likelihood = -0.5 * n * np.log(variances) - halves
        kept = np.argsort(-likelihood, kind="stable")[:_KEPT]
        weights = np.exp(likelihood[kept] - likelihood[kept[0]])
        self._seen = seen
        self._fits = [
            _Fit(float(w), candidates[i], factors[i], solved[i], float(variances[i]))
            for w, i in zip(weights, kept, strict=True)
            if w >= _NEGLIGIBLE
        ]

    def expect(self, what: Callable[[Array, Array], Array], at: Views) -> Array:
        """Average over settings of `what`(mean, standard deviation of z) at other architectures, all [n]."""
        similar = _Similarity(at, self._seen)
        parts = [fit.weight * what(*fit.predict(similar(fit.settings))) for fit in self._fits]
        return np.asarray(sum(parts) / sum(fit.weight for fit in self._fits))


@dataclass(frozen=True, slots=True)
class _Fit:
    """One setting's posterior."""

    weight: float  # likelihood, relative to the best setting's
    settings: Settings
    factor: Array  # lower Cholesky factor of the kernel among the seen
    solved: Array  # kernel^-1 z
    variance: float

    def predict(self, k: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at architectures of these similarities to the seen ones."""
        whitened = solve_triangular(self.factor, k.T, lower=True, check_finite=False)
        left = np.maximum(1.0 - np.einsum("ij,ij->j", whitened, whitened), 1e-9)
        return k @ self.solved, np.sqrt(left * self.variance)


class _Similarity:
    """Eq. (1) without the noise, between two sets of architectures; settings share lengths, so each part is kept."""

    def __init__(self, a: Views, b: Views) -> None:
        self._distances = (
            cdist(a.places, b.places, "cityblock") / 2,
            *(_squared(x, y) / 2 for x, y in ((a.counts, b.counts), (a.cost, b.cost), (a.features, b.features))),
        )
        self._parts: dict[tuple[int, float], Array] = {}

    def __call__(self, s: Settings) -> Array:
        """[a, b]."""
        total = sum(s.weights)
        terms = [w / total * self._part(i, s.lengths[i]) for i, w in enumerate(s.weights) if w]
        return np.asarray(sum(terms))

    def _part(self, view: int, length: float) -> Array:
        known = self._parts.get((view, length))
        if known is None:
            scale = length if view == 0 else length**2
            known = self._parts[view, length] = np.exp(-self._distances[view] / scale)
        return known


def _squared(a: Array, b: Array) -> Array:
    return cdist(a, b, "sqeuclidean") if a.shape[1] else np.zeros((len(a), len(b)))


def expected_improvement(mean: Array, deviation: Array, best: Array | float) -> Array:
    """E max(z - best, 0) for z ~ N(mean, deviation^2)."""
    gain = (mean - best) / deviation
    return np.asarray(deviation * (gain * ndtr(gain) + np.exp(-(gain**2) / 2) / math.sqrt(2 * math.pi)))
