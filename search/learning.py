"""What a sampler can learn from the trials of a study: what was trained, how good it is, and what is taken.

    trained, reused         the values of the trial
    told by its user        the same: a trial that no LatencyObjective has run
    pruned in training      the last value that was reported; without one the worst of all
    failed                  the worst of all: a training that ran out of memory says something of its neighbours

A trial that is running is taken, and counts as one of average value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from hwcost.search.candidates import Candidate, text_of
from hwcost.search.detached_trial import DetachedTrial, fixed_chooser
from hwcost.search.objective import LatencyObjective
from hwcost.search.once import ATTRIBUTE, attribute_of, failed_for_good, is_training, tuned_of

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learnt so far."""

    trials: list[FrozenTrial]  # that were trained, or begun
    candidates: list[Candidate]  # of these trials
    values: Array  # [trial, objective], larger is better
    running: list[Candidate]
    taken: set[str]  # keys of candidates that need not be proposed again
    tuned: list[FrozenTrial]  # trials whose training has asked for parameters of its own


class Learner:
    """Reads lessons from a study for one objective; what it has built of a trial it keeps."""

    def __init__(self, objective: LatencyObjective) -> None:
        self._objective = objective
        self._candidates: dict[str, Candidate | None] = {}  # by the text of a trial's parameters

    def lesson(self, trials: Sequence[FrozenTrial]) -> Lesson:
        """The lesson of these trials, in their order."""
        learnt: list[tuple[FrozenTrial, Candidate, list[float] | None]] = []
        running: list[Candidate] = []
        taken: set[str] = set()
        failed: dict[str, list[FrozenTrial]] = {}
        for trial in trials:
            candidate = self._candidate(trial) if _teaches(trial) else None
            if candidate is None:
                continue
            state = attribute_of(trial).get("state")
            if trial.state == TrialState.RUNNING:
                running.append(candidate)
            elif state not in ("known", "barred"):
                learnt.append((trial, candidate, self._to_maximise(trial)))
            if state == "failed":
                failed.setdefault(candidate.key, []).append(trial)
            else:
                taken.add(candidate.key)
        taken |= {key for key, same in failed.items() if failed_for_good(same)}
        values = [v for _, _, v in learnt if v is not None]
        worst = np.min(values, axis=0).tolist() if values else [0.0] * len(self._objective.directions)
        return Lesson(
            [trial for trial, _, _ in learnt],
            [candidate for _, candidate, _ in learnt],
            np.array([worst if v is None else v for _, _, v in learnt]).reshape(len(learnt), len(worst)),
            running,
            taken,
            [trial for trial, _, _ in learnt if tuned_of(trial)],
        )

    def _candidate(self, trial: FrozenTrial) -> Candidate | None:
        """The candidate of a trial, built anew; None where its parameters make no architecture of this space."""
        text = text_of(trial.params)
        if text not in self._candidates:
            self._candidates[text] = self._build(trial)
        return self._candidates[text]

    def _build(self, trial: FrozenTrial) -> Candidate | None:
        detached = DetachedTrial(fixed_chooser(trial.params, np.random.default_rng(0)))
        try:
            architecture = self._objective.build(detached)
        except Exception:  # it was a trial of something else, or is no architecture
            return None
        if any(name not in trial.params for name in detached.params):
            return None
        judgement = self._objective.judge(architecture, detached.params, detached.constraints)
        if judgement.reason:
            return None
        tuned = tuned_of(trial)
        if ATTRIBUTE not in trial.user_attrs:  # its user has trained it, with whatever it asked for besides
            tuned = {name: value for name, value in trial.params.items() if name not in detached.params}
        distributions = {name: trial.distributions[name] for name in tuned}
        return Candidate(detached.params, detached.distributions, judgement, tuned, distributions)

    def _to_maximise(self, trial: FrozenTrial) -> list[float] | None:
        """The values of a trial, with the sign of those that are minimised changed; None where it has none."""
        values: Sequence[Any] | None = trial.values
        directions = self._objective.directions
        if values is None or len(values) != len(directions) or not np.isfinite(values).all():
            return None
        return [float(v) if d == "maximize" else -float(v) for v, d in zip(values, directions, strict=True)]


def _teaches(trial: FrozenTrial) -> bool:
    """Whether a trial was trained, to the end or not, or is being trained."""
    state = attribute_of(trial).get("state")
    if trial.state == TrialState.RUNNING:
        return state in ("claimed", "training", "trained")
    if ATTRIBUTE not in trial.user_attrs:
        return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return is_training(trial) or state in ("known", "barred", "pruned", "failed")


def whole(study: optuna.Study) -> optuna.Study:
    """The study behind the part of it that a HyperbandPruner shows a sampler."""
    found: optuna.Study = getattr(study, "_study", study)
    return found
