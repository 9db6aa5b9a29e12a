"""Tests of hwcost.table.sums: a table adds up to what the model says of the built network, whatever that reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from hwcost import CostModel, Device, LatencyTable
from hwcost.measure.types import Measurements
from hwcost.model.features import NAMES, Columns, reach_of
from hwcost.model.fit import Fitted
from hwcost.model.intervals import Errors
from hwcost.model.overhead import Overhead
from hwcost.model.residual import Prediction, Residual
from hwcost.search.spaces import get_space
from hwcost.spaces.nas_bench_201 import NasBench201
from hwcost.table.price import reach_edges


class Context(Residual):
    """The roofline; each reach makes a kernel 10 % slower, each doubling of its distance 1 %."""

    def predict(self, data: Columns, sigma: Mapping[str, float] | None = None) -> Prediction:
        found = super().predict(data, sigma)
        reach, distance = (data.features[:, NAMES.index(name)] for name in ("reach", "distance"))
        return replace(found, latency=found.latency * 1.1**reach * 1.01**distance)


# x + x reads x once: a node that is reached by two ways which change nothing
SPECIAL = {"nas-bench-201": [NasBench201.from_digits("111201")]}


class Unsaved(CostModel):
    """A model that no file holds: `Context` has no trees to make a digest of."""

    digest = "context"


def model_of(device: Device, runtime: str, measurements: Measurements) -> CostModel:
    """Fitted, in name: what it knows is `Context`."""
    like = CostModel.analytic(device, runtime)
    fitted = Fitted(Context(), Overhead(1.0, 2e-6, 3e-5, 0.0), Errors({}, 0.03, 0.05, 1.6))
    return Unsaved(replace(like.data, fitted=fitted, taken=measurements))


@pytest.mark.parametrize(
    ("name", "runtime", "reaches"),
    [("vit", "torch-eager", 4), ("vit", "onnxruntime", 4), ("nas-bench-201", "torch-eager", 4)],
)
def test_the_sum_is_the_estimate_of_the_built_network(
    device: Device, measurements: Measurements, name: str, runtime: str, reaches: int
) -> None:
    model, space = model_of(device, runtime, measurements), get_space(name)
    table, rng = LatencyTable.build(space, model), np.random.default_rng(0)
    reached = set()
    for params in [*(space.sample(rng) for _ in range(30)), *SPECIAL.get(name, [])]:
        with torch.device("meta"):
            built = model.estimate(space.build(params).eval(), space.inputs(params))
        found, choices = table.estimate(params), space.choices(params)
        assert found.latency == pytest.approx(built.latency, rel=1e-9)
        assert table.latency(choices)[0] == pytest.approx(found.latency, rel=1e-9)
        assert table.latency([choices] * 2)[1] == pytest.approx(found.latency, rel=1e-9)
        assert sum(b.latency for b in found.blocks.values()) == pytest.approx(found.latency - table.meta["fixed_s"])
        assert model.estimate_many([params], space=space)[0].latency == pytest.approx(built.latency, rel=1e-9)
        reached.add(reach_of(built.cost.bytes, device))
    assert len(reached) == reaches


def test_the_edges_are_where_the_reach_changes(device: Device) -> None:
    for reach, edge in enumerate(reach_edges(device), start=1):
        assert (reach_of(edge - 1, device), reach_of(edge, device)) == (reach - 1, reach)
