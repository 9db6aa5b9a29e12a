"""Plots of a small study whose every latency and accuracy is known: width x depth ms, 0.5 + width/10 + depth/20."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from hwcost.search import LatencyObjective
from hwcost.search.artifacts import ArtifactError, breakdown_of, folder_beside
from hwcost.search.plots import (
    PlotError,
    plot_block_costs,
    plot_latency_history,
    plot_param_importances,
    plot_pareto_front,
)

Toys = Any
POINTS = [(1, 1), (4, 3), (2, 2), (4, 1), (1, 3)]  # 1, 12, 4, 4, 3 ms; accuracy 0.65, -, 0.8, 0.95, 0.75


class Blocky:
    """A toy model that knows its blocks: a stem of 0.4 ms, the rest in the body."""

    def estimate(self, architecture: Any, inputs: Any = None) -> Any:
        t = architecture["width"] * architecture["depth"] * 1e-3
        blocks = {name: SimpleNamespace(latency=s, low=s, high=s) for name, s in (("stem", 4e-4), ("body.0", t - 4e-4))}
        return SimpleNamespace(latency=t, low=t / 1.2, high=t * 1.2, blocks=blocks)


def study_of(toys: Toys, *, points: Any = POINTS, **more: Any) -> optuna.Study:
    toys.model.spread = 1.2
    settings: dict[str, Any] = {"model": toys.model, "budget": "5 ms", "form": "pareto"} | more
    objective = LatencyObjective(toys.build, toys.training, **settings)
    study = optuna.create_study(directions=objective.directions, study_name="toys")
    study.set_user_attr("hwcost", {"budget": {limit.key: limit.most for limit in objective.limits}})
    for width, depth in points:
        study.enqueue_trial({"width": width, "depth": depth})
    study.optimize(objective, n_trials=len(points))
    return study


def trace(figure: Any, name: str) -> Any:
    (found,) = [t for t in figure.data if t.name == name]
    return found


def test_the_front_is_told_from_what_it_beats_and_from_what_was_never_trained(toys: Toys) -> None:
    """(4, 1) beats (2, 2), which takes as long; (4, 3) is over the budget of 5 ms."""
    figure = plot_pareto_front(study_of(toys))
    assert list(trace(figure, "Best Trial").x) == pytest.approx([1, 4, 3])
    assert list(trace(figure, "Best Trial").y) == pytest.approx([0.65, 0.95, 0.75])
    assert list(trace(figure, "Feasible Trial").y) == pytest.approx([0.8])
    rejected = trace(figure, "Infeasible Trial (not trained)")
    assert list(rejected.x) == pytest.approx([12])
    assert rejected.marker.color == "#cccccc"
    assert figure.layout.shapes[0].x0 == pytest.approx(5)


def test_intervals_are_bars(toys: Toys) -> None:
    bars = trace(plot_pareto_front(study_of(toys)), "Feasible Trial").error_x
    assert (list(bars.array), list(bars.arrayminus)) == (pytest.approx([0.8]), pytest.approx([4 - 4 / 1.2]))


def test_what_was_trained_before_the_budget_was_known_is_grey(toys: Toys) -> None:
    study = study_of(toys, points=[(1, 1), (2, 2)], budget=None)
    late = optuna.trial.create_trial(
        params=study.trials[1].params, distributions=study.trials[1].distributions, values=[0.9, 0.006],
        user_attrs={"hwcost": {"state": "trained", "metric": 0.9, "latency": 0.006, "low": 0.006, "high": 0.006}},
        constraints={"latency": 0.2},
    )  # fmt: skip
    study.add_trial(late)
    assert list(trace(plot_pareto_front(study), "Infeasible Trial").y) == [0.9]


def test_the_history_shows_the_best_so_far(toys: Toys) -> None:
    figure = plot_latency_history(study_of(toys))
    assert list(trace(figure, "Best Value").y) == pytest.approx([0.65, 0.8, 0.95, 0.95])
    assert list(trace(figure, "Trained").x) == [0, 2, 3, 4]
    assert list(trace(figure, "Infeasible Trial").y) == pytest.approx([12])


def test_each_device_has_its_front(toys: Toys) -> None:
    models = {"phone": type(toys.model)(scale=10), "server": type(toys.model)()}
    study = study_of(toys, model=models, budget={"phone": "50 ms", "server": "5 ms"})
    assert sorted(trace(plot_pareto_front(study, device="phone"), "Best Trial").x) == pytest.approx([10, 30, 40])
    assert sorted(trace(plot_pareto_front(study, device="server"), "Best Trial").x) == pytest.approx([1, 3, 4])
    with pytest.raises(PlotError, match="no device 'moon' in study 'toys'; it has phone, server"):
        plot_pareto_front(study, device="moon")


def test_blocks_of_the_winners(toys: Toys, tmp_path: Path) -> None:
    study = study_of(toys, model=Blocky(), artifacts=tmp_path)
    figure = plot_block_costs(study, artifacts=tmp_path)
    assert list(trace(figure, "stem").x) == pytest.approx([0.4, 0.4, 0.4])
    assert list(trace(figure, "body.0").x) == pytest.approx([0.6, 2.6, 3.6])  # by rising latency: 1, 3, 4 ms
    assert trace(figure, "stem").y[0] == "trial 0: 0.65"


def test_a_breakdown_is_an_artifact_of_its_trial(toys: Toys, tmp_path: Path) -> None:
    study = study_of(toys, model=Blocky(), artifacts=tmp_path)
    found = breakdown_of(study, study.trials[0], tmp_path)["devices"]["device"]
    assert [part["name"] for part in found["parts"]] == ["stem", "body.0"]
    assert sum(part["latency_s"] for part in found["parts"]) == pytest.approx(found["latency"])
    assert len(list(tmp_path.iterdir())) == 4  # one a training; the rejected one has none
    with pytest.raises(ArtifactError, match="trial 1 has no breakdown"):
        breakdown_of(study, study.trials[1], tmp_path)
    with pytest.raises(ArtifactError, match=r"is not in .*; give the folder of the search"):
        breakdown_of(study, study.trials[0], tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ("study.db", "study.db.artifacts"),
        ("sqlite:////data/study.db", "/data/study.db.artifacts"),
        ("journal:///study.log", "study.log.artifacts"),
        ("postgresql://host/db", None),
        ("grpc://host:13000", None),
    ],
)
def test_artifacts_lie_beside_a_study_that_is_a_file(storage: str, folder: str | None) -> None:
    assert folder_beside(storage) == (folder if folder is None else Path(folder))


def test_a_model_without_blocks_has_no_cost_of_blocks(toys: Toys, tmp_path: Path) -> None:
    study = study_of(toys, artifacts=tmp_path)
    with pytest.raises(PlotError, match="tells no cost of blocks"):
        plot_block_costs(study, artifacts=tmp_path)


def test_importances_of_both_stand_side_by_side(toys: Toys) -> None:
    """Latency is width x depth, over 1..4 and 1..3: width varies it more. Accuracy too: 0.1 a step against 0.05."""
    everything = [(w, d) for w in (1, 2, 3, 4) for d in (1, 2, 3)]
    figure = plot_param_importances(study_of(toys, points=everything, budget="1 s"))
    for name in ("latency", "accuracy"):
        bars = trace(figure, name) if name == "latency" else figure.data[1]
        importance = dict(zip(bars.y, bars.x, strict=True))
        assert importance["width"] > importance["depth"]
        assert sum(importance.values()) == pytest.approx(1)


@pytest.mark.parametrize("plot", [plot_pareto_front, plot_latency_history, plot_param_importances])
def test_a_study_without_trainings_is_refused(plot: Any) -> None:
    with pytest.raises(PlotError, match="study 'empty' has no training of a LatencyObjective"):
        plot(optuna.create_study(study_name="empty"))


def test_importances_of_one_training_are_refused(toys: Toys) -> None:
    with pytest.raises(PlotError, match="need at least 2 architectures, but the study has 1"):
        plot_param_importances(study_of(toys, points=[(1, 1)]))
