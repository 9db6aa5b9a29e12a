"""Which architectures a study has evaluated, so that each is trained once: after a restart, and by all workers.

The memory is the study itself: every trial that trains keeps in its attribute "hwcost" the key of its
architecture and a state,

    claimed -> training -> trained          or    rejected | known | (pruned: somebody else trains it)

A worker that wants to train writes "claimed", then reads the other trials. If nobody else is there it
writes "training". Since each writes before it reads, of two that claim at the same time at least one
sees the other; the one with the higher trial number gives way, and the lower one waits until the
higher has given way, or is seen to be training and must be left alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

ATTRIBUTE = "hwcost"
_PATIENCE = 20.0  # s that a claim may stay undecided before its worker is taken for dead
_POLL = 0.05  # s


def key_of(architecture: Any, params: Mapping[str, Any]) -> str:
    """Identity of an architecture: its own text where it is plain data, the trial's parameters otherwise."""
    try:
        text = json.dumps(architecture, sort_keys=True)
    except (TypeError, ValueError):
        text = json.dumps(dict(params), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def attribute_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """The attribute "hwcost" of a trial, empty where it has none."""
    found = trial.user_attrs.get(ATTRIBUTE, {})
    return found if isinstance(found, Mapping) else {}


def is_training(trial: FrozenTrial) -> bool:
    """Whether a trial paid for a training and finished it."""
    return trial.state == TrialState.COMPLETE and attribute_of(trial).get("state") == "trained"


class Memory:
    """What one worker knows of a study's evaluations."""

    METRIC = "metric"  # the name under which the attribute keeps the metric

    def __init__(self) -> None:
        self._metrics: dict[tuple[int, str], float] = {}

    def claim(self, trial: Any, attribute: Mapping[str, Any]) -> float | None:
        """The metric of this architecture where it is known; None where this trial is to train it now.

        Raises:
            TrialPruned: another trial is training it.
        """
        study: optuna.Study | None = getattr(trial, "study", None)
        if study is None:  # a FixedTrial: nothing to share
            return None
        key = attribute["key"]
        known = self._recall(study, key)
        if known is None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "claimed"})
            known = self._contend(study, trial.number, key)
        if known is not None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "known", self.METRIC: known})
            return known
        trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "training"})
        return None

    def _recall(self, study: optuna.Study, key: str) -> float | None:
        """From this worker's memory, or the study's trials.

        One that is trained but not told yet counts: between the two its result would be missed otherwise.
        """
        mine = (study._study_id, key)
        if mine not in self._metrics:
            for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING)):
                found = attribute_of(other)
                if found.get("state") == "trained":
                    self._metrics[(study._study_id, str(found["key"]))] = float(found[self.METRIC])
        return self._metrics.get(mine)

    def _contend(self, study: optuna.Study, number: int, key: str) -> float | None:
        """Wait until nobody else wants to train this architecture; see the module."""
        end = time.monotonic() + _PATIENCE
        while True:
            rivals = [t for t in _running(study) if t.number != number and attribute_of(t).get("key") == key]
            states = {t.number: attribute_of(t).get("state") for t in rivals}
            busy = [n for n, state in states.items() if state == "training" or (state == "claimed" and n < number)]
            if busy:
                raise optuna.TrialPruned(f"the same architecture is being trained in trial {busy[0]}")
            if "claimed" not in states.values() or time.monotonic() > end:
                return self._recall(study, key)
            time.sleep(_POLL)


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
