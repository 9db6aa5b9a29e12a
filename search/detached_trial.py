"""A trial that belongs to no study: what a define-by-run function would suggest, without an Optuna trial.

Samplers use it to look at architectures before they propose one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from optuna import TrialPruned
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Choose = Callable[[str, BaseDistribution], Any]


class Probe:
    """Stands in for a trial while `build` runs, and writes down what it asks for."""

    number = -1

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        return self._suggest(name, _categorical(*((type(c), c) for c in choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """An integer in [low, high]."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Nothing is kept."""

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            self.params[name] = self._choose(name, distribution)
            self.distributions[name] = distribution
        return self.params[name]


def built(build: Callable[[Any], Any], choose: Choose) -> tuple[Probe, Any]:
    """What `build` asks for, and what it makes of the choices; None where it prunes what does not go together."""
    probe = Probe(choose)
    try:
        return probe, build(probe)
    except TrialPruned:
        return probe, None


@lru_cache(maxsize=1024)  # making one checks every choice, and a pool asks for the same few again and again
def _categorical(*typed: tuple[type, Any]) -> CategoricalDistribution:
    return CategoricalDistribution([choice for _, choice in typed])  # 1, 1.0 and True are equal, but not the same


def random_choice(rng: np.random.Generator) -> Choose:
    """Uniform in every distribution (log-uniform where it is logarithmic)."""
    return lambda _, distribution: draw(distribution, rng)


def fixed_or_random(params: Mapping[str, Any], rng: np.random.Generator) -> Choose:
    """The given values where they are still allowed, random ones for what else is asked."""

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in params and distribution._contains(_internal(distribution, params[name])):
            return params[name]
        return draw(distribution, rng)

    return choose


def draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """A random value of a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    elif step:
        value = low + step * int(rng.integers(int((high - low) / step + 1e-9) + 1))
    else:
        value = float(rng.uniform(low, high))
    return min(max(round(value), low), high) if isinstance(distribution, IntDistribution) else value


def _internal(distribution: BaseDistribution, value: Any) -> float:
    try:
        return float(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return float("nan")
