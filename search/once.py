"""Each architecture is trained once: in one run, after a restart, and by all workers of a study.

What was evaluated is kept in the study itself. Every trial has a user attribute "hwcost" with the key of its
architecture (equal architectures have equal keys), what was predicted, and a state:

    rejected     over the budget, or no architecture at all; never trained
    claimed      its worker wants to train it, and looks whether another one does
    training     its worker trains it
    trained      the training has ended; the attribute holds the metric
    pruned       the training was stopped by a pruner
    failed       the training raised, or gave NaN
    known        another trial had trained the same; the metric, and all else that it left, is that trial's
    barred       another trial was pruned, or failed too often, at the same
    reused       trained in another study (`reuse`)

Two trainings are the same where the architectures are equal, and so is whatever else the training asked its trial for,
such as a learning rate. The names of these parameters are in the attribute as "tuned". They are only known once a
training has asked for them, so a trial is asked for them beforehand, in the order of earlier trainings, until none of
these is left that chose the same.

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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

ATTRIBUTE = "hwcost"  # the user attribute of a trial, and of the study (see `record`)
METRIC = "metric"  # the entry of a trial's attribute that holds the metric
TUNED = "tuned"  # the entry with the names of the parameters that the training asked for
RETRIES = 1  # of a training that failed; of one that ran out of memory none
_ENDED = ("trained", "reused", "pruned", "failed")  # states of trials that were paid for
_PATIENCE = 20.0  # seconds that another worker's claim may stay undecided before that worker is taken for dead
_POLL = 0.05  # seconds between two looks at the study


def key_of(architecture: Any, params: Mapping[str, Any]) -> str:
    """16 hexadecimal digits, equal for equal architectures.

    They are a hash of the architecture where it can be written as JSON, and of the trial's parameters otherwise.
    """
    try:
        text = json.dumps(architecture, sort_keys=True)
    except (TypeError, ValueError):
        text = json.dumps(dict(params), sort_keys=True, default=_text)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    """A choice that is no JSON: a class or a function by its name, which is the same in every process."""
    name = getattr(value, "__qualname__", None)
    return str(value) if name is None else f"{value.__module__}.{name}"


def attribute_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """The attribute "hwcost" of a trial, empty where it has none."""
    found = trial.user_attrs.get(ATTRIBUTE, {})
    return found if isinstance(found, Mapping) else {}


def is_training(trial: FrozenTrial) -> bool:
    """Whether the trial has the metric of a training that went to the end, here or in a study that was reused."""
    return trial.state == TrialState.COMPLETE and attribute_of(trial).get("state") in ("trained", "reused")


def is_paid(trial: FrozenTrial) -> bool:
    """Whether a training of this study was paid for the trial: to the end, until it was pruned, or until it failed.

    A failure that ended the search is not counted: it is there to be mended.
    """
    facts = attribute_of(trial)
    state = facts.get("state")
    if state == "failed":
        return trial.state.is_finished() and not facts.get("ended_the_search")
    return trial.state.is_finished() and state in ("trained", "pruned") and trial.state != TrialState.FAIL


def tuned_of(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that the training of a trial asked for, in order."""
    names = attribute_of(trial).get(TUNED, ())
    return {name: trial.params[name] for name in names if name in trial.params}


def suggest(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    """Ask a trial for a parameter by its distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    ask: Callable[..., Any] = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return ask(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def next_tuned(
    trials: Sequence[FrozenTrial], chosen: Mapping[str, Any], numbers: bool = True
) -> tuple[str, BaseDistribution] | None:
    """The parameter that trainings ask for after those that are chosen; None where none is known.

    Args:
        trials: trainings that have asked for parameters.
        chosen: values so far, in order.
        numbers: whether trainings count only where they chose the same numbers, besides the same categories.
    """
    for trial in reversed(trials):
        tuned = tuned_of(trial)
        names = list(tuned)
        if len(names) <= len(chosen) or names[: len(chosen)] != list(chosen):
            continue
        weighed = [n for n in chosen if numbers or isinstance(trial.distributions[n], CategoricalDistribution)]
        if all(tuned[n] == chosen[n] for n in weighed):
            name = names[len(chosen)]
            return name, trial.distributions[name]
    return None


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


@dataclass
class _Past:
    """What one worker has read of a study."""

    reader: TrialReader = field(default_factory=TrialReader)
    ended: dict[str, list[FrozenTrial]] = field(default_factory=dict)  # by key: trainings that have ended
    tuning: list[FrozenTrial] = field(default_factory=list)  # those of them that asked for parameters


class Claims:
    """Decides for one worker whether an architecture must be trained; serves any number of studies and threads."""

    def __init__(self) -> None:
        self._studies: WeakKeyDictionary[BaseStorage, dict[int, _Past]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def claim(self, trial: Any, attribute: Mapping[str, Any], ours: Collection[str] = ()) -> FrozenTrial | None:
        """The trial that has trained the same; None where `trial` is to train it now.

        Args:
            trial: the running trial; its attribute is updated.
            attribute: what the trial's attribute holds beside the state; `attribute["key"]` is the architecture's.
            ours: names of the objective's own constraints.

        Raises:
            TrialPruned: another trial is training the same, was pruned at it, or has failed at it too often.
        """
        study: optuna.Study | None = getattr(trial, "study", None)
        if study is None:  # an optuna.trial.FixedTrial
            return None
        past, _ = self._look(study)
        tuned = self._ask_for_tuned(trial, past)
        attribute = {**attribute, TUNED: list(tuned)} if tuned else attribute
        found = _decisive(past.ended.get(attribute["key"], ()), tuned)
        if found is None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "claimed"})
            found = self._decide(study, trial.number, attribute["key"], tuned)
        if found is None:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "training"})
            return None
        repeat(trial, found, ours)
        facts = attribute_of(found)
        if METRIC in facts:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "known", METRIC: facts[METRIC]})
            return found
        trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "barred"})
        raise optuna.TrialPruned(f"the same training {_fate(facts)} in trial {found.number}")

    def _ask_for_tuned(self, trial: Any, past: _Past) -> dict[str, Any]:
        """The parameters that trainings are known to ask for, as far as one of them has chosen the same values."""
        chosen: dict[str, Any] = {}
        with self._lock:
            known = list(past.tuning)
        while following := next_tuned(known, chosen):
            name, distribution = following
            if name in trial.params:  # `build` has asked for it, in this architecture
                return chosen
            chosen[name] = suggest(trial, name, distribution)
        return chosen

    def _look(self, study: optuna.Study) -> tuple[_Past, list[FrozenTrial]]:
        """What is known of a study now; and the trials that are running.

        A trial in state "trained" counts also while Optuna still has it as running: its worker has written the metric
        and is about to finish the trial.
        """
        running = []
        with self._lock:
            past = self._studies.setdefault(study._storage, {}).setdefault(study._study_id, _Past())
            finished, others = past.reader.read(study)
            for other in (*finished, *others):
                state = attribute_of(other).get("state")
                if state in _ENDED and (other.state.is_finished() or state == "trained"):
                    _keep(past, other)
                elif other.state == TrialState.RUNNING:
                    running.append(other)
            return past, running

    def _decide(self, study: optuna.Study, number: int, key: str, tuned: Mapping[str, Any]) -> FrozenTrial | None:
        """Wait until no other trial wants to train what trial `number` has claimed.

        Returns:
            As `claim`.

        Raises:
            TrialPruned: another trial trains it, or has claimed it with a lower number.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            past, running = self._look(study)
            found = _decisive(past.ended.get(key, ()), tuned)
            rivals = [t for t in running if t.number != number and attribute_of(t).get("key") == key]
            states = {t.number: attribute_of(t).get("state") for t in rivals if not _differs(tuned_of(t), tuned)}
            for rival, state in states.items():
                if state == "training" or (state == "claimed" and rival < number):
                    raise optuna.TrialPruned(f"the same architecture is being trained in trial {rival}")
            undecided = "claimed" in states.values()
            if found is not None or not undecided or time.monotonic() > end:
                return found
            time.sleep(_POLL)


def _keep(past: _Past, trial: FrozenTrial) -> None:
    """Remember a training that has ended, once; one that was still running when it was read is replaced."""
    facts = attribute_of(trial)
    same = past.ended.setdefault(str(facts["key"]), [])
    same[:] = [t for t in same if t.number != trial.number]
    same.append(trial)
    if facts.get(TUNED):
        past.tuning[:] = [t for t in past.tuning if t.number != trial.number]
        past.tuning.append(trial)


def _differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two trainings are known to have chosen different values of some parameter."""
    return any(a[name] != b[name] for name in a.keys() & b.keys())


def _decisive(ended: Sequence[FrozenTrial], tuned: Mapping[str, Any]) -> FrozenTrial | None:
    """The trial that settles a training with these parameters: one with a metric, a pruned one, or the last failure of
    one time too many; None where it is to be trained.
    """
    same = [t for t in ended if all(n in tuned and tuned[n] == v for n, v in tuned_of(t).items())]
    for state in ("trained", "reused", "pruned"):
        for trial in same:
            if attribute_of(trial).get("state") == state:
                return trial
    return same[-1] if failed_for_good(same) else None


def failed_for_good(same: Sequence[FrozenTrial]) -> bool:
    """Whether a training has failed so often, or by want of memory, that it is not begun again."""
    failed = [attribute_of(t) for t in same if attribute_of(t).get("state") == "failed"]
    return len(failed) > RETRIES or any(f.get("memory") for f in failed)


def _fate(facts: Mapping[str, Any]) -> str:
    return "was pruned" if facts.get("state") == "pruned" else f"failed ({facts.get('error', 'no reason')})"


def repeat(trial: Any, source: FrozenTrial, ours: Collection[str]) -> None:
    """Give a running trial what the training of another one has left: attributes, reported values, constraints.

    Args:
        trial: the running one.
        source: the other one.
        ours: names of the objective's own constraints, which are set anew.
    """
    present = trial.user_attrs
    for name, value in source.user_attrs.items():
        if name != ATTRIBUTE and name not in present:
            trial.set_user_attr(name, value)
    if len(trial.study.directions) == 1:
        for step, value in source.intermediate_values.items():
            trial.report(value, step)
    set_constraints(trial, own_constraints(source, ours))


def own_constraints(trial: FrozenTrial, ours: Collection[str]) -> dict[str, float]:
    """The constraints of a trial that are the user's own; a number as a name is of a sampler's `constraints_func`."""
    found = trial.constraints
    predicted = {name if beside(name) not in found else beside(name) for name in ours}
    return {name: value for name, value in found.items() if name not in predicted and not name.isdecimal()}


def set_constraints(trial: Any, constraints: Mapping[str, float]) -> None:
    """Set those constraints that a trial does not have yet."""
    present = trial.constraints
    for name, value in constraints.items():
        if name not in present:
            trial.set_constraint(name, value)


def beside(key: str) -> str:
    """The name of our constraint `key` in a trial that has a constraint of the user's own by that name."""
    return f"{key} (predicted)"
