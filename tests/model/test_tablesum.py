"""Tests of hwcost.tablesum: a table adds up to what the model says of the built network, whatever that reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwcost import CostModel, LatencyTable
from hwcost.features import reach_of
from hwcost.pricing import reach_edges
from hwcost.search.spaces import get_space


@pytest.mark.filterwarnings("ignore::hwcost.model.DefaultModel")
@pytest.mark.parametrize(("name", "runtime"), [("vit", "torch-eager"), ("vit", "onnxruntime")])
def test_the_sum_is_the_estimate_of_the_built_network(name: str, runtime: str) -> None:
    """By the shipped model, whose kernels take longer in networks that reach further: three reaches in this space."""
    model, space = CostModel.load("default", runtime=runtime), get_space(name)
    table, rng = LatencyTable.build(space, model), np.random.default_rng(0)
    reached = set()
    for params in (space.sample(rng) for _ in range(30)):
        with torch.device("meta"):
            built = model.estimate(space.build(params).eval(), space.inputs(params))
        found = table.estimate(params)
        assert found.latency == pytest.approx(built.latency, rel=1e-6)
        assert table.latency(space.choices(params))[0] == pytest.approx(found.latency, rel=1e-12)
        assert table.latency([space.choices(params)] * 2)[1] == pytest.approx(found.latency, rel=1e-12)
        assert sum(b.latency for b in found.blocks.values()) == pytest.approx(found.latency - table.meta["fixed_s"])
        reached.add(reach_of(built.cost.bytes, model.device))
    assert len(reached) == 3


def test_the_edges_are_where_the_reach_changes() -> None:
    device = CostModel.analytic("intel-i9-10980xe").device
    for reach, edge in enumerate(reach_edges(device), start=1):
        assert (reach_of(edge - 1, device), reach_of(edge, device)) == (reach - 1, reach)
