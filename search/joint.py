"""Parameters of a training, such as its learning rate, proposed together with an architecture.

Their names are known from earlier trainings. Values are drawn by Optuna's tree-structured Parzen estimator, near those
of the best trainings, and uniformly; the surrogate then ranks them together with the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

from hwcost.search.candidates import Candidate
from hwcost.search.detached_trial import draw
from hwcost.search.once import next_tuned, tuned_of

Tuned = tuple[Mapping[str, Any], Mapping[str, BaseDistribution]]  # values and distributions, by name
_BY_TPE = 8  # draws of each kind for a proposal
_NEAR = 24
_UNIFORM = 32
_STEPS = (0.02, 0.05, 0.15)  # standard deviations of a draw near a value, as shares of the range
_CHANGED = 0.2  # probability of another category in a draw near a value


def drawn(
    study: optuna.Study,
    trial: FrozenTrial,
    earlier: Sequence[FrozenTrial],
    best: Sequence[FrozenTrial],
    rng: np.random.Generator,
) -> list[Tuned]:
    """Values of the parameters that trainings ask for.

    Args:
        study: of the trial.
        trial: the one to come.
        earlier: trainings that have asked for parameters.
        best: some of them, near which values are drawn.
        rng: draws.
    """
    found = [_walk(earlier, lambda name, d: _by_tpe(study, trial, name, d, rng)) for _ in range(_BY_TPE)]
    found += [_walk(earlier, lambda _, d: draw(d, rng)) for _ in range(_UNIFORM)]
    for i in range(_NEAR if best else 0):
        centre, step = tuned_of(best[i % len(best)]), _STEPS[i % len(_STEPS)]
        found.append(_walk(earlier, lambda n, d, c=centre, s=step: _near(d, c[n], s, rng) if n in c else draw(d, rng)))
    return found


def with_tuned(candidate: Candidate, tuned: Tuned) -> Candidate:
    """The candidate's architecture, to be trained with these parameters."""
    return Candidate(candidate.params, candidate.distributions, candidate.judgement, *tuned)


def _walk(earlier: Sequence[FrozenTrial], choose: Any) -> Tuned:
    """Choose one parameter after the other, those that trainings with the same categories have asked for."""
    values: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    while following := next_tuned(earlier, values, numbers=False):
        name, distribution = following
        values[name] = choose(name, distribution)
        distributions[name] = distribution
    return values, distributions


def _by_tpe(
    study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, rng: np.random.Generator
) -> Any:
    sampler = TPESampler(seed=int(rng.integers(2**31)))
    return sampler.sample_independent(study, trial, name, distribution)


def _near(distribution: BaseDistribution, value: Any, step: float, rng: np.random.Generator) -> Any:
    """A value near another one: normally distributed on the distribution's scale, or now and then another choice."""
    if isinstance(distribution, CategoricalDistribution):
        return draw(distribution, rng) if rng.random() < _CHANGED else value
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        spread = np.log(high) - np.log(low)
        new = float(np.exp(np.clip(np.log(value) + step * spread * rng.normal(), np.log(low), np.log(high))))
    else:
        new = float(np.clip(value + step * (high - low) * rng.normal(), low, high))
    if distribution.step:
        new = low + distribution.step * round((new - low) / distribution.step)
    return (
        int(min(max(round(new), low), high)) if isinstance(distribution, IntDistribution) else min(max(new, low), high)
    )


def best_of(trials: Sequence[FrozenTrial], values: Mapping[int, float], count: int) -> list[FrozenTrial]:
    """The trials with the largest values, by number."""
    return sorted(trials, key=lambda t: -values[t.number])[:count]
