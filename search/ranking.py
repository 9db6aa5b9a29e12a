"""Which candidate to train next: expected improvement after one fit to what was trained.

With several objectives the improvement is that of the dominated area, exact in the known cost c:

    a(x) = sum over cost levels u >= c(x) of EI( x; best metric trained with cost <= u ).          (1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from hwcost.search import surrogate
from hwcost.search.candidates import Candidate
from hwcost.search.encoding import Encoder, Views, features_of

Array = NDArray[np.float64]
_LEVELS = 16  # cost levels of eq. (1)


class Encoded:
    """The views of candidates, each made once."""

    def __init__(self, build: Callable[..., Any]) -> None:
        self._features = features_of(build)
        self._distributions: dict[str, BaseDistribution] = {}
        self._forget()

    def _forget(self) -> None:
        self._encode = Encoder(dict(self._distributions), self._features)
        self._row: dict[str, int] = {}
        self._views: Views | None = None

    def learn(self, candidates: Sequence[Candidate]) -> None:
        """Of what parameters there are; until they are learned, parameters of other names are ignored."""
        more = {name: d for c in candidates for name, d in c.distributions.items() if name not in self._distributions}
        if more:
            self._distributions |= more
            self._forget()

    def __call__(self, candidates: Sequence[Candidate], device: int) -> Views:
        """The views of `candidates`, by their cost on one of the objective's devices."""
        new = list({c.judgement.key: c for c in candidates if c.judgement.key not in self._row}.values())
        if new:
            made = self._encode([c.params for c in new], np.ones(len(new)))
            self._row |= {c.judgement.key: len(self._row) + i for i, c in enumerate(new)}
            self._views = made if self._views is None else self._views + made
        assert self._views is not None
        found = self._views[[self._row[c.judgement.key] for c in candidates]]
        return found.with_cost(costs_of(candidates, device))


def costs_of(candidates: Sequence[Candidate], device: int) -> Array:
    """What the candidates cost on a device of the objective."""
    return np.array([list(c.judgement.costs.values())[device] for c in candidates])


class Ranking:
    """Expected improvement of candidates.

    Args:
        encoded: makes their views; has learned of all their parameters.
        trained: architectures, and `values` of their metric, to be maximised.
        running: architectures whose metric is not known yet; they are believed to be average.
        pool: candidates whose costs set the levels of eq. (1).
        device: whose costs are meant.
        several: whether cost is an objective.
    """

    def __init__(
        self, encoded: Encoded, trained: Sequence[Candidate], values: Array, running: Sequence[Candidate],
        pool: Sequence[Candidate], *, device: int, several: bool, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._encoded, self._device, self._several = encoded, device, several
        self._levels = np.quantile(costs_of(pool, device), np.linspace(0, 1, _LEVELS))
        self._z = surrogate.warp(values)
        self._paid = costs_of(trained, device)
        seen = encoded([*trained, *running], device)
        believed = np.concatenate([self._z, np.zeros(len(running))])
        self._process = surrogate.Surrogate(seen, believed, surrogate.settings(rng, seen))

    def __call__(self, candidates: Sequence[Candidate]) -> Array:
        """The acquisition of each candidate."""
        views, costs = self._encoded(candidates, self._device), costs_of(candidates, self._device)
        if self._several:
            return self._process.expect(
                lambda m, d: area_improvement(m, d, costs, self._z, self._paid, self._levels), views
            )
        best = float(self._z.max())
        return self._process.expect(lambda m, d: surrogate.expected_improvement(m, d, best), views)


def area_improvement(mean: Array, deviation: Array, cost: Array, z: Array, paid: Array, levels: Array) -> Array:
    """Eq. (1) at the given cost levels, for candidates of known `cost`; `z` are results that cost `paid`.

    The levels are quantiles of the candidates' costs, so that the scale of the cost does not matter.
    """
    total = np.zeros_like(mean)
    for level in levels:
        reached = z[paid <= level]
        best = float(reached.max()) if len(reached) else float(z.min())
        total += np.where(cost <= level, surrogate.expected_improvement(mean, deviation, best), 0.0)
    return total
