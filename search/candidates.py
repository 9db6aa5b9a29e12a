"""Architectures that a sampler has looked at, and may propose: within the budget, never trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hwcost.search.detached_trial import Choose, built, draw, fixed_or_random, random_choice
from hwcost.search.objective import Judgement, LatencyObjective, ObjectiveError

_DESCENT = 25  # generations of a descent towards the budget where random architectures miss it
_PARENTS = 10
_ENOUGH = 120  # neighbours asked for of one parent
_PRUNED = Judgement("pruned", {}, {"build": math.inf}, {})  # of parameters that `build` itself prunes


class NothingFits(ObjectiveError):
    """No architecture that was looked at is within the budget."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture as a trial would have it."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    judgement: Judgement

    @property
    def worst(self) -> float:
        """Its largest excess over a limit."""
        return max(self.judgement.excess.values(), default=-1.0)


@dataclass
class Pool:
    """Feasible architectures by key, found by looking at random ones and at neighbours of good ones."""

    objective: LatencyObjective
    feasible: dict[str, Candidate] = field(default_factory=dict)
    looked_at: int = 0
    infeasible: int = 0
    nearest: Candidate | None = None  # the least infeasible one
    _asked: dict[str, int] = field(default_factory=dict)  # neighbours asked for, of each parent
    _seen: set[tuple[tuple[str, Any], ...]] = field(default_factory=set)  # parameters of all that were looked at

    @property
    def feasible_share(self) -> float:
        """Of the random architectures looked at by `fill`."""
        return 1.0 - self.infeasible / self.looked_at if self.looked_at else 1.0

    def look(self, choose: Choose) -> Candidate:
        """Build and judge one architecture; a feasible one joins the pool."""
        probe, architecture = built(self.objective.build, choose)
        self._seen.add(tuple(probe.params.items()))
        judgement = _PRUNED if architecture is None else self.objective.judge(architecture, probe.params)
        candidate = Candidate(probe.params, probe.distributions, judgement)
        if candidate.judgement.feasible:
            self.feasible.setdefault(candidate.judgement.key, candidate)
        elif self.nearest is None or candidate.worst < self.nearest.worst:
            self.nearest = candidate
        return candidate

    def fill(self, rng: np.random.Generator, wanted: int, looks: int) -> None:
        """Look at random architectures until `wanted` are feasible, or `looks` are made.

        Raises:
            NothingFits: none is feasible, and a descent from the nearest ones found none either.
        """
        misses: list[Candidate] = []
        while self.looked_at < looks and len(self.feasible) < wanted:
            candidate = self.look(random_choice(rng))
            self.looked_at += 1
            if not candidate.judgement.feasible:
                self.infeasible += 1
                misses = sorted([*misses, candidate], key=lambda c: c.worst)[:_PARENTS]
        if not self.feasible:
            self._descend(misses, rng)

    def _descend(self, parents: list[Candidate], rng: np.random.Generator) -> None:
        """From the nearest misses, step by step towards the budget."""
        for _ in range(_DESCENT):
            children = [child for parent in parents for child in self._children(parent, rng, 8)]
            if self.feasible:
                return
            by_key = {c.judgement.key: c for c in [*parents, *children]}
            parents = sorted(by_key.values(), key=lambda c: c.worst)[:_PARENTS]
        assert self.nearest is not None
        if self.nearest.judgement is _PRUNED:
            raise NothingFits(f"build prunes all of {self.looked_at} random architectures; have it let some pass")
        limit, excess = max(self.nearest.judgement.excess.items(), key=lambda item: item[1])
        raise NothingFits(
            f"no architecture is within the budget: 0 of {self.looked_at} random ones (feasible share 0 %), and the "
            f"nearest that a descent found has {limit} at {1 + excess:.3g} times its limit; raise the budget"
        )

    def explore(self, rng: np.random.Generator, looks: int) -> None:
        """Look at some more architectures: random ones, and twice as many neighbours of random feasible ones,
        which fit far more often where little of the space does."""
        for _ in range(looks // 3):
            self.look(random_choice(rng))
        members = list(self.feasible.values())
        for i in rng.integers(len(members), size=looks // 3):
            self.grow([members[int(i)]], rng, 2)

    def grow(self, around: list[Candidate], rng: np.random.Generator, each: int) -> None:
        """Look at neighbours, one or two steps away, of each given architecture."""
        for candidate in around:
            for _ in self._children(candidate, rng, each):
                pass

    def _children(self, parent: Candidate, rng: np.random.Generator, count: int) -> Iterator[Candidate]:
        """Neighbours that were not looked at before; a parent that was asked often enough has no more."""
        asked = self._asked.get(parent.judgement.key, 0)
        self._asked[parent.judgement.key] = asked + count
        if asked >= _ENOUGH:
            return
        for params in _mutations(parent, rng, count):
            if tuple(params.items()) not in self._seen:
                yield self.look(fixed_or_random(params, rng))


def _mutations(parent: Candidate, rng: np.random.Generator, count: int) -> Iterator[dict[str, Any]]:
    """Parameters that differ from the parent's in one, or in two."""
    names = list(parent.params)
    for i in range(count if names else 0):
        first = int(rng.integers(len(names)))
        second = (first + int(rng.integers(1, len(names)))) % len(names) if i % 2 and len(names) > 1 else first
        params = dict(parent.params)
        for name in {names[first]: None, names[second]: None}:
            params[name] = another(parent.distributions[name], params[name], rng)
        yield params


def another(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """A value of the distribution other than `value`, where there is one."""
    if isinstance(distribution, CategoricalDistribution):
        others = [c for c in distribution.choices if c != value]
        return others[int(rng.integers(len(others)))] if others else value
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    for _ in range(20):
        new = draw(distribution, rng)
        if new != value:
            return new
    return value
