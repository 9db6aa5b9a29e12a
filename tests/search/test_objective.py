"""Tests of LatencyObjective: what holds for every form, and what each form adds."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from torch import nn

from hwcost import CostModel, Device, units
from hwcost.device.ceilings import Energy
from hwcost.search import LatencyObjective, ObjectiveError, penalties
from hwcost.search.budgets import BudgetError, blocks_at
from hwcost.search.objective import FORMS, Form
from hwcost.search.once import attribute_of

Toys = Any
REJECTING = ("constraint", "pareto")


def run(objective: LatencyObjective, *points: tuple[int, int]) -> optuna.Study:
    """A study over the given (width, depth), in that order."""
    study = optuna.create_study(directions=objective.directions)
    for width, depth in points:
        study.enqueue_trial({"width": width, "depth": depth})
    study.optimize(objective, n_trials=len(points))
    return study


@pytest.mark.parametrize("form", FORMS)
class TestEveryForm:
    """What every form keeps; the budget of 5 ms lets (1, 1) with 1 ms pass and not (4, 3) with 12 ms."""

    def objective(self, form: Form, toys: Toys, **more: Any) -> LatencyObjective:
        return LatencyObjective(toys.build, toys.training, form=form, **{"model": toys.model, "budget": "5 ms"} | more)

    def test_a_budget_is_text_with_a_unit_or_seconds(self, form: Form, toys: Toys) -> None:
        assert self.objective(form, toys).limits == self.objective(form, toys, budget=0.005).limits
        with pytest.raises(units.UnitError, match="needs a unit, but got '5'"):
            self.objective(form, toys, budget="5")

    @pytest.mark.parametrize("budget", [0, -1.0, "0 ms"])
    def test_a_budget_is_above_0(self, form: Form, toys: Toys, budget: Any) -> None:
        with pytest.raises(BudgetError, match="must be above 0"):
            self.objective(form, toys, budget=budget)

    def test_equal_architectures_are_trained_once(self, form: Form, toys: Toys) -> None:
        study = run(self.objective(form, toys), (1, 1), (2, 2), (1, 1))
        assert toys.training.trained == [(1, 1), (2, 2)]
        assert study.trials[0].values == study.trials[2].values
        assert [attribute_of(t)["state"] for t in study.trials] == ["trained", "trained", "known"]

    def test_a_restart_remembers(self, form: Form, toys: Toys) -> None:
        study = run(self.objective(form, toys), (2, 1))
        study.enqueue_trial({"width": 2, "depth": 1})
        study.optimize(self.objective(form, toys), n_trials=1)
        assert toys.training.trained == [(2, 1)]

    def test_it_pickles(self, form: Form, toys: Toys) -> None:
        objective = self.objective(form, toys)
        again = pickle.loads(pickle.dumps(objective))
        assert (again.form, again.limits, again.directions) == (form, objective.limits, objective.directions)
        assert run(again, (2, 2)).trials[0].values == run(objective, (2, 2)).trials[0].values

    def test_each_trial_keeps_one_small_attribute(self, form: Form, toys: Toys) -> None:
        trial = run(self.objective(form, toys), (2, 2)).trials[0]
        assert set(trial.user_attrs) == {"hwcost"}
        assert attribute_of(trial)["latency"] == 0.004
        assert attribute_of(trial)["metric"] == pytest.approx(0.8)

    @pytest.mark.parametrize("value", [math.nan, math.inf, None, "good"])
    def test_a_metric_that_is_no_number_fails_the_trial(self, form: Form, toys: Toys, value: Any) -> None:
        objective = LatencyObjective(toys.build, lambda a, t: value, model=toys.model, budget="5 ms", form=form)
        with pytest.raises(ObjectiveError, match=r"evaluate must return a .*number, but returned"):
            run(objective, (1, 1))

    def test_a_study_with_other_directions_is_refused(self, form: Form, toys: Toys) -> None:
        study = optuna.create_study(directions=["minimize"])
        with pytest.raises(ObjectiveError, match=r"needs a study with directions=\['maximize'.*this one has"):
            study.optimize(self.objective(form, toys), n_trials=1)
        assert not toys.training.trained

    def test_an_estimate_that_is_no_latency_is_refused(self, form: Form, toys: Toys) -> None:
        toys.model.scale = math.nan
        with pytest.raises(ObjectiveError, match="must estimate a latency above 0 s, but gave nan"):
            run(self.objective(form, toys), (1, 1))


@pytest.mark.parametrize("form", REJECTING)
class TestTheGate:
    """What is over the budget is rejected before training."""

    def objective(self, form: Form, toys: Toys, **more: Any) -> LatencyObjective:
        return LatencyObjective(toys.build, toys.training, form=form, **{"model": toys.model, "budget": "5 ms"} | more)

    def test_over_the_budget_means_no_training(self, form: Form, toys: Toys) -> None:
        study = run(self.objective(form, toys), (4, 3), (1, 1))
        assert toys.training.trained == [(1, 1)]
        assert [t.state.name for t in study.trials] == ["PRUNED", "COMPLETE"]
        assert study.trials[0].constraints["latency"] == pytest.approx(12 / 5 - 1)
        assert study.trials[1].constraints["latency"] == pytest.approx(1 / 5 - 1)

    def test_the_budget_itself_is_within_the_budget(self, form: Form, toys: Toys) -> None:
        run(self.objective(form, toys, budget=4 * 1 * 1e-3), (4, 1))
        assert toys.training.trained == [(4, 1)]

    def test_a_margin_rejects_what_might_be_too_slow(self, form: Form, toys: Toys) -> None:
        """4 ms with a 90 % interval up to 6 ms: s = ln(1.5) / 1.645 = 0.2465, so P(t <= 5 ms) =
        Phi(ln(1.25) / 0.2465) = Phi(0.905) = 0.817."""
        assert NormalDist().cdf(math.log(1.25) / (math.log(1.5) / 1.6449)) == pytest.approx(0.817, abs=1e-3)
        toys.model.spread = 1.5
        run(self.objective(form, toys, confidence=0.81), (2, 2))
        assert toys.training.trained == [(2, 2)]
        run(self.objective(form, toys, confidence=0.82), (4, 1))
        assert toys.training.trained == [(2, 2)]

    def test_a_low_confidence_gives_an_unlucky_estimate_its_chance(self, form: Form, toys: Toys) -> None:
        toys.model.spread = 1.5
        run(self.objective(form, toys, budget=0.0058, confidence=0.2), (2, 3))  # 6 ms, low 4 ms
        assert toys.training.trained == [(2, 3)]

    def test_an_architecture_is_estimated_once(self, form: Form, toys: Toys) -> None:
        run(self.objective(form, toys), (4, 3), (4, 3), (1, 1), (1, 1))
        assert toys.model.asked == 2

    def test_several_devices_each_with_its_budget(self, form: Form, toys: Toys) -> None:
        models = {"phone": type(toys.model)(scale=10), "server": type(toys.model)()}
        budget = {"phone": "45 ms", "server": "3.5 ms"}
        study = run(self.objective(form, toys, model=models, budget=budget), (2, 2), (3, 1))
        assert study.trials[0].constraints == {
            "latency@phone": pytest.approx(40 / 45 - 1),
            "latency@server": pytest.approx(4 / 3.5 - 1),
        }
        assert toys.training.trained == [(3, 1)]
        assert set(attribute_of(study.trials[1])["devices"]) == {"phone", "server"}


def make_module(trial: Any) -> nn.Module:
    """A linear layer of 8 to 32 features."""
    return nn.Linear(8, trial.suggest_categorical("features", (8, 32)))


def count_parameters(module: nn.Module, trial: Any) -> float:
    """Stands in for a training."""
    return sum(p.numel() for p in module.parameters())


class TestModules:
    """Architectures that are nn.Modules, priced by a cost model."""

    def objective(self, **more: Any) -> LatencyObjective:
        model = CostModel.analytic(Device.load("intel-i9-10980xe"))
        inputs = (torch.empty(1, 8, device="meta"),)
        return LatencyObjective(make_module, count_parameters, inputs=inputs, **{"model": model} | more)

    def test_any_quantity_may_be_budgeted(self) -> None:
        """Linear(8, 32): 288 parameters, 2 * 256 + 32 = 544 flop, 4 * (8 + 288 + 32) = 1,312 byte."""
        budget = {"params": 288, "flops": "544 FLOP", "bytes": "1312 B", "macs": "256 MAC", "latency": "1 ms"}
        objective = self.objective(budget=budget)
        study = optuna.create_study(direction="maximize")
        study.enqueue_trial({"features": 32})
        study.optimize(objective, n_trials=1)
        constraints = dict(study.trials[0].constraints)
        assert constraints.pop("latency") < 0
        assert constraints == dict.fromkeys(["params", "flops", "bytes", "macs"], 0.0)

    def test_energy_is_weighted_by_the_device_file_where_it_says_so(self) -> None:
        """Linear(8, 32), 544 flop and 1,312 byte: 544 * 1 pJ + 1,312 * 10 pJ = 13.664 nJ by the file, and
        544 * 2.3 pJ + 1,312 * 160 pJ = 211.1712 nJ by the generic weights.
        """
        plain = Device.load("intel-i9-10980xe")
        weighted = plain.model_copy(update={"energy": Energy(per_flop=1e-12, per_byte=1e-11, source="toy")})
        for device, joules in ((weighted, 13.664e-9), (plain, 211.1712e-9)):
            objective = self.objective(budget={"energy": "1 µJ"}, model=CostModel.analytic(device))
            study = optuna.create_study(direction="maximize")
            study.enqueue_trial({"features": 32})
            study.optimize(objective, n_trials=1)
            assert study.trials[0].constraints["energy"] == pytest.approx(joules / 1e-6 - 1)

    @pytest.mark.parametrize("budget", [{"params": 287}, {"peak_memory": "1 kB"}, {"energy": 1e-15}])
    def test_any_quantity_may_reject(self, budget: Any) -> None:
        study = optuna.create_study(direction="maximize")
        study.enqueue_trial({"features": 32})
        study.optimize(self.objective(budget=budget), n_trials=1)
        assert study.trials[0].state.name == "PRUNED"

    def test_a_quantity_may_be_the_second_objective(self) -> None:
        objective = self.objective(form="pareto", against="params")
        study = optuna.create_study(directions=objective.directions)
        study.enqueue_trial({"features": 32})
        study.optimize(objective, n_trials=1)
        assert study.trials[0].values[1] == 288
        assert objective.metric_names == ["accuracy", "params"]

    def test_it_goes_to_another_process(self) -> None:
        objective = pickle.loads(pickle.dumps(self.objective(budget="1 ms")))
        study = optuna.create_study(direction="maximize")
        study.optimize(objective, n_trials=1)
        assert study.trials[0].state.name == "COMPLETE"

    def test_what_cannot_go_to_another_process_is_named(self) -> None:
        objective = self.objective(budget="1 ms")
        objective.evaluate = lambda a, t: 0.0
        with pytest.raises(ObjectiveError, match="evaluate cannot be sent to another process"):
            objective.check_picklable()


def test_pareto_gives_metric_and_latency_of_each_device(toys: Toys) -> None:
    models = {"phone": type(toys.model)(scale=10), "server": type(toys.model)()}
    objective = LatencyObjective(toys.build, toys.training, model=models, form="pareto")
    assert run(objective, (2, 2)).trials[0].values == pytest.approx([0.8, 0.04, 0.004])
    assert objective.metric_names == ["accuracy", "latency@phone", "latency@server"]


def test_pareto_over_the_worst_device(toys: Toys) -> None:
    """40 ms of 80 and 4 ms of 5: the server is worse with 0.8; weighed 3 to 1 it is 0.5 * 0.75 + 0.8 * 0.25."""
    models = {"phone": type(toys.model)(scale=10), "server": type(toys.model)()}
    budget = {"phone": "80 ms", "server": "5 ms"}
    worst = LatencyObjective(toys.build, toys.training, model=models, form="pareto", budget=budget, across="worst")
    assert run(worst, (2, 2)).trials[0].values == pytest.approx([0.8, 0.8])
    weights = {"phone": 3.0, "server": 1.0}
    mean = LatencyObjective(toys.build, toys.training, model=models, form="pareto", budget=budget, across=weights)
    assert run(mean, (2, 2)).trials[0].values == pytest.approx([0.8, 0.575])


def test_a_relative_cost_needs_a_target_on_each_device_before_anything_is_trained(toys: Toys) -> None:
    models = {"phone": toys.model, "server": toys.model}
    with pytest.raises(BudgetError, match="form 'pareto' needs a budget of latency for phone, server"):
        LatencyObjective(toys.build, toys.training, model=models, form="pareto", budget={"params": 100}, across="worst")


@pytest.mark.parametrize("form", [f for f in FORMS if f not in REJECTING])
def test_penalties_reject_nothing_and_score_the_relative_latency(form: Form, toys: Toys) -> None:
    objective = LatencyObjective(toys.build, toys.training, model=toys.model, budget="6 ms", form=form)
    study = run(objective, (4, 3))  # 12 ms: twice the target; accuracy 1.05
    assert study.trials[0].value == pytest.approx(penalties.penalise(form, 1.05, 2.0))
    assert study.metric_names is None


@pytest.mark.parametrize("form", [f for f in FORMS if f not in REJECTING])
def test_a_penalty_still_rejects_by_budgets_of_what_it_does_not_trade(form: Form, toys: Toys) -> None:
    """The latency is traded; at most 1 ms in the stages is a constraint, which 2 ms break."""
    budget = {"latency": "5 ms", "blocks.stages": "1 ms"}
    objective = LatencyObjective(toys.build, toys.training, model=StagedModel(), budget=budget, form=form)
    study = run(objective, (1, 1))
    assert study.trials[0].constraints == {"blocks.stages": pytest.approx(1.0)}
    assert not toys.training.trained


@pytest.mark.parametrize("form", ["mnas-soft", "mnas-hard"])
def test_multiplicative_forms_refuse_a_minimised_metric(form: Form, toys: Toys) -> None:
    with pytest.raises(penalties.PenaltyError, match="needs one that is maximised"):
        LatencyObjective(toys.build, toys.training, model=toys.model, budget=1, form=form, direction="minimize")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"form": "soft"}, "form must be one of constraint, pareto"),
        ({"direction": "up"}, "direction must be 'maximize' or 'minimize', but got 'up'"),
        ({"confidence": 1.0}, r"confidence must lie in \(0, 1\), but got 1.0"),
        ({"budget": None}, "form 'constraint' needs a budget, such as budget='5 ms'"),
        ({"model": object()}, r"must have estimate\(architecture, inputs\), but is a object"),
        ({"model": {}}, "at least one model"),
        ({"budget": {"speed": "5 ms"}}, "no quantity or model 'speed' to budget; choose from latency"),
        ({"budget": {"params": "many"}}, "params is a plain number, but got 'many'"),
        ({"budget": {"params": math.nan}}, "params is a plain number, but got nan"),
        ({"budget": {"params": None}}, "params is a plain number, but got None"),
        ({"budget": {"params": True}}, "params is a plain number, but got True"),
        ({"budget": {"latency": "5 MB"}}, "'MB' is no unit of second"),
        ({"budget": {"blocks.stem": "5 ms"}}, None),
        ({"across": {"moon": 1.0}}, "across must be 'worst' or weights for device"),
        ({"across": {"device": 0.0}}, "weights in across must be finite and above 0, but got {'device': 0.0}"),
        (
            {"form": "linear", "weight": math.nan},
            "must be finite and not above 0, which would reward slowness; got nan",
        ),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(wrong: dict[str, Any], message: str | None, toys: Toys) -> None:
    arguments: dict[str, Any] = {"model": toys.model, "budget": "5 ms"} | wrong
    if message is None:
        LatencyObjective(toys.build, toys.training, **arguments)
        return
    with pytest.raises(ValueError, match=message):
        LatencyObjective(toys.build, toys.training, **arguments)


@dataclass(frozen=True)
class Staged:
    """A block of 1 ms for each unit of depth, as a table tells them."""

    latency: float
    low: float
    high: float
    blocks: dict[str, Any]


class StagedModel:
    """Width 1 has no second stage."""

    def estimate(self, architecture: Any, inputs: Any = None) -> Staged:
        names = ["stem", *(f"stages.{s}.{i}" for s in range(min(architecture["width"], 2)) for i in range(2))]
        t = 1e-3 * len(names)
        return Staged(t, t, t, {name: SimpleNamespace(latency=1e-3, high=1e-3) for name in names})


class TestBlocks:
    """Budgets of a part of the architecture."""

    def constraints(self, toys: Toys, path: str) -> list[float]:
        """Of (width 1, depth 1) and (2, 1), under a budget of 4 ms."""
        objective = LatencyObjective(toys.build, toys.training, model=StagedModel(), budget={f"blocks.{path}": "4 ms"})
        return [t.constraints[f"blocks.{path}"] for t in run(objective, (1, 1), (2, 1)).trials]

    def test_a_path_stands_for_all_below_it(self, toys: Toys) -> None:
        """One stage of 2 ms, then two: 2 / 4 - 1 and 4 / 4 - 1."""
        assert self.constraints(toys, "stages") == pytest.approx([-0.5, 0.0])
        assert self.constraints(toys, "stages.0.1") == pytest.approx([-0.75, -0.75])

    def test_a_block_that_only_some_architectures_have_takes_no_time_in_the_others(self, toys: Toys) -> None:
        assert self.constraints(toys, "stages.1") == pytest.approx([-1.0, -0.5])

    def test_a_block_that_none_has_is_refused(self, toys: Toys) -> None:
        with pytest.raises(BudgetError, match=r"none of 64 random architectures has such a block.*they have stem, sta"):
            self.constraints(toys, "stage")

    def test_a_model_that_tells_no_blocks_is_refused(self, toys: Toys) -> None:
        objective = LatencyObjective(toys.build, toys.training, model=toys.model, budget={"blocks.stem": "1 ms"})
        with pytest.raises(BudgetError, match="they have none, or the model does not tell"):
            run(objective, (1, 1))

    def test_a_cost_models_blocks_may_be_named_at_any_depth(self) -> None:
        net = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 8)))
        estimate = CostModel.analytic("intel-i9-10980xe").estimate(net, (torch.empty(1, 8, device="meta"),))
        each = estimate.latency / 3
        for path, layers in (("0", 3), ("0.0", 2), ("0.0.1", 1), ("0.1", 1)):
            assert sum(b.latency for b in blocks_at(f"blocks.{path}", estimate)) == pytest.approx(layers * each)
