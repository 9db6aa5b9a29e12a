"""Tests of hwcost.search.once: what workers read of a study, and that one leaves to another what that one trains."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from hwcost.search import LatencyObjective
from hwcost.search.once import TrialReader, attribute_of, is_training, key_of

Toys = Any


class TestTrialReader:
    """Each finished trial is returned once, in order; those after an unfinished one are returned again."""

    def test_a_trial_that_finishes_late_is_not_missed(self) -> None:
        study, reader = optuna.create_study(), TrialReader()
        first, second = study.ask(), study.ask()
        study.tell(second, 1.0)
        finished, others = reader.read(study)
        assert (finished, [t.number for t in others]) == ([], [0, 1])
        study.tell(first, 0.0)
        finished, others = reader.read(study)
        assert ([t.number for t in finished], others) == ([0, 1], [])
        assert reader.read(study) == ([], [])

    def test_two_studies_of_one_objective_do_not_mix(self, toys: Toys) -> None:
        toy = LatencyObjective(toys.build, toys.training, model=toys.model, budget="5 ms")
        for _ in range(2):
            study = optuna.create_study(direction="maximize")
            study.enqueue_trial({"width": 1, "depth": 1})
            study.optimize(toy, n_trials=1)
            assert attribute_of(study.trials[0])["state"] == "trained"
        assert toys.training.trained == [(1, 1), (1, 1)]


def test_an_architecture_trained_by_another_worker_now_is_left_alone(toys: Toys) -> None:
    objective = LatencyObjective(toys.build, toys.training, model=toys.model, budget="5 ms")
    study = optuna.create_study(direction="maximize")
    for _ in range(2):
        study.enqueue_trial({"width": 1, "depth": 1})
    other = study.ask()
    architecture = toys.build(other)
    judgement = objective.judge(architecture, other.params)
    other.set_user_attr("hwcost", {"key": judgement.key, "state": "training"})
    with pytest.raises(optuna.TrialPruned, match="being trained in trial 0"):
        objective(study.ask())
    assert not toys.training.trained


def test_equal_architectures_have_equal_keys() -> None:
    """Plain data by what it holds, in any order; anything else by the parameters of its trial."""
    assert key_of({"a": 1, "b": 2}, {}) == key_of({"b": 2, "a": 1}, {"x": 1})
    assert key_of({"a": 1}, {}) != key_of({"a": 2}, {})
    assert key_of(object(), {"a": 1}) == key_of(object(), {"a": 1}) != key_of(object(), {"a": 2})


def test_a_trial_of_an_older_version_is_read() -> None:
    """The attribute as hwcost 0.1 writes it."""
    estimate = {"latency": 0.004, "low": 0.003, "high": 0.005}
    attribute = {"key": "0123456789abcdef", **estimate, "state": "trained", "metric": 0.9}
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=0.9, user_attrs={"hwcost": attribute}))
    assert is_training(study.trials[0])
    assert attribute_of(study.trials[0])["metric"] == 0.9
