"""Peak memory by hand, and the laws that every count obeys."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import hwcost
from hwcost.cost import Cost

# -- peak memory -----------------------------------------------------------------------------------


def test_peak_memory_of_a_chain() -> None:
    """Input 4 and weights 3 x (16 + 4) floats; at each linear its input, its output and the first input live."""
    module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    graph = hwcost.trace(module, torch.zeros(1, 4))
    assert graph.peak_memory == (3 * 20 + 3 * 4) * 4


def test_what_the_user_keeps_stays_and_what_is_deleted_goes() -> None:
    def keeps(x: Tensor) -> Tensor:
        a = x + 1
        b = a + 1
        return (a + b) + 1  # x, a, b and a + b

    def drops(x: Tensor) -> Tensor:
        x = x + 1
        x = x + 1
        return x + 1  # the input, x and x + 1

    x = torch.zeros(100)
    assert hwcost.trace(keeps, x).peak_memory == 4 * 400 + 400  # the sum's result beside what is still held
    assert hwcost.trace(drops, x).peak_memory == 3 * 400


def test_a_view_keeps_its_base_and_an_in_place_op_takes_no_room() -> None:
    def view(x: Tensor) -> Tensor:
        corner = (x + 1)[:1]
        return corner + 1

    def in_place(x: Tensor) -> Tensor:
        return (x + 1).relu_().mul_(2)

    assert hwcost.trace(view, torch.zeros(100)).peak_memory == 2 * 400 + 4
    assert hwcost.trace(in_place, torch.zeros(100)).peak_memory == 2 * 400


# -- laws ------------------------------------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> nn.Sequential:
    """A few layers that keep [n, 8, 6, 6]."""
    layers: list[nn.Module] = []
    for kind in draw(st.lists(st.sampled_from("cdbrgp"), min_size=1, max_size=5)):
        if kind in "cd":
            size = draw(st.sampled_from([1, 3]))
            layers.append(nn.Conv2d(8, 8, size, padding=size // 2, groups=8 if kind == "d" else 1))
        else:
            layers.append({"b": nn.BatchNorm2d(8), "r": nn.ReLU(), "g": nn.GELU(), "p": nn.AvgPool2d(3, 1, 1)}[kind])
    return nn.Sequential(*layers)


def count(module: nn.Module, batch: int = 1) -> hwcost.Graph:
    return hwcost.trace(module, torch.zeros(batch, 8, 6, 6, device="meta"))


@settings(max_examples=25, deadline=None)
@given(chains(), chains(), st.integers(1, 5))
def test_laws_of_counting(a: nn.Sequential, b: nn.Sequential, batch: int) -> None:
    whole, first, second = count(nn.Sequential(a, b)), count(a), count(b)
    assert whole.cost == first.cost + second.cost  # additive over concatenation
    assert count(a, batch).cost.macs == batch * first.cost.macs  # linear in the batch
    assert count(a).ops == first.ops  # the same every time
    weights = sum(p.numel() for p in a.parameters()) * 4
    ends = 8 * 6 * 6 * 4
    assert first.cost.bytes >= weights + 2 * ends  # at least weights, input and output
    renamed = nn.Sequential()
    for i, layer in enumerate(a):
        renamed.add_module(f"other{i}", layer)
    assert [op.spec for op in count(renamed).ops] == [op.spec for op in first.ops]
    assert count(renamed).peak_memory == first.peak_memory


def test_blocks_repeats_and_frame() -> None:
    module = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)), nn.Linear(8, 2))
    graph = hwcost.trace(module, torch.zeros(4, 8))
    assert list(graph.blocks(1)) == ["0", "1", "2", "3"]
    assert sum(graph.blocks(2).values(), Cost()) == graph.cost
    assert [group.blocks for group in graph.repeated(1)] == [("0", "1", "2"), ("3",)]
    frame = graph.to_frame()
    assert frame["macs"].sum() == graph.cost.macs
    assert list(frame["kind"]) == ["linear", "relu"] * 3 + ["linear"]
    with pytest.raises(ValueError, match="depth must be at least 1, but got 0"):
        graph.blocks(0)


def test_the_first_trace_of_a_process_loads_no_compiler() -> None:
    code = (
        "import sys, torch, hwcost; hwcost.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)); "
        "layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True); "
        "graphs = [hwcost.trace(layer, torch.zeros(1, 10, 32)) for _ in range(2)]; "
        "assert graphs[0].by_parts == graphs[1].by_parts; "  # lives too: nothing holds on to an activation
        "assert not {'torch._dynamo', 'torch._inductor', 'sklearn', 'pandas'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
