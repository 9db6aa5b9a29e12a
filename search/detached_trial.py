"""A trial that belongs to no study.

In Optuna a search space is a function `build(trial)`, which asks the trial for one parameter after the other. Called
with a `DetachedTrial`, it shows which parameters it asks for and which architecture it makes of given values, while no
study gains a trial. That is how samplers examine architectures before they propose one.

It is an `optuna.trial.BaseTrial` in every respect, so that a function which works with Optuna's trials works with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
from optuna import TrialPruned
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from hwcost.search.protocols import Build

Chooser = Callable[[str, BaseDistribution], Any]  # (name of a parameter, its distribution) -> a value
_study: ContextVar[optuna.Study | None] = ContextVar("study for which detached trials are built", default=None)


@contextmanager
def building_for(study: optuna.Study) -> Iterator[None]:
    """Let `DetachedTrial.study` be this study, for a `build` that reads its attributes."""
    token = _study.set(study)
    try:
        yield
    finally:
        _study.reset(token)


@lru_cache(maxsize=1)
def _no_study() -> optuna.Study:
    """An empty study, for detached trials outside of any."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)


class DetachedTrial(BaseTrial):
    """Takes the place of an Optuna trial: a `Chooser` chooses each parameter, and the choices are recorded.

    Attributes and constraints that `build` sets are kept here and in no study; reported values are forgotten.
    """

    def __init__(self, choose: Chooser) -> None:
        self._choose = choose
        self._params: dict[str, Any] = {}
        self._distributions: dict[str, BaseDistribution] = {}
        self._user_attrs: dict[str, Any] = {}
        self._constraints: dict[str, float] = {}

    # -- parameters -------------------------------------------------------------------------------

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        return self._suggest(name, _categorical_of(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """An integer in [low, high]."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """As `suggest_float`."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """As `suggest_float` with a logarithmic scale."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """As `suggest_float` in steps of `q`."""
        return self.suggest_float(name, low, high, step=q)

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params:
            self._params[name] = self._choose(name, distribution)
            self._distributions[name] = distribution
        return self._params[name]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that were asked for, in order."""
        return self._params

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Their distributions."""
        return self._distributions

    # -- everything else that a trial has ---------------------------------------------------------

    @property
    def number(self) -> int:
        """0: it has no place among the trials of a study."""
        return 0

    @property
    def study(self) -> optuna.Study:
        """The study that is searched (`building_for`), or an empty one."""
        return _study.get() or _no_study()

    @property
    def datetime_start(self) -> datetime | None:
        """Now."""
        return datetime.now()

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What `set_user_attr` was given."""
        return self._user_attrs

    def set_user_attr(self, key: str, value: Any) -> None:
        """Kept until the trial is forgotten."""
        self._user_attrs[key] = value

    @property
    def constraints(self) -> dict[str, float]:
        """What `set_constraint` was given."""
        return self._constraints

    def set_constraint(self, key: str, value: float) -> None:
        """Kept with the architecture, which is infeasible where a value is above 0; the first value of a key counts."""
        self._constraints.setdefault(key, float(value))

    def report(self, value: float, step: int) -> None:
        """Accepted and forgotten."""

    def should_prune(self) -> bool:
        """Never."""
        return False


def _categorical_of(choices: Sequence[Any]) -> CategoricalDistribution:
    try:
        return _categorical(*((type(c), c) for c in choices))
    except TypeError:  # a choice cannot be hashed, such as a list
        return CategoricalDistribution(choices)


@lru_cache(maxsize=1024)  # making one checks every choice, and thousands of trials ask for the same few
def _categorical(*typed: tuple[type, Any]) -> CategoricalDistribution:
    # The types are a part of the cache's key: 1, 1.0 and True are equal, but not the same choice.
    return CategoricalDistribution([choice for _, choice in typed])


def try_build(build: Build, choose: Chooser) -> tuple[DetachedTrial, Any]:
    """Call `build` with a detached trial.

    Returns:
        The trial, which holds the parameters that were asked for, and the architecture; an `Invalid` in its place where
        `build` raises: these parameters make no architecture.
    """
    trial = DetachedTrial(choose)
    try:
        return trial, build(trial)
    except TrialPruned as pruned:
        return trial, Invalid(str(pruned) or PRUNED)
    except Exception as error:
        return trial, Invalid(reason_of(error))


PRUNED = "build prunes it"


@dataclass(frozen=True, slots=True)
class Invalid:
    """In place of an architecture that cannot be built or traced."""

    reason: str


def reason_of(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def random_chooser(rng: np.random.Generator) -> Chooser:
    """Chooses each parameter at random; see `draw`."""
    return lambda _, distribution: draw(distribution, rng)


def fixed_chooser(params: Mapping[str, Any], rng: np.random.Generator) -> Chooser:
    """Chooses the values of `params` where the distribution allows them, and random ones for all other parameters."""

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in params:
            internal = _internal(distribution, params[name])
            if distribution._contains(internal):
                return distribution.to_external_repr(internal)
        return draw(distribution, rng)

    return choose


def _internal(distribution: BaseDistribution, value: Any) -> float:
    """Optuna's internal number for a value; NaN, which no distribution contains, where there is none.

    A storage gives tuples back as lists, so choices that JSON does not tell apart count as equal.
    """
    try:
        return float(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        if not isinstance(distribution, CategoricalDistribution):
            return float("nan")
        texts = [json.dumps(choice, default=repr) for choice in distribution.choices]
        text = json.dumps(value, default=repr)
        return float(texts.index(text)) if text in texts else float("nan")


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
