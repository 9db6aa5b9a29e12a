"""Candidates for a proposal: architectures within the budget that a sampler has built and estimated, not trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hwcost.search.detached_trial import Chooser, draw, fixed_chooser, random_chooser, try_build
from hwcost.search.judging import Judgement, ObjectiveError
from hwcost.search.objective import LatencyObjective

_GENERATIONS = 25  # of a descent towards the budget, where no random architecture is within it
_PARENTS = 10  # that each generation keeps
_CHILDREN = 8  # of each parent
_MOST_NEIGHBOURS = 120  # that are examined of one architecture
_PRUNED = Judgement("pruned", {}, {"build": math.inf}, {})  # of parameters that `build` prunes


class NothingFits(ObjectiveError):
    """No architecture that was examined is within the budget."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture: the parameters that a trial would have, and its judgement."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    judgement: Judgement

    @property
    def worst(self) -> float:
        """Its largest excess over a limit."""
        return max(self.judgement.excess.values(), default=-1.0)


@dataclass
class Pool:
    """The feasible architectures among all that were examined: random ones, and neighbours of good ones."""

    objective: LatencyObjective
    feasible: dict[str, Candidate] = field(default_factory=dict)  # by key
    examined: int = 0  # random architectures that `fill` has examined
    infeasible: int = 0  # of these, over the budget
    nearest: Candidate | None = None  # the infeasible one with the smallest excess
    _neighbours: dict[str, int] = field(default_factory=dict)  # key -> how many neighbours were asked for
    _seen: set[tuple[tuple[str, Any], ...]] = field(default_factory=set)  # the parameters of all that were examined

    @property
    def feasible_share(self) -> float:
        """Share of the random architectures examined by `fill` that are feasible."""
        return 1.0 - self.infeasible / self.examined if self.examined else 1.0

    def examine(self, choose: Chooser) -> Candidate:
        """Build and judge one architecture; a feasible one joins the pool."""
        trial, architecture = try_build(self.objective.build, choose)
        self._seen.add(tuple(trial.params.items()))
        judgement = _PRUNED if architecture is None else self.objective.judge(architecture, trial.params)
        candidate = Candidate(trial.params, trial.distributions, judgement)
        if judgement.feasible:
            self.feasible.setdefault(judgement.key, candidate)
        elif self.nearest is None or candidate.worst < self.nearest.worst:
            self.nearest = candidate
        return candidate

    def fill(self, rng: np.random.Generator, wanted: int, most: int) -> None:
        """Examine random architectures until `wanted` are feasible, or `most` were examined.

        Raises:
            NothingFits: none of them is feasible, nor any that a descent from the nearest ones finds.
        """
        nearest: list[Candidate] = []
        while self.examined < most and len(self.feasible) < wanted:
            candidate = self.examine(random_chooser(rng))
            self.examined += 1
            if not candidate.judgement.feasible:
                self.infeasible += 1
                nearest = sorted([*nearest, candidate], key=lambda c: c.worst)[:_PARENTS]
        if not self.feasible:
            self._descend(nearest, rng)

    def _descend(self, parents: list[Candidate], rng: np.random.Generator) -> None:
        """Move from infeasible architectures to neighbours of less excess, until one is feasible."""
        for _ in range(_GENERATIONS):
            children = [child for parent in parents for child in self._children(parent, rng, _CHILDREN)]
            if self.feasible:
                return
            by_key = {c.judgement.key: c for c in [*parents, *children]}
            parents = sorted(by_key.values(), key=lambda c: c.worst)[:_PARENTS]
        assert self.nearest is not None
        if self.nearest.judgement is _PRUNED:
            raise NothingFits(f"build prunes all of {self.examined} random architectures; have it let some pass")
        limit, excess = max(self.nearest.judgement.excess.items(), key=lambda item: item[1])
        raise NothingFits(
            f"no architecture is within the budget: 0 of {self.examined} random ones (feasible share 0 %), and the "
            f"nearest that a descent found has {limit} at {1 + excess:.3g} times its limit; raise the budget"
        )

    def explore(self, rng: np.random.Generator, count: int) -> None:
        """Examine some more architectures, to widen the pool: about `count`.

        A third are random. The others are neighbours of random members of the pool, which are within the budget far
        more often where only a small part of the space is.
        """
        for _ in range(count // 3):
            self.examine(random_chooser(rng))
        members = list(self.feasible.values())
        for i in rng.integers(len(members), size=count // 3):
            self.examine_neighbours([members[int(i)]], rng, 2)

    def examine_neighbours(self, parents: list[Candidate], rng: np.random.Generator, each: int) -> None:
        """Examine up to `each` neighbours of each parent."""
        for parent in parents:
            for _ in self._children(parent, rng, each):
                pass

    def _children(self, parent: Candidate, rng: np.random.Generator, count: int) -> Iterator[Candidate]:
        """Examine up to `count` neighbours of a parent that were not examined before."""
        key = parent.judgement.key
        before = self._neighbours.get(key, 0)
        self._neighbours[key] = before + count
        if before >= _MOST_NEIGHBOURS:
            return
        for params in _mutations(parent, rng, count):
            if tuple(params.items()) not in self._seen:
                yield self.examine(fixed_chooser(params, rng))


def _mutations(parent: Candidate, rng: np.random.Generator, count: int) -> Iterator[dict[str, Any]]:
    """Parameters that differ from the parent's in one value, and in two, by turns."""
    names = list(parent.params)
    if not names:
        return
    for i in range(count):
        first = int(rng.integers(len(names)))
        changed = [first]
        if i % 2 and len(names) > 1:
            changed.append((first + int(rng.integers(1, len(names)))) % len(names))
        params = dict(parent.params)
        for index in changed:
            name = names[index]
            params[name] = _another(parent.distributions[name], params[name], rng)
        yield params


def _another(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """A random value of the distribution other than `value`; `value` where there is no other."""
    if isinstance(distribution, CategoricalDistribution):
        others = [c for c in distribution.choices if c != value]
        return others[int(rng.integers(len(others)))] if others else value
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    for _ in range(20):
        new = draw(distribution, rng)
        if new != value:
            return new
    return value
