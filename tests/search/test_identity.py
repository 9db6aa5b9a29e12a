"""Tests of what a study is: which searches may go on with it, and what it learns from trainings of another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from hwcost.search import LatencyObjective, StudyError, run_study
from hwcost.search.identity import settings_of
from hwcost.search.once import attribute_of
from hwcost.spaces.registry import get_space

Toys = Any


@dataclass(frozen=True)
class Trainer:
    """A training with a setting."""

    steps: int = 56

    def __call__(self, architecture: Any, trial: Any) -> float:
        return self.steps / 100


class Stateful:
    """A training that says itself what it is, and counts its calls."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.calls = 0

    def __call__(self, architecture: Any, trial: Any) -> float:
        self.calls += 1
        return 0.5


def train(architecture: Any, trial: Any, rate: float = 0.1) -> float:
    """A training with a keyword."""
    return rate


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Trainer(), Trainer(steps=56), True),
        (Trainer(), Trainer(steps=2), False),
        (Stateful("a"), Stateful("a"), True),
        (Stateful("a"), Stateful("b"), False),
        (train, train, True),
        (partial(train, rate=0.1), partial(train, rate=0.1), True),
        (partial(train, rate=0.1), partial(train, rate=0.2), False),
        (partial(train), train, False),
        (lambda a, t: 0.1, lambda a, t: 0.2, False),
        ([SimpleNamespace(a={"b": 1})], [SimpleNamespace(a={"b": 1})], True),
        ([SimpleNamespace(a={"b": 1})], [SimpleNamespace(a={"b": 2})], False),
    ],
)
def test_two_trainings_are_equal_where_their_settings_are(one: Any, other: Any, equal: bool) -> None:
    assert (settings_of(one) == settings_of(other)) == equal


def objective(toys: Toys, **more: Any) -> LatencyObjective:
    given = {"evaluate": toys.training, "model": toys.model, "budget": "5 ms"} | more
    return LatencyObjective(toys.build, given.pop("evaluate"), **given)


def in_a_study(o: LatencyObjective, storage: str) -> None:
    run_study(o, trainings=2, storage=storage, name="s")


def plainly(o: LatencyObjective, storage: str) -> None:
    study = optuna.create_study(
        study_name="s", storage=f"sqlite:///{storage}", direction="maximize", load_if_exists=True
    )
    study.enqueue_trial({"width": 1, "depth": 1})
    study.optimize(o, n_trials=1)


@pytest.mark.parametrize("how", [in_a_study, plainly])
@pytest.mark.parametrize(
    ("first", "then", "what"),
    [
        ({"evaluate": Trainer(steps=2)}, {"evaluate": Trainer()}, "training steps 2, but this search has 56"),
        ({"data": "cifar10"}, {"data": "cifar100"}, 'data "cifar10", but this search has "cifar100"'),
        ({"budget": "6 ms"}, {"budget": "4 ms"}, "budget latency 0.006, but this search has 0.004"),
    ],
)
def test_what_differs_is_refused_with_both_values(
    how: Callable[..., None], first: Any, then: Any, what: str, toys: Toys, tmp_path: Path
) -> None:
    storage = str(tmp_path / "s.db")
    how(objective(toys, **first), storage)
    how(objective(toys, **first), storage)
    with pytest.raises(StudyError, match=f"study 's' was made with {what}; use another name"):
        how(objective(toys, **then), storage)


@pytest.mark.parametrize("how", [in_a_study, plainly])
def test_a_look_up_that_tells_other_latencies_is_refused(how: Callable[..., None], toys: Toys, tmp_path: Path) -> None:
    storage = str(tmp_path / "s.db")
    how(objective(toys), storage)
    with pytest.raises(StudyError, match=r"made with a model of 0.00. s for trial 0 .* but this search has one of"):
        how(objective(toys, model=type(toys.model)(scale=1.5)), storage)


def test_a_training_that_counts_its_calls_is_still_the_same(toys: Toys, tmp_path: Path) -> None:
    calls: list[int] = []
    for trainings in (2, 4):
        evaluate = lambda a, t: calls.append(t.number) or 0.5  # type: ignore[func-returns-value] # noqa: E731
        run_study(objective(toys, evaluate=evaluate), trainings, storage=str(tmp_path / "s.db"), name="s")
    assert len(calls) == 4


def test_trainings_are_told_again_under_another_budget_and_none_is_paid_twice(toys: Toys) -> None:
    """At 12 ms every architecture fits; at 4 ms those with width x depth <= 4: 7 of 12."""
    wide = run_study(objective(toys, budget="12 ms"), trainings=12)
    assert len(toys.training.trained) == 12
    tight = run_study(objective(toys, budget="4 ms"), trainings=1, reuse=wide)
    assert len(toys.training.trained) == 12
    reused = [t for t in tight.trials if attribute_of(t)["state"] == "reused"]
    assert len(reused) == sum(w * d <= 4 for w in (1, 2, 3, 4) for d in (1, 2, 3)) == 7
    assert tight.best_value == pytest.approx(0.5 + 4 / 10 + 1 / 20)
    assert all(t.constraints["latency"] <= 0 for t in reused)


def test_other_trainings_are_not_told_again(toys: Toys) -> None:
    source = run_study(objective(toys, evaluate=Trainer(steps=2)), trainings=1)
    with pytest.raises(StudyError, match="training steps 2, but this search has 56"):
        run_study(objective(toys, evaluate=Trainer()), trainings=1, name="other", reuse=source)


def test_a_space_that_was_used_is_the_same() -> None:
    """It keeps what it has computed once; that is no setting."""
    space = get_space("tiny-cnn")
    training = partial(train, space)
    before = settings_of(training)
    space.build(next(iter(space)))
    assert settings_of(training) == before
