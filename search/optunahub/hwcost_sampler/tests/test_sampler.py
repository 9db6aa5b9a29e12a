from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
import optunahub
import pytest


package = optunahub.load_local_module("samplers/hwcost_sampler", registry_root="package/")

BUDGET = 0.005  # s: 7 of the 12 architectures fit
FEASIBLE = {(w, d) for w in range(1, 5) for d in range(1, 4) if w * d <= 5}


class Model:
    def estimate(self, architecture: dict[str, int], inputs: Any = None) -> SimpleNamespace:
        t = architecture["width"] * architecture["depth"] * 1e-3
        return SimpleNamespace(latency=t, low=t, high=t)


class Training:
    def __init__(self) -> None:
        self.trained: list[tuple[int, int]] = []

    def __call__(self, architecture: dict[str, int], trial: optuna.Trial) -> float:
        self.trained.append((architecture["width"], architecture["depth"]))
        return architecture["width"] / 10 + architecture["depth"] / 20


def build(trial: optuna.Trial) -> dict[str, int]:
    width = trial.suggest_categorical("width", (1, 2, 3, 4))
    return {"width": int(width), "depth": trial.suggest_int("depth", 1, 3)}


def make_objective(training: Training) -> Any:
    return package.LatencyObjective(build, training, model=Model(), budget=BUDGET)


def test_the_best_within_the_budget_is_found_and_nothing_is_trained_twice() -> None:
    training = Training()
    objective = make_objective(training)
    sampler = package.ArchitectureSampler(objective, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=40)
    assert study.best_params == {"width": 4, "depth": 1}
    assert set(training.trained) <= FEASIBLE
    assert len(training.trained) == len(set(training.trained))


@pytest.mark.parametrize(
    "base", [optuna.samplers.RandomSampler(seed=0), optuna.samplers.NSGAIISampler(seed=0)]
)
def test_any_sampler_is_made_to_propose_what_is_within_the_budget(base: Any) -> None:
    training = Training()
    objective = make_objective(training)
    sampler = package.FeasibleSampler(base, objective, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=20)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert set(training.trained) <= FEASIBLE


def test_what_is_over_the_budget_is_pruned_before_its_training() -> None:
    training = Training()
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"width": 4, "depth": 3})
    study.optimize(make_objective(training), n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].constraints["latency"] > 0
    assert training.trained == []
