"""Tests of hwcost.search.utilisation: worked numbers, and what trials keep of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from torch import nn

from hwcost import CostModel, Device, LatencyTable
from hwcost.search import LatencyObjective
from hwcost.search.once import attribute_of
from hwcost.search.spaces import get_space
from hwcost.search.utilisation import Ceilings, ceilings_of, facts_of, parts_of

TOY = Ceilings(peak=100.0, bandwidth=10.0)


@pytest.mark.parametrize(
    ("flops", "traffic", "latency", "achieved"),
    [
        (1000, 10, 10.0, 1.0),  # 100 flop/byte: compute-bound, 1000 / 100 = 10 s at best
        (1000, 10, 40.0, 0.25),
        (100, 100, 20.0, 0.5),  # 1 flop/byte: memory-bound, 100 / 10 = 10 s at best
        (0, 50, 5.0, 1.0),  # a copy
    ],
)
def test_achieved(flops: float, traffic: float, latency: float, achieved: float) -> None:
    assert TOY.achieved(flops, traffic, latency) == achieved


def test_an_analytic_model_reaches_the_ceiling_of_one_kernel() -> None:
    """Linear(8, 32) on 1 x 8: 544 flop, 1,312 byte."""
    model = CostModel.analytic(Device.load("intel-i9-10980xe"))
    estimate = model.estimate(nn.Linear(8, 32), (torch.empty(1, 8, device="meta"),))
    facts = facts_of(estimate, ceilings_of(model))
    assert facts["intensity"] == pytest.approx(544 / 1312)
    assert facts["memory_share"] == 1.0
    assert facts["achieved"] == pytest.approx(1.0)
    (part,) = parts_of(estimate)
    assert (part["flops"], part["bytes"], part["bound"]) == (544, 1312, "memory")


def test_the_roofline_of_parts_is_never_below_that_of_the_whole() -> None:
    """So what is achieved lies below 1 where kernels are bound by different ceilings."""
    model = CostModel.analytic(Device.load("intel-i9-10980xe"))
    net = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4000))
    estimate = model.estimate(net, (torch.empty(1, 64, 32, 32, device="meta"),))
    assert 0.1 < facts_of(estimate, ceilings_of(model))["achieved"] < 1


@dataclass
class LatencyOnly:
    """An estimate with a latency and nothing else."""

    latency: float = 1.0
    low: float = 1.0
    high: float = 1.0


def test_what_an_estimate_does_not_know_is_left_out() -> None:
    assert facts_of(LatencyOnly(), TOY) == {"latency": 1.0, "low": 1.0, "high": 1.0}
    assert parts_of(LatencyOnly()) == []
    assert ceilings_of(object()) is None


def test_a_table_knows_the_device_that_it_was_priced_for(tmp_path: Path) -> None:
    """A device of the user's own, which no catalogue has; a table measured without a model has no device file."""
    own = Device.load("nvidia-a100-40gb").model_copy(update={"name": "my-board"})
    table = LatencyTable.build(get_space("nas-bench-201"), CostModel.analytic(own))
    table.save(tmp_path / "t.parquet")
    assert ceilings_of(LatencyTable.load(tmp_path / "t.parquet")) == Ceilings(19.5e12, 1555e9)
    assert ceilings_of(SimpleNamespace(meta={"target": {"device": "AMD EPYC"}})) is None


def test_every_trial_keeps_them() -> None:
    model = CostModel.analytic(Device.load("intel-i9-10980xe"))
    inputs = (torch.empty(1, 8, device="meta"),)
    objective = LatencyObjective(
        lambda t: nn.Linear(8, 32), lambda m, t: 0.5, model=model, inputs=inputs, budget="1 ps"
    )
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=1)
    assert attribute_of(study.trials[0])["state"] == "rejected"
    assert {"intensity", "memory_share", "achieved", "bound"} <= set(attribute_of(study.trials[0]))
