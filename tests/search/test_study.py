"""Tests of hwcost.search.run_study: counting, resuming, stopping, refusing; and of its samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

from hwcost.search import (
    ArchitectureSampler,
    FeasibleSampler,
    LatencyObjective,
    NothingFits,
    ObjectiveError,
    StudyError,
    run_study,
    summarise,
)
from hwcost.search.once import attribute_of, is_training
from hwcost.search.storage import open_storage

Toys = Any
FEASIBLE = {(w, d) for w in (1, 2, 3, 4) for d in (1, 2, 3) if w * d <= 5}  # at 5 ms; 7 of 12


def objective(toys: Toys, **more: Any) -> LatencyObjective:
    return LatencyObjective(toys.build, toys.training, **{"model": toys.model, "budget": "5 ms"} | more)


class TestCounting:
    """Trainings are counted, proposals are not."""

    def test_as_many_trainings_as_asked_for_all_within_the_budget(self, toys: Toys) -> None:
        study = run_study(objective(toys), trainings=6)
        assert len(toys.training.trained) == len(set(toys.training.trained)) == 6
        assert set(toys.training.trained) <= FEASIBLE
        assert sum(is_training(t) for t in study.trials) == 6

    def test_it_finds_the_best_of_a_small_space(self, toys: Toys) -> None:
        """Within 5 ms, (4, 1) has 0.5 + 0.4 + 0.05 = 0.95; everything else that fits has less."""
        assert run_study(objective(toys), trainings=7).best_value == pytest.approx(0.95)

    def test_it_stops_when_everything_that_fits_is_trained(self, toys: Toys) -> None:
        study = run_study(objective(toys), trainings=100)
        assert set(toys.training.trained) == FEASIBLE
        assert len(toys.training.trained) == len(FEASIBLE)
        assert len(study.trials) < 200

    def test_several_threads_train_each_architecture_once(self, toys: Toys) -> None:
        run_study(objective(toys), trainings=6, n_jobs=3)
        assert len(toys.training.trained) == len(set(toys.training.trained))
        assert 6 <= len(toys.training.trained) <= 7

    def test_a_seed_repeats_a_study(self, toys: Toys) -> None:
        first = [t.params for t in run_study(objective(toys), trainings=5, seed=3).trials]
        assert first == [t.params for t in run_study(objective(toys), trainings=5, seed=3).trials]

    def test_progress_is_told_in_trainings(self, toys: Toys) -> None:
        told: list[tuple[float, float]] = []
        run_study(objective(toys), trainings=3, progress=lambda done, total, note="": told.append((done, total)))
        assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize("form", ["constraint", "pareto", "mnas-soft", "linear"])
    def test_forms(self, toys: Toys, form: Any) -> None:
        study = run_study(objective(toys, form=form), trainings=5)
        assert len(toys.training.trained) == 5
        assert study.metric_names == objective(toys, form=form).metric_names

    def test_a_pareto_study_finds_the_ends_of_the_front(self, toys: Toys) -> None:
        study = run_study(objective(toys, form="pareto"), trainings=7)
        assert {(1, 1), (4, 1)} <= {(t.params["width"], t.params["depth"]) for t in study.best_trials}


class TestResuming:
    """A study that exists is continued."""

    def test_a_resumed_study_trains_only_what_is_missing(self, toys: Toys, tmp_path: Path) -> None:
        storage = str(tmp_path / "study.db")
        run_study(objective(toys), trainings=3, storage=storage, name="s")
        study = run_study(objective(toys), trainings=5, storage=storage, name="s")
        assert len(toys.training.trained) == len(set(toys.training.trained)) == 5
        assert sum(is_training(t) for t in study.trials) == 5

    def test_a_finished_study_costs_nothing(self, toys: Toys, tmp_path: Path) -> None:
        storage = f"sqlite:///{tmp_path / 'study.db'}"
        trials = len(run_study(objective(toys), trainings=3, storage=storage, name="s").trials)
        assert len(run_study(objective(toys), trainings=3, storage=storage, name="s").trials) == trials

    def test_a_journal_file_serves_as_well(self, toys: Toys, tmp_path: Path) -> None:
        storage = f"journal:///{tmp_path / 'study.log'}"
        run_study(objective(toys), trainings=2, storage=storage, name="s")
        run_study(objective(toys), trainings=3, storage=storage, name="s")
        assert len(toys.training.trained) == 3

    @pytest.mark.parametrize(
        ("change", "what"),
        [({"budget": "4 ms"}, "budget"), ({"confidence": 0.9}, "confidence"), ({"form": "mnas-soft"}, "form")],
    )
    def test_another_search_under_the_same_name_is_refused(
        self, toys: Toys, tmp_path: Path, change: dict[str, Any], what: str
    ) -> None:
        storage = str(tmp_path / "study.db")
        run_study(objective(toys), trainings=2, storage=storage, name="s")
        with pytest.raises(StudyError, match=f"study 's' was made with {what} .* use another name or storage"):
            run_study(objective(toys, **change), trainings=3, storage=storage, name="s")

    def test_another_space_under_the_same_name_is_refused(self, toys: Toys, tmp_path: Path) -> None:
        storage = str(tmp_path / "study.db")
        run_study(objective(toys), trainings=2, storage=storage, name="s")
        other = objective(toys)
        other.build = lambda t: {"width": t.suggest_categorical("width", (1, 2)), "depth": 1}
        message = r"was made with space width .*choices \[1, 2, 3, 4\], but this search has \[1, 2\]; use another name"
        with pytest.raises(StudyError, match=message):
            run_study(other, trainings=3, storage=storage, name="s")

    def test_other_directions_under_the_same_name_are_refused(self, toys: Toys, tmp_path: Path) -> None:
        storage = str(tmp_path / "study.db")
        run_study(objective(toys), trainings=2, storage=storage, name="s")
        with pytest.raises(StudyError, match=r"has directions \['maximize'\], but form 'pareto' needs"):
            run_study(objective(toys, form="pareto"), trainings=2, storage=storage, name="s")

    def test_a_storage_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"study storage .* cannot be opened: "):
            open_storage(str(tmp_path / "no" / "such" / "folder.db"))

    def test_a_password_is_not_told(self) -> None:
        with pytest.raises(StudyError, match=r"'nosuch://me:\*\*\*@host/db' cannot be opened: .*; give a path such as"):
            open_storage("nosuch://me:secret@host/db")


class TestTrouble:
    """What goes wrong is told in one line, and what was trained stays."""

    def test_a_budget_that_nothing_meets(self, toys: Toys) -> None:
        message = r"feasible share 0 %\), and the nearest .* has latency at 2 times its limit; raise the budget"
        with pytest.raises(NothingFits, match=message):
            run_study(objective(toys, budget="0.5 ms"), trainings=3)

    def test_a_budget_that_nothing_meets_with_another_sampler(self, toys: Toys) -> None:
        with pytest.raises(NothingFits, match="feasible share 0 %"):
            run_study(objective(toys, budget="0.5 ms"), trainings=3, sampler=TPESampler(seed=0))

    def test_a_training_that_raises_leaves_the_finished_ones(self, toys: Toys, tmp_path: Path) -> None:
        def breaks(architecture: Any, trial: Any) -> float:
            if len(toys.training.trained) == 2:
                raise RuntimeError("out of memory")
            return float(toys.training(architecture, trial))

        broken, storage = objective(toys), str(tmp_path / "study.db")
        broken.evaluate = breaks
        with pytest.raises(RuntimeError, match="out of memory"):
            run_study(broken, trainings=5, storage=storage, name="s")
        study = run_study(objective(toys), trainings=5, storage=storage, name="s")
        assert sum(is_training(t) for t in study.trials) == 5
        assert len(toys.training.trained) == 5

    @pytest.mark.parametrize(("what", "value", "least"), [("trainings", 0, 1), ("n_jobs", 0, 1), ("seed", -1, 0)])
    def test_numbers_are_not_too_small(self, toys: Toys, what: str, value: int, least: int) -> None:
        with pytest.raises(StudyError, match=f"{what} must be at least {least}, but got {value}"):
            run_study(objective(toys), **{what: value})

    def test_a_training_that_raises_stops_the_other_threads_too(self, toys: Toys) -> None:
        """What they are training ends; of 500 trainings hardly any is begun."""
        begun: list[int] = []

        def breaks(architecture: Any, trial: Any) -> float:
            begun.append(trial.number)
            if len(begun) == 2:
                raise RuntimeError("out of memory")
            return 0.5

        wide = LatencyObjective(
            lambda t: {"width": t.suggest_int("width", 1, 10**6), "depth": 1}, breaks, model=toys.model, budget="1 h"
        )
        with pytest.raises(RuntimeError, match="out of memory"):
            run_study(wide, trainings=500, n_jobs=2)
        assert len(begun) < 100

    def test_a_metric_that_is_nan(self, toys: Toys) -> None:
        broken = objective(toys)
        broken.evaluate = lambda a, t: float("nan")
        with pytest.raises(ObjectiveError, match="finite number, but returned nan"):
            run_study(broken, trainings=2)


@pytest.mark.parametrize("make", [RandomSampler, TPESampler, NSGAIISampler, GPSampler])
def test_every_sampler_trains_feasible_architectures_only(make: Any, toys: Toys) -> None:
    pytest.importorskip("torch")
    study = run_study(objective(toys), trainings=4, sampler=make(seed=0))
    assert set(toys.training.trained) <= FEASIBLE
    assert sum(is_training(t) for t in study.trials) == 4


def pruning(trial: Any) -> dict[str, int]:
    """A user's own function that prunes what does not go together: odd widths with an even depth."""
    width, depth = trial.suggest_categorical("width", (1, 2, 3, 4)), trial.suggest_int("depth", 1, 3)
    if width % 2 and depth % 2 == 0:
        raise optuna.TrialPruned("an odd width needs an odd depth")
    return {"width": width, "depth": depth}


@pytest.mark.parametrize("make", [lambda seed: None, RandomSampler, TPESampler, NSGAIISampler, GPSampler])
def test_what_build_prunes_is_no_architecture(make: Any, toys: Toys) -> None:
    """Of the seven that fit 5 ms, (1, 2) is pruned."""
    pytest.importorskip("torch")
    own = LatencyObjective(pruning, toys.training, model=toys.model, budget="5 ms")
    run_study(own, trainings=3, sampler=make(seed=0))
    assert len(toys.training.trained) == 3
    assert set(toys.training.trained) <= FEASIBLE - {(1, 2)}
    assert {e.decision for e in summarise(own, samples=200).devices[0].effects} == {"width", "depth"}


def test_a_build_that_prunes_everything_is_told(toys: Toys) -> None:
    def prunes(trial: Any) -> Any:
        trial.suggest_int("width", 1, 4)
        raise optuna.TrialPruned

    own = LatencyObjective(prunes, toys.training, model=toys.model, budget="5 ms")
    with pytest.raises(NothingFits, match="build prunes all of 3000 random architectures"):
        run_study(own, trainings=1)
    with pytest.raises(ObjectiveError, match="build prunes all of 10 random architectures"):
        summarise(own, samples=10)


def test_the_wrapper_proposes_feasible_architectures_only(toys: Toys) -> None:
    gated = objective(toys)
    study = optuna.create_study(direction="maximize", sampler=FeasibleSampler(RandomSampler(seed=0), gated))
    study.optimize(gated, n_trials=20)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert {attribute_of(t)["state"] for t in study.trials} == {"trained", "known"}


def test_modules_are_looked_at_less_than_data(toys: Toys) -> None:
    """Each must be built and traced."""
    torch = pytest.importorskip("torch")
    modules = objective(toys)
    modules.build = lambda trial: torch.nn.Linear(8, trial.suggest_int("width", 1, 99))
    assert (ArchitectureSampler(objective(toys)).looks, ArchitectureSampler(modules).looks) == (3000, 300)
    assert ArchitectureSampler(modules, looks=50).looks == 50
