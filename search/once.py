"""Each architecture is trained once: in one run, after a restart, and by all workers of a study.

What was evaluated is kept in the study itself. Every trial has a user attribute "hwcost" with the key of its
architecture (equal architectures have equal keys), what was predicted, and a state:

    rejected     over the budget, and never trained
    claimed      its worker wants to train it, and looks whether another one does
    training     its worker trains it
    trained      the training has ended; the attribute holds the metric
    known        another trial had trained the same architecture; the metric is that trial's

A worker that wants to train an architecture writes "claimed" and then reads the other trials. If no other trial
claims or trains the same architecture, it writes "training". Since every worker writes before it reads, at least one
of two that claim at the same time sees the other. The trial with the higher number gives way and is pruned. The one
with the lower number waits until the other has given way, or until the other is in state "training", and then gives
way itself.

A finished trial never changes, so each worker reads it once. The time of a trial therefore does not grow with the
study.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

ATTRIBUTE = "hwcost"  # the user attribute of a trial, and of the study (see `study.describe`)
METRIC = "metric"  # the entry of a trial's attribute that holds the metric
_PATIENCE = 20.0  # seconds that another worker's claim may stay undecided before that worker is taken for dead
_POLL = 0.05  # seconds between two looks at the study


def key_of(architecture: Any, params: Mapping[str, Any]) -> str:
    """16 hexadecimal digits, equal for equal architectures.

    They are a hash of the architecture where it can be written as JSON, and of the trial's parameters otherwise.
    """
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
    """Whether the trial trained its architecture, to the end."""
    return trial.state == TrialState.COMPLETE and attribute_of(trial).get("state") == "trained"


class TrialReader:
    """Reads the trials of a study again and again, each finished one only once."""

    def __init__(self) -> None:
        self._finished = 0  # all trials before this index are finished and were returned

    def read(self, study: optuna.Study) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Trials in the order of their numbers, without those that an earlier call returned in its first list.

        Returns:
            The trials before the first unfinished one, which no later call returns; and all from that one on.
        """
        trials = study.get_trials(deepcopy=False)[self._finished :]
        unfinished = (i for i, trial in enumerate(trials) if not trial.state.is_finished())
        end = next(unfinished, len(trials))
        self._finished += end
        return trials[:end], trials[end:]


class Claims:
    """Decides for one worker whether an architecture must be trained; serves any number of studies and threads."""

    def __init__(self) -> None:
        # storage -> study -> its reader, and the metric of each architecture by key
        self._studies: WeakKeyDictionary[BaseStorage, dict[int, tuple[TrialReader, dict[str, float]]]]
        self._studies = WeakKeyDictionary()
        self._lock = threading.Lock()

    def claim(self, trial: Any, attribute: Mapping[str, Any]) -> float | None:
        """The metric where the architecture was trained before; None where `trial` is to train it now.

        Args:
            trial: the running trial; its attribute is updated.
            attribute: what the trial's attribute holds beside the state; `attribute["key"]` is the architecture's.

        Raises:
            TrialPruned: another trial is training the architecture.
        """
        study: optuna.Study | None = getattr(trial, "study", None)
        if study is None:  # an optuna.trial.FixedTrial
            return None
        key = attribute["key"]
        metric, _ = self._look_up(study, key)
        if metric is None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "claimed"})
            metric = self._decide(study, trial.number, key)
        if metric is not None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "known", METRIC: metric})
            return metric
        trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "training"})
        return None

    def _look_up(self, study: optuna.Study, key: str) -> tuple[float | None, list[FrozenTrial]]:
        """The metric of an architecture, None where it was not trained; and the trials that are running.

        A trial in state "trained" counts also while Optuna still has it as running: its worker has written the metric
        and is about to finish the trial.
        """
        running = []
        with self._lock:
            studies = self._studies.setdefault(study._storage, {})
            reader, metrics = studies.setdefault(study._study_id, (TrialReader(), {}))
            finished, others = reader.read(study)
            for other in (*finished, *others):
                found = attribute_of(other)
                if found.get("state") == "trained" and other.state in (TrialState.COMPLETE, TrialState.RUNNING):
                    metrics[str(found["key"])] = float(found[METRIC])
                if other.state == TrialState.RUNNING:
                    running.append(other)
            return metrics.get(key), running

    def _decide(self, study: optuna.Study, number: int, key: str) -> float | None:
        """Wait until no other trial wants to train the architecture that trial `number` has claimed.

        Returns:
            As `claim`.

        Raises:
            TrialPruned: another trial trains it, or has claimed it with a lower number.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            metric, running = self._look_up(study, key)
            rivals = [t for t in running if t.number != number and attribute_of(t).get("key") == key]
            states = {t.number: attribute_of(t).get("state") for t in rivals}
            for rival, state in states.items():
                if state == "training" or (state == "claimed" and rival < number):
                    raise optuna.TrialPruned(f"the same architecture is being trained in trial {rival}")
            undecided = "claimed" in states.values()
            if metric is not None or not undecided or time.monotonic() > end:
                return metric
            time.sleep(_POLL)
