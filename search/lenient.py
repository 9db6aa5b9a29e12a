"""Samplers with a `constraints_func`, as before version 5 of Optuna, beside trials that were never trained.

Such a function reads what the training has left in the trial. A trial that was rejected before training lacks that, and
the function's error would end the study. Here it is passed over: our constraints already say that it is infeasible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hwcost.search.once import attribute_of

_UNTRAINED = ("rejected", "barred", "claimed")  # and trials that `build` has pruned, which have no state


def lenient(sampler: BaseSampler) -> BaseSampler:
    """The sampler, wrapped where it has a `constraints_func`."""
    base: Any = sampler
    while base is not None and not isinstance(base, Lenient):
        if getattr(base, "_constraints_func", None) is not None:
            return Lenient(sampler)
        base = getattr(base, "_base_sampler", None) or getattr(base, "_base", None)
    return sampler


class Lenient(BaseSampler):
    """Another sampler, whose `constraints_func` may fail at trials without a training."""

    def __init__(self, base: BaseSampler) -> None:
        self._base = base

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """The other sampler's; what it raises for a trial without a training is passed over."""
        try:
            self._base.after_trial(study, trial, state, values)
        except Exception:
            if attribute_of(trial).get("state") not in (None, *_UNTRAINED) or state == TrialState.COMPLETE:
                raise

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The other sampler's."""
        return self._base.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The other sampler's."""
        return self._base.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The other sampler's."""
        return self._base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """The other sampler's."""
        self._base.before_trial(study, trial)

    def reseed_rng(self) -> None:
        """The other sampler's."""
        self._base.reseed_rng()
