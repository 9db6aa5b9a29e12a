"""Tests of hwcost.model.blocks: architectures of a space from their parameters are what tracing them gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import CostModel, Device, LatencyTable, trace
from hwcost.model.catalogue import key
from hwcost.model.overhead import Overhead
from hwcost.runtimes.registry import get_runtime
from hwcost.search.spaces import get_space
from hwcost.spaces.base import Block, Decision, Params, Site, Space, SpaceError
from hwcost.table.price import traced
from hwcost.table.schema import TableError


@pytest.fixture
def simple(device: Device) -> CostModel:
    """Roofline times, with an overhead and an interval so that these are compared as well."""
    data = CostModel.analytic(device).data
    errors = replace(data.fitted.errors, common=0.03, z=1.6)
    fitted = replace(data.fitted, overhead=Overhead(1.1, 4e-6, 3e-5, -1e-6), errors=errors)
    return CostModel(replace(data, fitted=fitted))


@pytest.mark.parametrize("name", ["tiny-cnn", "mbconv", "vit"])
def test_an_architecture_is_priced_as_its_network_would_be(simple: CostModel, name: str) -> None:
    space, rng = get_space(name), np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(6)]
    for params, found in zip(architectures, simple.estimate_many(architectures, space=space), strict=True):
        with torch.device("meta"):
            whole = simple.estimate(space.build(params).eval(), space.inputs(params))
        assert found.latency == pytest.approx(whole.latency, rel=1e-9)
        assert (found.low, found.high) == pytest.approx((whole.low, whole.high), rel=1e-9)
        assert [(k.name, k.module) for k in found.kernels] == [(k.name, k.module) for k in whole.kernels]
        assert found.cost == whole.cost
        assert list(found.blocks) == list(whole.blocks)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        *((name, "onnxruntime") for name in ("mbconv", "tiny-cnn", "vit")),
        *((name, "torch-eager") for name in ("nas-bench-201", "vit")),
    ],
)
@pytest.mark.parametrize("lanes", [8, 16])  # ONNX Runtime lays out data by the width of vector registers
def test_blocks_are_lowered_as_they_run_between_the_others(name: str, runtime: str, lanes: int) -> None:
    """Kernel by kernel, copies into other layouts and distances included: what tables of the space add up."""
    lower = partial(get_runtime(runtime).lower, lanes=lanes)
    space, rng = get_space(name), np.random.default_rng(0)
    for params in (space.sample(rng) for _ in range(4)):
        with torch.device("meta"):
            whole = lower(trace(space.build(params).eval(), space.inputs(params)))
        parts = [lower(traced(block), part=True) for block in space.blocks(params)]
        assert Counter(key(p) for n in parts for p in n.kernels) == Counter(key(p) for p in whole.kernels)
        assert sum(n.calls for n in parts) == whole.calls


def test_where_a_runtime_fuses_across_blocks_networks_are_traced_whole(device: Device) -> None:
    model, space = CostModel.analytic(device, "onnxruntime"), get_space("nas-bench-201")
    params = [space.sample(np.random.default_rng(i)) for i in range(3)]
    whole = [model.estimate(space.build(p).eval(), space.inputs(p)).latency for p in params]
    assert [e.latency for e in model.estimate_many(params, space=space)] == whole
    with pytest.raises(TableError, match="so small that onnxruntime fuses across them"):
        LatencyTable.build(space, model)


def test_parameters_that_are_not_of_the_space_are_refused(simple: CostModel) -> None:
    space = get_space("tiny-cnn")
    params = space.sample(np.random.default_rng(0))
    with pytest.raises(SpaceError, match="resolution"):
        simple.estimate_many([params | {"resolution": 63}], space=space)


class Layers(Space):
    """Two layers whose widths are given as a list, which has no hash."""

    name = "layers"
    decisions = (Decision("wide", (False, True)), Decision("rows", (32, 64)))
    built = 0

    def __init__(self) -> None:
        self.sites = tuple(Site(f"layers.{i}", ("wide", "rows"), partial(self.layer, i)) for i in range(2))

    def layer(self, i: int, p: Params) -> Block:
        width = 64 if p["wide"] else 32
        shape = (p["rows"], width)
        return Block(f"layers.{i}", f"linear {shape}", partial(self.make, [width, width]), shape)

    def make(self, widths: list[int]) -> nn.Module:
        Layers.built += 1
        return nn.Linear(*widths)

    def input_shape(self, params: Params) -> tuple[int, ...]:
        return (params["rows"], 64 if params["wide"] else 32)


def test_a_block_is_made_once_however_often_it_stands(simple: CostModel) -> None:
    space, Layers.built = Layers(), 0
    everything = list(space) * 3
    found = simple.estimate_many(everything, space=space)
    assert Layers.built == 4  # 2 widths x 2 heights, each at two places of three networks
    assert [e.latency for e in simple.estimate_many(everything, space=space)] == [e.latency for e in found]
    assert Layers.built == 4
