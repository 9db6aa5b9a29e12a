"""Advice: every alternative must be the network that a user would get by making the change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hwcost
from hwcost.advise.advise import advise
from hwcost.advise.edits import Edit
from hwcost.advise.number_of_channels import channel_edits, resized
from hwcost.advise.registry import Context, edits
from hwcost.advise.repeated_blocks import fewer_blocks
from hwcost.graph import Graph


def counted(module: nn.Module, *shape: int) -> Graph:
    return hwcost.trace(module, torch.empty(shape, device="meta"))


def edit_of(graph: Graph, text: str) -> Edit:
    estimate = hwcost.CostModel.analytic("intel-i9-10980xe").estimate(graph)
    (found,) = [edit for edit in edits(Context(graph=graph, estimate=estimate)) if text in edit.change]
    return found


def plain(graph: Graph) -> list[tuple[str, tuple[tuple[int, ...], ...], int, int]]:
    """Kinds (in place or not), shapes and costs of what is not free."""
    return [
        (op.spec.kind, tuple(t.shape for t in (*op.spec.inputs, *op.spec.outputs)), op.cost.flops, op.cost.bytes)
        for op in graph.ops
        if op.state != "free"
    ]


def conv(i: int, o: int, k: int = 3, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, **({"padding": k // 2} | settings))


# A network, the change, and the network that one who makes the change would write.
CHANGES: dict[str, tuple[nn.Module, str, nn.Module]] = {
    "undilated": (conv(8, 8, 3, dilation=2, padding=2), "without its dilation", conv(8, 8, 3)),
    "smaller": (conv(8, 16, 5, stride=2), "3x3 instead of 5x5", conv(8, 16, 3, stride=2)),
    "stacked": (
        conv(8, 16, 7, stride=2),
        "3 convolutions 3x3",
        nn.Sequential(conv(8, 16, stride=2), conv(16, 16), conv(16, 16)),
    ),
    "separable": (conv(8, 16), "depthwise and pointwise instead", nn.Sequential(conv(8, 8, groups=8), conv(8, 16, 1))),
    "ordinary": (
        nn.Sequential(conv(8, 8, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True), conv(8, 16, 1)),
        "one convolution 3x3 instead",
        conv(8, 16),
    ),
    "activation": (nn.Sequential(conv(8, 8), nn.GELU()), "ReLU instead of gelu", nn.Sequential(conv(8, 8), nn.ReLU())),
    "folded": (
        nn.Sequential(conv(8, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        "folded",
        nn.Sequential(conv(8, 8), nn.ReLU()),
    ),
    "reordered": (
        nn.Sequential(conv(8, 8), nn.ReLU(), nn.BatchNorm2d(8)),
        "before the activation",
        nn.Sequential(conv(8, 8), nn.BatchNorm2d(8), nn.ReLU()),
    ),
    "reordered in place": (
        nn.Sequential(conv(8, 8), nn.ReLU(inplace=True), nn.BatchNorm2d(8)),
        "before the activation",
        nn.Sequential(conv(8, 8), nn.BatchNorm2d(8), nn.ReLU()),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_edited_graph_is_the_trace_of_the_edited_network(name: str) -> None:
    module, text, changed = CHANGES[name]
    edited = edit_of(counted(module, 1, 8, 12, 12), text).graph
    assert plain(edited) == plain(counted(changed, 1, 8, 12, 12))


class Mixed(nn.Module):
    """Everything that other channels reach: a shortcut, a depthwise layer, a concatenation, a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.norm = conv(3, width), nn.BatchNorm2d(width)
        self.depthwise, self.point = conv(width, width, groups=width), conv(width, width, 1)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(2 * width + 3, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image)).relu_()
        x = torch.cat([x + self.point(self.depthwise(x)), x, image], 1)
        out: Tensor = self.head(self.pool(x).flatten(1))
        return out


@pytest.mark.parametrize("width", [64, 72])
def test_other_channels_are_followed_through_the_whole_network(width: int) -> None:
    edited = resized(counted(Mixed(65), 1, 3, 12, 12), 65, width)
    assert edited is not None
    assert plain(edited) == plain(counted(Mixed(width), 1, 3, 12, 12))


def test_channels_that_are_multiples_and_those_of_the_output_stay() -> None:
    assert list(channel_edits(counted(Mixed(64), 1, 3, 8, 8), 16)) == []  # 10 classes are the output
    changes = [e.change for e in channel_edits(counted(Mixed(65), 1, 3, 8, 8), 8)]
    assert sorted(changes) == [f"{n} channels instead of 65, a multiple of 8" for n in (64, 72)]


def test_channels_that_cannot_be_followed_are_not_guessed() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(3, 65)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).view(1, 5, 13, 8, 8).transpose(1, 2).relu().mean((1, 2))

    assert list(channel_edits(counted(Shuffled(), 1, 3, 8, 8), 8)) == []


DEVICE = """
name = "toy"
cores = 1
[[compute]]
paper = "100 GFLOP/s"
paper_source = "made up"
[[memory]]
paper = "10 GB/s"
paper_source = "made up"
"""


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], hwcost.CostModel]:
    """The roofline of a device with a ridge point of 10 flop/byte, for a runtime."""
    path = tmp_path / "toy.toml"
    path.write_text(DEVICE)
    return lambda runtime: hwcost.CostModel.analytic(path, runtime=runtime)


def test_the_largest_gain_comes_first_and_is_that_of_the_changed_network(
    model: Callable[[str], hwcost.CostModel],
) -> None:
    module, x = nn.Sequential(conv(65, 65, 5), nn.GELU()), torch.empty(1, 65, 12, 12, device="meta")
    eager = model("torch-eager")
    found = advise(module, (x,), model=eager)
    assert [a.gain for a in found] == sorted((a.gain for a in found), reverse=True)
    assert {a.before for a in found} == {eager.estimate(module, (x,)).latency}
    smaller = next(a for a in found if a.change == "convolution 3x3 instead of 5x5")
    assert smaller.after == pytest.approx(eager.estimate(nn.Sequential(conv(65, 65), nn.GELU()), (x,)).latency)
    assert smaller.where == ("0",)
    assert (smaller.macs_before, smaller.macs_after) == (65 * 65 * 25 * 144, 65 * 65 * 9 * 144)
    assert not smaller.measured  # the roofline measured nothing
    assert not smaller.same


def test_an_order_that_folds_gains_where_the_runtime_folds_and_only_there(
    model: Callable[[str], hwcost.CostModel],
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    module, x = nn.Sequential(conv(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)), torch.empty(1, 8, 64, 64, device="meta")

    def changes(runtime: str) -> str:
        return " | ".join(a.change for a in advise(module, (x,), model=model(runtime)))

    assert "before the activation" in changes("onnxruntime")
    assert "before the activation" not in changes("torch-eager")


def test_nothing_is_advised_where_nothing_is_gained(model: Callable[[str], hwcost.CostModel]) -> None:
    graph = counted(nn.ReLU(), 1, 8, 4, 4)
    assert advise(graph, model=model("torch-eager")) == ()


def test_a_larger_batch_counts_the_time_of_each(model: Callable[[str], hwcost.CostModel]) -> None:
    """64 x 64 weights are read once for eight rows: (4096 + 8 * 128) / 8 of the traffic of each (4096 + 128)."""
    module, x = nn.Linear(64, 64, bias=False), torch.empty(1, 64, device="meta")
    found = {a.change: a for a in advise(module, (x,), model=model("torch-eager"))}
    eight = found["batch 8 instead of 1, time for each"]
    assert 1 - eight.gain == pytest.approx((4096 + 8 * 128) / 8 / (4096 + 128))
    assert eight.same


def test_fewer_equal_blocks_where_overhead_dominates(model: Callable[[str], hwcost.CostModel]) -> None:
    from dataclasses import replace

    def tower(depth: int) -> nn.Sequential:
        return nn.Sequential(conv(3, 8), *(nn.Sequential(conv(8, 8), nn.ReLU()) for _ in range(depth)), nn.Flatten())

    graph = counted(tower(4), 1, 3, 8, 8)
    estimate = model("torch-eager").estimate(graph)
    assert list(fewer_blocks(Context(graph=graph, estimate=estimate))) == []  # the roofline knows no overhead
    slow = replace(estimate, overhead=estimate.latency, latency=2 * estimate.latency)
    edits = {e.change: e for e in fewer_blocks(Context(graph=graph, estimate=slow))}
    assert plain(edits["3 blocks instead of 4 equal ones"].graph) == plain(counted(tower(3), 1, 3, 8, 8))
