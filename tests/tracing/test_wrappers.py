"""Tensors made of others: quantised weights, nested tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import hwcost


class Int8(torch.Tensor):
    """A matrix of int8 with a scale for each row, as packages for quantisation make them."""

    q: torch.Tensor
    scale: torch.Tensor

    @staticmethod
    def __new__(cls, q: torch.Tensor, scale: torch.Tensor) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, tuple(q.shape), dtype=scale.dtype)  # type: ignore[attr-defined]
        made.q, made.scale = q, scale
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["q", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, *_: Any) -> Any:
        return cls(inner["q"], inner["scale"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].q, args[0].scale)
        if func is torch.ops.aten.linear.default:
            return torch._weight_int8pack_mm(args[0], args[1].q, args[1].scale)  # type: ignore[attr-defined]
        raise NotImplementedError(func)


def test_a_quantised_weight_counts_as_it_is_packed() -> None:
    module = nn.Linear(64, 32, bias=False)
    packed = Int8(torch.zeros(32, 64, dtype=torch.int8), torch.ones(32, dtype=torch.bfloat16))
    module.weight = nn.Parameter(packed, requires_grad=False)
    graph = hwcost.trace(module, torch.zeros(5, 64, dtype=torch.bfloat16))
    assert [op.spec.kind for op in graph.ops] == ["_weight_int8pack_mm"]
    assert (graph.cost.macs, graph.params, graph.status) == (5 * 64 * 32, 64 * 32, "complete")
    assert graph.cost.bytes_weights == graph.weight_bytes == 64 * 32 + 32 * 2
    assert isinstance(module.weight, Int8), "the module keeps its weight"


def test_a_weight_packed_to_four_bits_in_a_plain_tensor() -> None:
    module = nn.Module()
    module.register_buffer("w", torch.zeros(64, 64, dtype=torch.uint8))
    module.register_buffer("scales", torch.zeros(4, 64, 2, dtype=torch.bfloat16))
    packed: Any = torch.ops.aten._weight_int4pack_mm_for_cpu
    module.forward = lambda x: packed(x, module.w, 32, module.scales)  # type: ignore[method-assign]
    cost = hwcost.trace(module, torch.zeros(5, 128, dtype=torch.bfloat16)).cost
    assert (cost.macs, cost.bytes_weights) == (5 * 128 * 64, 64 * 64 + 4 * 64 * 2 * 2)


def test_a_nested_tensor_counts_without_padding() -> None:
    x = torch.nested.nested_tensor([torch.zeros(3, 16), torch.zeros(5, 16)], layout=torch.jagged)
    graph = hwcost.trace(nn.Sequential(nn.Linear(16, 16), nn.ReLU()), x)
    assert (graph.cost.macs, graph.status) == (8 * 16 * 16, "complete")
    assert graph.cost.other_flops == 2 * 8 * 16  # bias and comparison


@pytest.mark.filterwarnings("ignore")
def test_the_older_nested_tensors_are_refused_in_one_line() -> None:
    x = torch.nested.nested_tensor([torch.zeros(3, 16), torch.zeros(5, 16)], layout=torch.strided)
    with pytest.raises(hwcost.TraceError, match=r"layout torch\.jagged, but not of torch\.strided\.$"):
        hwcost.trace(nn.Linear(16, 16), x)
    with pytest.raises(hwcost.TraceError, match=r"but not of torch\.strided\.$"):
        hwcost.trace(lambda x: F.relu(torch.nested.nested_tensor([x, x])), torch.zeros(3, 4))
