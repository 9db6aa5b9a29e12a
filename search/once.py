"""Which architectures a study has evaluated, so that each is trained once: after a restart, and by all workers.

The memory is the study itself: every trial that trains keeps in its attribute "hwcost" the key of its
architecture and a state,

    claimed -> training -> trained          or    rejected | known | (pruned: somebody else trains it)

A worker that wants to train writes "claimed", then reads the other trials. If nobody else is there it
writes "training". Since each writes before it reads, of two that claim at the same time at least one
sees the other; the one with the higher trial number gives way, and the lower one waits until the
higher has given way, or is seen to be training and must be left alone.

A finished trial never changes, so each worker reads it once: what a trial costs does not grow with the study.
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


class Ledger:
    """Reads a study's trials, each finished one once."""

    def __init__(self) -> None:
        self._finished = 0  # trials before this one are finished, and were given out

    def read(self, study: optuna.Study) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Trials in order: those that finished and are given out only now, and all from the first unfinished one on."""
        trials = study.get_trials(deepcopy=False)[self._finished :]
        ends = next((i for i, trial in enumerate(trials) if not trial.state.is_finished()), len(trials))
        self._finished += ends
        return trials[:ends], trials[ends:]


class Memory:
    """What one worker knows of a study's evaluations."""

    METRIC = "metric"  # the name under which the attribute keeps the metric

    def __init__(self) -> None:
        self._read_of: WeakKeyDictionary[BaseStorage, dict[int, tuple[Ledger, dict[str, float]]]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def claim(self, trial: Any, attribute: Mapping[str, Any]) -> float | None:
        """The metric of this architecture where it is known; None where this trial is to train it now.

        Raises:
            TrialPruned: another trial is training it.
        """
        study: optuna.Study | None = getattr(trial, "study", None)
        if study is None:  # a FixedTrial: nothing to share
            return None
        key = attribute["key"]
        known, _ = self._read(study, key)
        if known is None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "claimed"})
            known = self._contend(study, trial.number, key)
        if known is not None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "known", self.METRIC: known})
            return known
        trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "training"})
        return None

    def _read(self, study: optuna.Study, key: str) -> tuple[float | None, list[FrozenTrial]]:
        """The metric of an architecture, and the trials that are running.

        One that is trained but not told yet counts: between the two its result would be missed otherwise.
        """
        running = []
        with self._lock:
            studies = self._read_of.setdefault(study._storage, {})
            ledger, metrics = studies.setdefault(study._study_id, (Ledger(), {}))
            finished, others = ledger.read(study)
            for other in (*finished, *others):
                found = attribute_of(other)
                if found.get("state") == "trained" and other.state in (TrialState.COMPLETE, TrialState.RUNNING):
                    metrics[str(found["key"])] = float(found[self.METRIC])
                if other.state == TrialState.RUNNING:
                    running.append(other)
            return metrics.get(key), running

    def _contend(self, study: optuna.Study, number: int, key: str) -> float | None:
        """Wait until nobody else wants to train this architecture; see the module."""
        end = time.monotonic() + _PATIENCE
        while True:
            known, running = self._read(study, key)
            rivals = [t for t in running if t.number != number and attribute_of(t).get("key") == key]
            states = {t.number: attribute_of(t).get("state") for t in rivals}
            busy = [n for n, state in states.items() if state == "training" or (state == "claimed" and n < number)]
            if busy:
                raise optuna.TrialPruned(f"the same architecture is being trained in trial {busy[0]}")
            if known is not None or "claimed" not in states.values() or time.monotonic() > end:
                return known
            time.sleep(_POLL)
