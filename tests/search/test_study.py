"""Tests of hwcost.search.run_study: counting, resuming, stopping, refusing; and of its samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler
from scipy.integrate import quad
from scipy.stats import norm

from hwcost.search import FeasibleSampler, LatencyObjective, NothingFits, ObjectiveError, StudyError, run_study
from hwcost.search.encoding import Encoder
from hwcost.search.memory import attribute_of, is_training
from hwcost.search.sampler import area_improvement
from hwcost.search.study import open_storage
from hwcost.search.surrogate import Settings, Surrogate, expected_improvement, warp

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
        with pytest.raises(StudyError, match="was made with space"):
            run_study(other, trainings=3, storage=storage, name="s")

    def test_other_directions_under_the_same_name_are_refused(self, toys: Toys, tmp_path: Path) -> None:
        storage = str(tmp_path / "study.db")
        run_study(objective(toys), trainings=2, storage=storage, name="s")
        with pytest.raises(StudyError, match=r"has directions \['maximize'\], but form 'pareto' needs"):
            run_study(objective(toys, form="pareto"), trainings=2, storage=storage, name="s")

    def test_a_storage_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"study storage .* cannot be opened: "):
            open_storage(str(tmp_path / "no" / "such" / "folder.db"))


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

    def test_trainings_must_be_at_least_one(self, toys: Toys) -> None:
        with pytest.raises(StudyError, match="at least 1, but got 0"):
            run_study(objective(toys), trainings=0)

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


def test_the_wrapper_proposes_feasible_architectures_only(toys: Toys) -> None:
    gated = objective(toys)
    study = optuna.create_study(direction="maximize", sampler=FeasibleSampler(RandomSampler(seed=0), gated))
    study.optimize(gated, n_trials=20)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert {attribute_of(t)["state"] for t in study.trials} == {"trained", "known"}


class TestSurrogate:
    """The Gaussian process and its acquisition."""

    def views(self, n: int) -> tuple[list[dict[str, Any]], Any]:
        rng = np.random.default_rng(0)
        points = [
            {"a": str(rng.integers(3)), "b": str(rng.integers(3)), "w": int(rng.integers(1, 9))} for _ in range(n)
        ]
        distributions: dict[str, Any] = {
            "a": optuna.distributions.CategoricalDistribution(("0", "1", "2")),
            "b": optuna.distributions.CategoricalDistribution(("0", "1", "2")),
            "w": optuna.distributions.IntDistribution(1, 8),
        }
        costs = np.array([p["w"] + 1.0 for p in points])
        return points, Encoder(distributions)(points, costs)

    def test_distance_is_the_number_of_different_categories(self) -> None:
        points, views = self.views(20)
        for i in range(1, 20):
            different = (points[0]["a"] != points[i]["a"]) + (points[0]["b"] != points[i]["b"])
            far = abs(points[0]["w"] - points[i]["w"]) / 7
            assert np.abs(views.places[0] - views.places[i]).sum() / 2 == pytest.approx(different + far)

    def test_places_with_the_same_choices_are_counted_together(self) -> None:
        points, views = self.views(5)
        for point, row in zip(points, views.counts, strict=True):
            assert row.tolist() == [(point["a"] == c) + (point["b"] == c) for c in "012"]

    def test_it_agrees_with_the_textbook_formula(self) -> None:
        """R&W eq. 2.25 and 2.26, by a plain inverse, for one setting."""
        _, views = self.views(8)
        z = np.linspace(-1, 1, 5)
        s = Settings((1.0, 0.5, 0.5), (2.0, 1.0, 1.0), 0.01)
        process, at = Surrogate(views[slice(0, 5)], z, [s]), views[slice(5, 8)]
        mean, deviation = process.expect(lambda m, _: m, at), process.expect(lambda _, d: d, at)

        def k(i: int, j: int) -> float:
            d1 = np.abs(views.places[i] - views.places[j]).sum() / 2
            d2 = ((views.counts[i] - views.counts[j]) ** 2).sum()
            d3 = ((views.cost[i] - views.cost[j]) ** 2).sum()
            return float((np.exp(-d1 / 2) + 0.5 * np.exp(-d2 / 2) + 0.5 * np.exp(-d3 / 2)) / 2)

        gram = np.array([[k(i, j) for j in range(5)] for i in range(5)]) + (0.01 + 1e-8) * np.eye(5)
        inverse = np.linalg.inv(gram)
        variance = z @ inverse @ z / 5
        for i in range(3):
            row = np.array([k(5 + i, j) for j in range(5)])
            assert mean[i] == pytest.approx(row @ inverse @ z)
            assert deviation[i] ** 2 == pytest.approx(variance * (1 - row @ inverse @ row))

    @given(st.floats(-2, 2), st.floats(0.1, 2), st.floats(-2, 2))
    def test_expected_improvement_is_the_integral_it_stands_for(
        self, mean: float, deviation: float, best: float
    ) -> None:
        by_hand, _ = quad(lambda z: (z - best) * norm.pdf(z, mean, deviation), best, best + 25)
        got = expected_improvement(np.array([mean]), np.array([deviation]), best)[0]
        assert got == pytest.approx(by_hand, abs=1e-6)

    def test_warping_keeps_the_order_and_spreads_the_best(self) -> None:
        z = warp(np.array([10.0, 80.0, 85.0, 88.0, 88.2]))
        assert (np.diff(z) > 0).all()
        assert (z[4] - z[2]) / (z[1] - z[0]) > 10 * (88.2 - 85) / (80 - 10)  # the last three points matter
        assert not warp(np.array([1.0, 1.0])).any()

    def test_area_improvement_favours_what_is_cheap_where_nothing_cheap_is_known(self) -> None:
        """Two candidates of the same promise; accurate networks are known at cost 2 and more only."""
        promise = np.zeros(2), np.ones(2)
        levels = np.array([1.0, 2.0, 3.0])
        cheap, dear = area_improvement(
            *promise, np.array([1.0, 3.0]), np.array([1.0, 0.0]), np.array([2.0, 2.5]), levels
        )
        assert cheap > dear
