"""What the process remembers of signatures, and what it must not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import hwcost
from hwcost.tracing import signatures


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    signatures.forget()
    yield
    signatures.forget()


def test_a_second_network_of_the_same_signatures_learns_nothing_and_counts_the_same() -> None:
    first = hwcost.trace(nn.Linear(4, 8), torch.zeros(2, 4))
    known = len(signatures.remembered().entries)
    second = hwcost.trace(nn.Linear(4, 8), torch.zeros(2, 4))
    assert known > 0
    assert len(signatures.remembered().entries) == known
    assert second == first
    assert second.ops[0].spec is first.ops[0].spec


def test_a_rule_that_comes_later_is_heeded() -> None:
    library = torch.library.Library("hwcost_memory_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x + x, "CPU")

    def forward(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.hwcost_memory_test.twice(x)
        return out

    x = torch.zeros(3)
    assert hwcost.trace(forward, x).status == "partial"
    hwcost.rule("hwcost_memory_test.twice")(lambda op: hwcost.Work(other_flops=op.outputs[0].numel))
    graph = hwcost.trace(forward, x)
    assert (graph.status, graph.cost.other_flops) == ("complete", 3)
    library._destroy()


def test_the_default_dtype_is_part_of_what_is_remembered() -> None:
    def forward(x: Tensor) -> Tensor:
        return x + torch.ones(3)

    x = torch.zeros(3)
    before = torch.get_default_dtype()
    try:
        hwcost.trace(forward, x)
        torch.set_default_dtype(torch.float64)
        assert hwcost.trace(forward, x).ops[-1].spec.outputs[0].dtype == "float64"
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("lengths", [(5, 2), (3, 3)])
def test_results_that_follow_from_values_are_not_remembered(lengths: tuple[int, int]) -> None:
    def forward(x: Tensor, repeats: Tensor) -> Tensor:
        return x.repeat_interleave(repeats, 0)

    x = torch.zeros(2, 7)
    for each in ((1, 1), lengths):
        graph = hwcost.trace(forward, (x, torch.tensor(each)))
        assert graph.ops[-1].spec.outputs[0].shape == (sum(each), 7)


def test_packed_layers_of_equal_weights_and_other_strides_are_told_apart() -> None:
    """Their settings are inside an object, and such an object may get the address of one that is gone."""
    x = torch.quantize_per_tensor(torch.zeros(1, 4, 8, 8), 0.1, 0, torch.quint8)
    weight = torch.quantize_per_tensor(torch.zeros(4, 4, 3, 3), 0.1, 0, torch.qint8)
    for stride, size in ((1, 6), (2, 3), (1, 6), (2, 3)):
        packed = torch.ops.quantized.conv2d_prepack(weight, None, [stride] * 2, [0, 0], [1, 1], 1)
        graph = hwcost.trace(lambda x, packed=packed: torch.ops.quantized.conv2d(x, packed, 0.1, 0), x)
        assert graph.ops[-1].spec.outputs[0].shape == (1, 4, size, size)
        assert graph.cost.macs == 4 * size * size * 4 * 9
        del packed


def test_a_full_memory_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "MEMORY_LIMIT", 4)
    for width in range(1, 9):
        assert hwcost.trace(nn.Linear(width, 2), torch.zeros(1, width)).cost.macs == 2 * width
    assert len(signatures.remembered().entries) <= 5
