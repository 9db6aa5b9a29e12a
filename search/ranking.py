"""Which candidate to train next: the one with the largest expected improvement, after a fit to what was trained.

With cost as a second objective, what improves is the area that the front dominates. The cost c of a candidate is known,
so its expected area improvement is a sum over levels u of the cost:

    a(x) = sum over cost levels u >= c(x) of EI( x; best metric trained with cost <= u )           (1)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from hwcost.search import surrogate
from hwcost.search.candidates import Candidate
from hwcost.search.encoding import Encoder, Views, features_of
from hwcost.search.protocols import Build

Array = NDArray[np.float64]
_LEVELS = 16  # cost levels of eq. (1)


class CachedViews:
    """Encodes the candidates of one objective, each once.

    Args:
        build: the objective's; where it is a space's method, the space gives the features.
    """

    def __init__(self, build: Build) -> None:
        self._features = features_of(build)
        self._distributions: dict[str, BaseDistribution] = {}
        self._restart()

    def _restart(self) -> None:
        """Forget all views, for an encoder of the parameters that are known now."""
        self._encode = Encoder(dict(self._distributions), self._features)
        self._row: dict[str, int] = {}  # key of an architecture -> its row in the views
        self._views: Views | None = None

    def add_parameters(self, candidates: Sequence[Candidate]) -> None:
        """Encode the parameters of these candidates too; parameters that were not added are ignored.

        In a conditional space each candidate has only some of the parameters. A new one makes all views anew.
        """
        new = {name: d for c in candidates for name, d in c.distributions.items() if name not in self._distributions}
        if new:
            self._distributions |= new
            self._restart()

    def __call__(self, candidates: Sequence[Candidate], device: int) -> Views:
        """The views of `candidates`, with their costs on one of the objective's devices."""
        new = list({c.judgement.key: c for c in candidates if c.judgement.key not in self._row}.values())
        if new:
            more = self._encode([c.params for c in new], np.ones(len(new)))
            self._row |= {c.judgement.key: len(self._row) + i for i, c in enumerate(new)}
            self._views = more if self._views is None else self._views + more
        assert self._views is not None
        rows = [self._row[c.judgement.key] for c in candidates]
        return self._views[rows].with_cost(costs_of(candidates, device))


def costs_of(candidates: Sequence[Candidate], device: int) -> Array:
    """The costs of candidates on a device, by its index in the objective; [n] in SI units."""
    return np.array([list(c.judgement.costs.values())[device] for c in candidates])


class Ranking:
    """The expected improvement of candidates, by a `Surrogate` that is fitted here.

    Args:
        views: has the parameters of all candidates below.
        trained: the candidates that were trained.
        values: their metrics, of which larger is better.
        running: candidates that are being trained; their metric is taken to be the mean.
        pool: candidates whose costs set the levels of eq. (1).
        device: index of the device whose costs count.
        several: whether cost is a second objective.
        rng: draws the settings of the surrogate.
    """

    def __init__(
        self,
        views: CachedViews,
        trained: Sequence[Candidate],
        values: Array,
        running: Sequence[Candidate],
        pool: Sequence[Candidate],
        *,
        device: int,
        several: bool,
        rng: np.random.Generator,
    ) -> None:
        self._views = views
        self._device = device
        self._several = several
        self._levels = np.quantile(costs_of(pool, device), np.linspace(0, 1, _LEVELS))
        self._z = surrogate.warp(values)
        self._costs_trained = costs_of(trained, device)
        seen = views([*trained, *running], device)
        z = np.concatenate([self._z, np.zeros(len(running))])
        self._surrogate = surrogate.Surrogate(seen, z, surrogate.settings(rng, seen))

    def __call__(self, candidates: Sequence[Candidate]) -> Array:
        """The expected improvement of each candidate."""
        views = self._views(candidates, self._device)
        if self._several:
            costs = costs_of(candidates, self._device)
            return self._surrogate.expect(
                lambda mean, deviation: area_improvement(
                    mean, deviation, costs, self._z, self._costs_trained, self._levels
                ),
                views,
            )
        best = float(self._z.max())
        return self._surrogate.expect(
            lambda mean, deviation: surrogate.expected_improvement(mean, deviation, best), views
        )


def area_improvement(
    mean: Array, deviation: Array, cost: Array, z: Array, costs_trained: Array, levels: Array
) -> Array:
    """Eq. (1) for n candidates.

    Args:
        mean: of z at the candidates, [n].
        deviation: standard deviation of z there, [n].
        cost: of the candidates, [n].
        z: of what was trained, [m].
        costs_trained: of what was trained, [m].
        levels: quantiles of the candidates' costs, so that the scale of the costs makes no difference.
    """
    total = np.zeros_like(mean)
    for level in levels:
        reached = z[costs_trained <= level]
        best = float(reached.max()) if len(reached) else float(z.min())
        total += np.where(cost <= level, surrogate.expected_improvement(mean, deviation, best), 0.0)
    return total
