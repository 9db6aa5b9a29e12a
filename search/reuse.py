"""Trainings of another study, told again under another budget, model or form, so that none is paid twice.

A trial of the other study that was trained, or pruned in training, becomes a finished trial of this one: judged anew by
this one's models and budget, and with the constraints, attributes and reported values that its training left. Its state
is "reused" (`once`), and it does not count as a training of this study.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hwcost.search.detached_trial import DetachedTrial, fixed_chooser
from hwcost.search.judging import with_own
from hwcost.search.objective import LatencyObjective
from hwcost.search.once import ATTRIBUTE, METRIC, attribute_of, own_constraints, tuned_of
from hwcost.search.record import describe, same_trainings
from hwcost.search.storage import StudyError, open_storage

Source = optuna.Study | BaseStorage | str | Path
Sources = Source | Sequence[Source]


def tell_again(study: optuna.Study, objective: LatencyObjective, sources: Sources) -> int:
    """Add the trainings of other studies to a study that does not have them yet.

    Args:
        study: of the objective.
        objective: judges the architectures.
        sources: studies; or storages, by path, URL or object, of which all studies with the same trainings are taken.

    Returns:
        How many were added.

    Raises:
        StudyError: a study was made with other trainings, data or parameters; or a storage has none with the same.
    """
    several: Iterable[Source] = [sources] if isinstance(sources, (optuna.Study, BaseStorage, str, Path)) else sources
    present = {_identity(t) for t in study.get_trials(deepcopy=False) if ATTRIBUTE in t.user_attrs}
    added = 0
    for source in (found for each in several for found in _studies(each, study, objective)):
        for trial in source.get_trials(deepcopy=False):
            if not _is_training(trial) or _identity(trial) in present:
                continue
            again = _again(trial, objective, source.study_name)
            if again is not None:
                present.add(_identity(trial))
                study.add_trial(again)
                added += 1
    return added


def _studies(source: Source, study: optuna.Study, objective: LatencyObjective) -> list[optuna.Study]:
    """The studies of a source whose trainings may be told again in `study`."""
    wanted = describe(objective)
    changing = objective.training.changes()
    if isinstance(source, optuna.Study):
        same_trainings(source.study_name, _record(source), wanted, changing)
        return [source]
    storage = open_storage(source)
    assert storage is not None
    found, other = [], ""
    for name in optuna.get_all_study_names(storage):
        if storage is study._storage and name == study.study_name:
            continue
        one = optuna.load_study(study_name=name, storage=storage)
        if ATTRIBUTE not in one.user_attrs:
            continue
        try:
            same_trainings(name, _record(one), wanted, changing)
        except StudyError as error:
            other = str(error)
            continue
        found.append(one)
    if not found:
        raise StudyError(
            f"reuse: no study of {_named(source)} has the same trainings; {other or 'it has no other study'}"
        )
    return found


def _record(study: optuna.Study) -> dict[str, Any]:
    found = study.user_attrs.get(ATTRIBUTE)
    if not isinstance(found, dict):
        raise StudyError(f"reuse: study {study.study_name!r} has no trials of a LatencyObjective")
    return found


def _named(source: Source) -> str:
    return type(source).__name__ if isinstance(source, (optuna.Study, BaseStorage)) else str(source)


def _is_training(trial: FrozenTrial) -> bool:
    """Whether a finished trial holds a training: a metric, or the values that were reported until it was pruned."""
    facts = attribute_of(trial)
    if trial.state == TrialState.PRUNED and facts.get("state") == "pruned":
        return True
    return trial.state.is_finished() and METRIC in facts and facts.get("state") in ("trained", "reused", "rejected")


def _identity(trial: FrozenTrial) -> tuple[str, str]:
    """Equal for equal trainings of equal architectures."""
    return str(attribute_of(trial).get("key")), repr(sorted(tuned_of(trial).items()))


def _again(trial: FrozenTrial, objective: LatencyObjective, name: str) -> FrozenTrial | None:
    """The trial, judged anew; None where its architecture cannot be made any more."""
    detached = DetachedTrial(fixed_chooser(trial.params, np.random.default_rng(0)))
    try:
        architecture = objective.build(detached)
    except Exception:  # `build` prunes it now, or is another one
        return None
    judgement = objective.judge(architecture, detached.params, detached.constraints)
    if judgement.reason or any(trial.params.get(n) != v for n, v in detached.params.items()):
        return None
    facts = attribute_of(trial)
    kept = {key: facts[key] for key in ("tuned", METRIC) if key in facts}
    pruned = facts.get("state") == "pruned"
    state = "rejected" if not judgement.feasible else "pruned" if pruned else "reused"
    attribute = {"key": judgement.key, **judgement.facts, **kept, "state": state, "from": f"{name} {trial.number}"}
    scored = None if state != "reused" else objective.score(float(facts[METRIC]), judgement)
    others = {key: value for key, value in trial.user_attrs.items() if key != ATTRIBUTE}
    limits = [limit.key for limit in objective.limits]
    return create_trial(
        state=TrialState.COMPLETE if state == "reused" else TrialState.PRUNED,
        values=None if scored is None else [scored] if isinstance(scored, float) else list(scored),
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**others, ATTRIBUTE: attribute},
        intermediate_values=trial.intermediate_values,
        constraints=with_own(judgement.ours, {**own_constraints(trial, limits), **judgement.own}),
    )
