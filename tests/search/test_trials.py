"""Tests of what becomes of a trial: pruned, failed, repeated, tuned; and of every sampler, under one contract."""

from __future__ import annotations

import collections
import warnings
from typing import Any

import optuna
import pytest
from optuna.samplers import (
    BruteForceSampler,
    GPSampler,
    GridSampler,
    NSGAIIISampler,
    NSGAIISampler,
    PartialFixedSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from hwcost.search import ArchitectureSampler, LatencyObjective, NothingFits, ObjectiveError, Rows, run_study
from hwcost.search.detached_trial import DetachedTrial
from hwcost.search.once import attribute_of

Toys = Any
FEASIBLE = {(w, d) for w in (1, 2, 3, 4) for d in (1, 2, 3) if w * d <= 5}


def objective(toys: Toys, evaluate: Any = None, **more: Any) -> LatencyObjective:
    return LatencyObjective(toys.build, evaluate or toys.training, **{"model": toys.model, "budget": "5 ms"} | more)


def counted(toys: Toys, fate: Any) -> tuple[Any, collections.Counter[Any]]:
    """A training that first does what `fate(architecture, trial)` does, and how often each architecture was begun."""
    begun: collections.Counter[Any] = collections.Counter()

    def evaluate(architecture: Any, trial: Any) -> float:
        begun[tuple(architecture.values())] += 1
        fate(architecture, trial)
        return float(toys.training(architecture, trial))

    return evaluate, begun


class TestFate:
    """What was pruned or has failed is not paid again, and counts as paid."""

    def test_pruned(self, toys: Toys) -> None:
        def fate(architecture: Any, trial: Any) -> None:
            trial.report(0.1 * architecture["width"], 0)
            if architecture["width"] < 3:
                raise optuna.TrialPruned

        evaluate, begun = counted(toys, fate)
        study = run_study(objective(toys, evaluate), trainings=len(FEASIBLE))
        assert set(begun) == FEASIBLE
        assert max(begun.values()) == 1
        assert (
            sum(attribute_of(t).get("state") == "pruned" for t in study.trials) == 5
        )  # widths 1 and 2: (1,*), (2,1), (2,2)

    def test_out_of_memory_is_never_begun_again(self, toys: Toys) -> None:
        def fate(architecture: Any, trial: Any) -> None:
            if architecture["depth"] == 1:
                raise RuntimeError("CUDA out of memory")

        evaluate, begun = counted(toys, fate)
        run_study(objective(toys, evaluate), trainings=len(FEASIBLE), catch=RuntimeError)
        assert set(begun) == FEASIBLE
        assert max(begun.values()) == 1

    def test_another_failure_is_begun_once_more(self, toys: Toys) -> None:
        def fate(architecture: Any, trial: Any) -> None:
            raise KeyError("flaky")

        evaluate, begun = counted(toys, fate)
        study = optuna.create_study(direction="maximize")
        for _ in range(4):
            study.enqueue_trial({"width": 1, "depth": 1})
        study.optimize(objective(toys, evaluate), n_trials=4, catch=(KeyError,))
        assert begun == {(1, 1): 2}
        assert [t.state.name for t in study.trials] == ["FAIL", "FAIL", "PRUNED", "PRUNED"]

    def test_callbacks_timeout_pruner_and_a_study_of_ones_own(self, toys: Toys) -> None:
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
        study.enqueue_trial({"width": 2, "depth": 2})
        seen: list[int] = []
        run_study(objective(toys), trainings=2, study=study, callbacks=[lambda s, t: seen.append(t.number)])
        assert toys.training.trained[0] == (2, 2)
        assert seen == [t.number for t in study.trials]
        assert not run_study(objective(toys), trainings=2, timeout=0.0).trials


def test_a_repeated_trial_has_all_that_its_training_left(toys: Toys) -> None:
    def fate(architecture: Any, trial: Any) -> None:
        trial.set_constraint("latency", 0.25)  # the user's own, named as ours
        trial.set_user_attr("checkpoint", trial.number)
        trial.report(0.3, 0)

    evaluate, begun = counted(toys, fate)
    study = optuna.create_study(direction="maximize")
    for _ in range(2):
        study.enqueue_trial({"width": 2, "depth": 2})
    study.optimize(objective(toys, evaluate), n_trials=2)
    assert sum(begun.values()) == 1
    for trial in study.trials:
        assert trial.constraints == {"latency": 0.25, "latency (predicted)": pytest.approx(4 / 5 - 1)}
        assert trial.user_attrs["checkpoint"] == 0
        assert trial.intermediate_values == {0: 0.3}


@pytest.mark.parametrize("make", [TPESampler, NSGAIISampler])
def test_a_constraints_func_that_reads_what_the_training_left(make: Any, toys: Toys) -> None:
    def fate(architecture: Any, trial: Any) -> None:
        trial.set_user_attr("drop", [architecture["width"] - 2.5])

    evaluate, _ = counted(toys, fate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = make(seed=0, constraints_func=lambda t: t.user_attrs["drop"])
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for width, depth in ((4, 3), (1, 1), (3, 1), (2, 2)):
        study.enqueue_trial({"width": width, "depth": depth})
    study.optimize(objective(toys, evaluate), n_trials=4)
    assert study.best_params == {"width": 2, "depth": 2}


class TestTuned:
    """Parameters of the training belong to the identity of a trial, and are learnt."""

    @staticmethod
    def evaluate(architecture: Any, trial: Any) -> float:
        return -abs(trial.suggest_float("x", 0.0, 1.0) - 0.3) + architecture["width"] / 100

    def test_equal_architectures_with_other_parameters_are_other_trainings(self, toys: Toys) -> None:
        study = optuna.create_study(direction="maximize")
        for x in (0.1, 0.2, 0.1):
            study.enqueue_trial({"width": 1, "depth": 1, "x": x})
        study.optimize(objective(toys, self.evaluate), n_trials=3)
        assert [attribute_of(t)["state"] for t in study.trials] == ["trained", "trained", "known"]

    def test_they_are_learnt(self, toys: Toys) -> None:
        """The best is 0.04. Of 25 random x, about one lies within 0.02 of 0.3, and few have a good width too."""
        study = run_study(objective(toys, self.evaluate), trainings=25)
        assert all("x" in t.params for t in study.trials if attribute_of(t)["state"] == "trained")
        assert study.best_value > 0.04 - 0.02


GRID = {"width": [1, 2, 3, 4], "depth": [1, 2, 3]}
SAMPLERS = {
    "random": lambda o: RandomSampler(seed=0),
    "tpe": lambda o: TPESampler(seed=0),
    "grid": lambda o: GridSampler(GRID, seed=0),
    "brute force": lambda o: BruteForceSampler(seed=0),
    "qmc": lambda o: QMCSampler(seed=0, warn_independent_sampling=False),
    "gp": lambda o: GPSampler(seed=0),
    "nsga2": lambda o: NSGAIISampler(seed=0),
    "nsga3": lambda o: NSGAIIISampler(seed=0),
    "ours": lambda o: ArchitectureSampler(o),
    "fixed around another": lambda o: PartialFixedSampler({"width": 2}, TPESampler(seed=0)),
    "fixed around ours": lambda o: PartialFixedSampler({"width": 2}, ArchitectureSampler(o)),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", SAMPLERS)
class TestEverySampler:
    """No architecture over the budget is trained, none is trained twice, and fixed parameters stay."""

    def holds(self, name: str, toys: Toys) -> None:
        trained = toys.training.trained
        assert trained
        assert len(trained) == len(set(trained))
        assert set(trained) <= FEASIBLE
        if "fixed" in name:
            assert {width for width, _ in trained} == {2}

    def test_in_run_study(self, name: str, toys: Toys) -> None:
        o = objective(toys)
        study = run_study(o, trainings=2, sampler=SAMPLERS[name](o))
        assert len(toys.training.trained) == 2
        assert tuple(study.best_params.values()) in FEASIBLE
        self.holds(name, toys)

    def test_in_a_plain_study(self, name: str, toys: Toys) -> None:
        o = objective(toys)
        optuna.create_study(direction="maximize", sampler=SAMPLERS[name](o)).optimize(o, n_trials=14)
        self.holds(name, toys)


@pytest.mark.parametrize("make", [lambda: GridSampler(GRID, seed=0), lambda: BruteForceSampler(seed=0)])
def test_an_exhaustive_search_ends_when_all_was_seen(make: Any, toys: Toys) -> None:
    run_study(objective(toys), trainings=100, sampler=make())
    assert sorted(toys.training.trained) == sorted(FEASIBLE)


def test_ask_and_tell_teaches_the_sampler(toys: Toys) -> None:
    """Told by hand, all feasible architectures but (4, 1), the best, are known; it is then proposed."""
    o = objective(toys)
    study = optuna.create_study(direction="maximize", sampler=ArchitectureSampler(o, start=3))
    for width, depth in sorted(FEASIBLE - {(4, 1)}):
        study.enqueue_trial({"width": width, "depth": depth})
        trial = study.ask()
        toys.build(trial)
        study.tell(trial, width / 10)
    assert toys.build(study.ask()) == {"width": 4, "depth": 1}


class TestNoArchitecture:
    """What cannot be built is infeasible, with the reason."""

    def test_it_does_not_end_the_search(self, toys: Toys) -> None:
        def build(trial: Any) -> Any:
            params = toys.build(trial)
            if params["width"] == 1:
                raise RuntimeError("kernel larger than input")
            return params

        o = LatencyObjective(build, toys.training, model=toys.model, budget="5 ms")
        study = run_study(o, trainings=3)
        assert len(toys.training.trained) == 3
        failed = [t for t in study.trials if t.params["width"] == 1]
        assert all(attribute_of(t)["reason"] == "RuntimeError: kernel larger than input" for t in failed)
        assert all(t.constraints["build"] > 0 for t in failed)

    def test_a_build_that_never_works_is_told_with_its_reason(self, toys: Toys) -> None:
        def build(trial: Any) -> Any:
            trial.suggest_int("width", 1, 4)
            raise RuntimeError("kernel larger than input")

        o = LatencyObjective(build, toys.training, model=toys.model, budget="5 ms")
        with pytest.raises(NothingFits, match=r"can be built and traced.*RuntimeError: kernel larger than input"):
            run_study(o, trainings=1)


def test_a_detached_trial_is_a_trial_in_every_respect() -> None:
    """Whatever a BaseTrial has can be asked of it."""
    trial = DetachedTrial(lambda name, distribution: distribution.to_external_repr(0.0))
    assert isinstance(trial, optuna.trial.BaseTrial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert trial.suggest_uniform("u", 0, 1) == 0
        assert trial.suggest_categorical("list", [[1, 2], [3]]) == [1, 2]
    trial.set_constraint("size", 2)
    trial.set_user_attr("a", 1)
    trial.report(1.0, 0)
    assert (trial.constraints, trial.user_attrs, trial.should_prune()) == ({"size": 2.0}, {"a": 1}, False)
    assert trial.number >= 0
    assert trial.datetime_start is not None
    assert trial.study.user_attrs == {}


class TestOwnNumbers:
    """A model may be a look-up, a function, or anything with `estimate`; 2 blocks of 1.2 and 0.8 ms make 2 ms."""

    ms = {("conv", 16): "1.2 ms", ("mb", 16): "0.8 ms"}  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(
        "model",
        [
            ms,
            Rows.of({"conv-16": 1.2, "mb_16": 0.8}, unit="ms"),
            Rows.of({("conv", 16): 1200.0, ("mb", 16): 800.0}, unit="us"),
            lambda architecture: 2e-3,
            lambda architecture, inputs: "2 ms",
            {"phone": ms},
        ],
    )
    def test_it_tells_seconds(self, model: Any, tmp_path: Any) -> None:
        o = LatencyObjective(lambda t: [("conv", 16), ("mb", 16)], lambda a, t: 0.5, model=model, budget="5 ms")
        judgement = o.judge([("conv", 16), ("mb", 16)], {})
        assert judgement.facts["latency"] == pytest.approx(2e-3)

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("t.csv", "block,latency_ms\nconv-16,1.2\nmb-16,0.8\n"),
            ("t.csv", "op,width,ms\nconv,16,1.2\nmb,16,0.8\n"),
            ("t.yaml", "conv-16: {count: 10, mean: 1.2}\nmb-16: {count: 9, mean: 0.8}\n"),
            ("t.yaml", "conv-16: 1200 us\nmb-16: 0.8 ms\n"),
        ],
    )
    def test_a_file_is_read(self, file: str, text: str, tmp_path: Any) -> None:
        (tmp_path / file).write_text(text)
        assert Rows.read(tmp_path / file).estimate([("conv", 16), ("mb", 16)]).latency == pytest.approx(2e-3)

    def test_without_a_unit_it_is_refused(self) -> None:
        with pytest.raises(ObjectiveError, match=r"a look-up must tell its unit, but 'conv' has 1.2"):
            LatencyObjective(lambda t: ["conv"], lambda a, t: 0.5, model={"conv": 1.2}, budget="5 ms")
        with pytest.raises(ValueError, match="a budget of latency without a unit is in seconds, and 5 would be"):
            LatencyObjective(lambda t: ["conv"], lambda a, t: 0.5, model={"conv": "1 ms"}, budget=5)

    def test_a_block_without_a_row_is_named(self) -> None:
        with pytest.raises(ObjectiveError, match=r"no row for \('mb', 64\); the nearest are \('mb', 16\)"):
            Rows.of(self.ms).estimate([("mb", 64)])
