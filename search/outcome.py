"""What a study found, as values that JSON can hold: its best architectures, and how near they are to the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import optuna
from numpy.typing import ArrayLike
from optuna.trial import FrozenTrial

from hwcost.search import scoring
from hwcost.search.objective import LatencyObjective
from hwcost.search.once import attribute_of, is_training

_USE_OF_DEVICE = ("intensity", "memory_share", "achieved", "devices")  # given where the objective's model tells them


def outcome(study: optuna.Study, objective: LatencyObjective) -> dict[str, Any]:
    """Counts of trials, and the study's best ones by falling accuracy.

    Of several devices also "fronts", by device: the Pareto front of accuracy and that device's latency.
    """
    trained = [t for t in study.trials if is_training(t)]
    best = {t.number for t in study.best_trials} if trained else set()
    rows = [_row(attribute_of(t), t.params) for t in trained if t.number in best]
    found: dict[str, Any] = {
        "trials": len(study.trials),
        "trainings": len(trained),
        "rejected_before_training": sum(attribute_of(t).get("state") == "rejected" for t in study.trials),
        "best": sorted(rows, key=lambda row: -row["accuracy"]),
    }
    if len(objective.models) > 1:
        found["fronts"] = {name: _front(name, trained) for name in objective.models}
    return found


def _front(device: str, trained: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """The Pareto front of accuracy and one device's latency, by rising latency."""
    facts = [attribute_of(t) for t in trained]
    own = [{**f, **f["devices"][device]} for f in facts]
    order = scoring.front([f["latency"] for f in own], [f["metric"] for f in own])
    rows = [_row(own[int(i)], trained[int(i)].params) for i in order]
    return [{key: value for key, value in row.items() if key != "devices"} for row in rows]


def _row(facts: Any, params: dict[str, Any]) -> dict[str, Any]:
    """One architecture from the attribute of its trial: its metric, under the name "accuracy", and seconds."""
    latency = {f"{key}_s": facts[key] for key in ("latency", "low", "high")}
    use = {key: facts[key] for key in _USE_OF_DEVICE if key in facts}
    return {"params": params, "accuracy": facts["metric"], **latency, **use}


def scores(
    study: optuna.Study, objective: LatencyObjective, truth: tuple[ArrayLike, ArrayLike]
) -> dict[str, float | None]:
    """Regret and hypervolume ratio of a study on one device against all architectures.

    None where a score is not defined: the form of the objective only aims at the budget, and nothing, or a single
    architecture, is within it.

    Args:
        study: a finished one.
        objective: of the study.
        truth: latencies (s), as the study's model predicts them, and accuracies of all architectures.
    """
    found = [attribute_of(t) for t in study.trials if is_training(t)]
    pairs = ([f["latency"] for f in found], [f["metric"] for f in found])
    budget = next((limit.most for limit in objective.limits if limit.quantity == "latency"), None)

    def score(of: Callable[..., float]) -> float | None:
        with suppress(scoring.ScoringError):
            return of(pairs, truth, budget=budget)
        return None

    return {"regret": score(scoring.regret), "hypervolume_ratio": score(scoring.hypervolume_ratio)}
