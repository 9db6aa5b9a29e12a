"""A trial that belongs to no study.

In Optuna a search space is a function `build(trial)`, which asks the trial for one parameter after the other. Called
with a `DetachedTrial`, it shows which parameters it asks for and which architecture it makes of given values, while no
study gains a trial. That is how samplers examine architectures before they propose one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from optuna import TrialPruned
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hwcost.search.protocols import Build

Chooser = Callable[[str, BaseDistribution], Any]  # (name of a parameter, its distribution) -> a value


class DetachedTrial:
    """Takes the place of an Optuna trial: a `Chooser` chooses each parameter, and the choices are recorded."""

    number = -1

    def __init__(self, choose: Chooser) -> None:
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
        """Accepted and ignored."""

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            self.params[name] = self._choose(name, distribution)
            self.distributions[name] = distribution
        return self.params[name]


@lru_cache(maxsize=1024)  # making one checks every choice, and thousands of trials ask for the same few
def _categorical(*typed: tuple[type, Any]) -> CategoricalDistribution:
    # The types are a part of the cache's key: 1, 1.0 and True are equal, but not the same choice.
    return CategoricalDistribution([choice for _, choice in typed])


def try_build(build: Build, choose: Chooser) -> tuple[DetachedTrial, Any]:
    """Call `build` with a detached trial.

    Returns:
        The trial, which holds the parameters that were asked for, and the architecture; None in place of the
        architecture where `build` raises TrialPruned because its parameters do not go together.
    """
    trial = DetachedTrial(choose)
    try:
        return trial, build(trial)
    except TrialPruned:
        return trial, None


def random_chooser(rng: np.random.Generator) -> Chooser:
    """Chooses each parameter at random; see `draw`."""
    return lambda _, distribution: draw(distribution, rng)


def fixed_chooser(params: Mapping[str, Any], rng: np.random.Generator) -> Chooser:
    """Chooses the values of `params` where the distribution allows them, and random ones for all other parameters."""

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in params and distribution._contains(_internal(distribution, params[name])):
            return params[name]
        return draw(distribution, rng)

    return choose


def _internal(distribution: BaseDistribution, value: Any) -> float:
    """Optuna's internal number for a value; NaN, which no distribution contains, where there is none."""
    try:
        return float(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return float("nan")


def draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """A random value, uniform in the distribution; log-uniform where the distribution is logarithmic."""
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
    if isinstance(distribution, IntDistribution):
        return min(max(round(value), low), high)
    return value
