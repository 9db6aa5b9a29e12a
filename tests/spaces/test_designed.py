"""Tests of hwcost.spaces.designed.space: the same seed gives the same network, and the shapes are covered."""

from itertools import islice

import numpy as np
import pytest
import torch

from hwcost import trace
from hwcost.graph import Graph
from hwcost.measure.items import sampled_items
from hwcost.measure.materialise import materialise
from hwcost.spaces.base import SpaceError
from hwcost.spaces.designed.chain import MAP_PIECES
from hwcost.spaces.designed.draws import Maker
from hwcost.spaces.designed.space import VERSION, DesignedSpace
from hwcost.spaces.designed.tokens import TOKEN_PIECES

space = DesignedSpace()


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return [trace(*item.build()) for item in islice(sampled_items(space, seed=3), 170)]


def test_a_network_follows_from_its_parameters() -> None:
    params = {"seed": 7, "version": VERSION}
    first, second = (trace(*space.network(params)) for _ in range(2))
    assert [op.spec for op in first.ops] == [op.spec for op in second.ops]
    assert space.inputs(params)[0].shape == space.network(params)[1][0].shape


def test_networks_of_other_rules_are_refused() -> None:
    with pytest.raises(SpaceError, match="version 99 need the hwcost that drew them"):
        space.build({"seed": 7, "version": 99})


def test_the_same_seed_names_the_same_networks() -> None:
    first, second = ([i.name for i in islice(sampled_items(space, seed=3), 5)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 5


def test_every_op_has_a_rule(graphs: list[Graph]) -> None:
    assert [g.uncounted for g in graphs if g.uncounted] == []


def test_the_shapes_are_covered(graphs: list[Graph]) -> None:
    convs = [op.spec for g in graphs for op in g.ops if op.spec.kind == "conv2d"]
    weights = [w for c in convs if (w := c.input("weight"))]
    channels = {w.shape[0] for w in weights}
    assert {w.shape[2] for w in weights} >= {1, 2, 3, 4, 5, 7}  # 6 is in three networks of a thousand
    assert any(n % 8 for n in channels)
    assert sum(n % 8 == 0 for n in channels) > len(channels) / 3
    assert {c.param("stride", (1, 1))[0] for c in convs} >= {1, 2}  # type: ignore[index]
    assert any(c.param("dilation", (1, 1)) != (1, 1) for c in convs)
    groups = {c.param("groups", 1) for c in convs}
    assert len(groups) > 5
    assert {g.inputs[0].shape[0] for g in graphs} >= {1, 2, 4, 8, 16}
    assert sum(c.param("groups", 1) == c.inputs[0].shape[1] > 1 for c in convs) > len(convs) / 10  # depthwise
    assert {c.inputs[0].shape[-1] for c in convs} >= {7, 14, 28, 56, 112, 224}
    assert any(g.inputs[0].shape[1:] == (3, 224, 224) for g in graphs)  # a stem at full size


def test_tokens_and_widths_are_covered(graphs: list[Graph]) -> None:
    rows = [op.spec.inputs[0].shape for g in graphs for op in g.ops if op.spec.kind in ("linear", "layer_norm")]
    counts, widths = ({shape[axis] for shape in rows if len(shape) == 3} for axis in (1, 2))
    assert min(counts) <= 16
    assert {49, 196, 197} <= counts  # of windows, of images, of images with a token of their own
    assert max(counts) > 500
    assert min(widths) <= 32
    assert {192, 384, 768} <= widths
    assert max(widths) >= 2048
    assert any(n % 8 for n in widths)


def test_the_kinds_are_covered(graphs: list[Graph]) -> None:
    kinds = {op.spec.kind for g in graphs for op in g.ops}
    assert kinds >= {
        "conv2d", "conv_transpose2d", "linear", "matmul", "scaled_dot_product_attention", "batch_norm", "layer_norm",
        "group_norm", "softmax", "relu", "gelu", "silu", "hardswish", "sigmoid", "add", "mul", "cat", "max_pool2d",
        "avg_pool2d", "adaptive_avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
    }  # fmt: skip


def test_networks_run_and_give_finite_numbers() -> None:
    for item in islice(sampled_items(space, seed=1), 6):
        module, inputs = materialise(item.build)
        with torch.inference_mode():
            assert module(*inputs).isfinite().all()


@pytest.mark.parametrize("make", [make for _, make in MAP_PIECES], ids=lambda make: make.__name__)
def test_every_piece_of_maps_runs(make: Maker) -> None:
    runs(make, (2, 24, 14, 14))


@pytest.mark.parametrize("make", [make for _, make in TOKEN_PIECES], ids=lambda make: make.__name__)
def test_every_piece_of_tokens_runs(make: Maker) -> None:
    runs(make, (2, 36, 32))


def runs(make: Maker, shape: tuple[int, ...]) -> None:
    """In each of the forms that five seeds give: counted completely, and with finite numbers."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        module, inputs = materialise(lambda rng=rng: (make(rng, shape), (torch.empty(shape, device="meta"),)))
        assert not trace(module, inputs).uncounted
        with torch.inference_mode():
            assert module(*inputs).isfinite().all()


def test_networks_begin_at_every_depth(graphs: list[Graph]) -> None:
    """Late stages of wide channels on small maps come first in some, or nothing of them were ever measured alone."""
    maps = [shape for g in graphs if len(shape := g.inputs[0].shape) == 4]
    assert any(c == 3 for _, c, _, _ in maps)
    assert any(c >= 64 and h <= 28 for _, c, h, _ in maps)


def test_convolutions_of_large_weights_are_covered(graphs: list[Graph]) -> None:
    """As networks end in them: 512 to 512 channels of 3 x 3 are 9.4 MB."""
    convs = [[op.spec for op in g.ops if op.spec.kind == "conv2d"] for g in graphs]
    assert sum(any(w.bytes > 8e6 for c in found if (w := c.input("weight"))) for found in convs) >= 8
