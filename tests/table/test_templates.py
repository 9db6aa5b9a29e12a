"""Tests of hwcost.table.templates: a graph written down is the graph that tracing gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hwcost
from hwcost.graph import Graph
from hwcost.table.templates import Make, NoTemplate, Template


def bottleneck(sizes: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """1x1, strided depthwise 5x5, 1x1, each with its norm; squeeze-excite; sizes: in, middle, squeezed, out, side."""
    c_in, middle, squeezed, c_out, side = sizes
    body = nn.Sequential(
        nn.Conv2d(c_in, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.Hardswish(),
        nn.Conv2d(middle, middle, 5, 2, 2, groups=middle, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
        Squeeze(middle, squeezed), nn.Conv2d(middle, c_out, 1), nn.MaxPool2d(3, 2, 1),
    )  # fmt: skip
    return body, (1, c_in, side, side)


class Squeeze(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x).sigmoid()


def attention(sizes: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """A pre-norm feed-forward block on a sequence; sizes: width, hidden, tokens."""
    width, hidden, tokens = sizes
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)), (
        1,
        tokens,
        width,
    )


def head(sizes: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """Pooled features and a classifier; sizes: channels, side."""
    channels, side = sizes
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)), (1, channels, side, side)


def traced(make: Make, sizes: tuple[int, ...]) -> Graph:
    module, shape = make(sizes)
    return hwcost.trace(module, (torch.empty(shape, device="meta"),))


TEMPLATES = {make: Template.of(make, n) for make, n in ((bottleneck, 5), (attention, 3), (head, 2))}


@pytest.mark.parametrize("make", TEMPLATES, ids=lambda m: m.__name__)
@given(data=st.data())
@settings(max_examples=30)
def test_it_writes_what_tracing_gives(make: Make, data: st.DataObject) -> None:
    count = {bottleneck: 5, attention: 3, head: 2}[make]
    sizes = tuple(data.draw(st.lists(st.integers(4, 64), min_size=count, max_size=count)))
    expected, found = traced(make, sizes), TEMPLATES[make].graph(sizes)
    assert found.cost == expected.cost
    assert [op.spec for op in found.ops] == [op.spec for op in expected.ops]
    assert (found.params, found.weight_bytes, found.peak_memory) == (
        expected.params,
        expected.weight_bytes,
        expected.peak_memory,
    )
    assert [op.state for op in found.ops] == [op.state for op in expected.ops]


def test_a_structure_that_changes_with_its_sizes_has_none() -> None:
    def grows(sizes: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
        layers = [nn.ReLU() for _ in range(sizes[0] % 3 + 1)]
        return nn.Sequential(*layers), (1, sizes[0])

    with pytest.raises(NoTemplate):
        Template.of(grows, 1)


def test_a_number_that_no_product_explains_has_none() -> None:
    def shifted(sizes: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
        return nn.Linear(sizes[0] * sizes[0] + 7, sizes[0]), (1, sizes[0] * sizes[0] + 7)

    with pytest.raises(NoTemplate, match="no constant times a product"):
        Template.of(shifted, 1)


def test_sizes_that_a_layer_refuses_have_none() -> None:
    def grouped(sizes: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
        return nn.GroupNorm(8, sizes[0]), (1, sizes[0], 4, 4)

    with pytest.raises(NoTemplate):
        Template.of(grouped, 1)


def fused(sizes: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """torch's own layer, which is traced by its parts too; sizes: hidden, tokens."""
    hidden, tokens = sizes
    return nn.TransformerEncoderLayer(32, 4, hidden, batch_first=True), (1, tokens, 32)


def test_both_forms_of_a_fused_layer_are_written_down() -> None:
    sizes = (48, 19)
    found, expected = Template.of(fused, 2).graph(sizes), traced(fused, sizes)
    assert found.ops == expected.ops
    assert found.by_parts is not None
    assert expected.by_parts is not None
    assert found.by_parts.ops == expected.by_parts.ops
    assert found.by_parts.peak_memory == expected.by_parts.peak_memory
