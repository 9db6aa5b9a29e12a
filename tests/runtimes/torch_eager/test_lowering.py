"""Tests of the lowering for torch eager: what counts as a call."""

from __future__ import annotations

import torch
from torch import nn

from hwcost.runtimes.torch_eager.lowering import TorchEager
from hwcost.tracing.trace import trace


class Gate(nn.Module):
    """Two calls of its own around one of a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.inner(x.relu())


def test_calls_are_of_operators_and_of_the_modules_that_make_them() -> None:
    """Linear, relu, linear, mul: four operators. The first linear's module, the gate, the inner linear's module, and
    the gate again once that has returned: four more, for the counting does not know that the gate was never left."""
    graph = trace(nn.Sequential(nn.Linear(8, 8), Gate()), (torch.empty(2, 8),))
    assert [op.module for op in graph.ops] == ["0", "1", "1.inner", "1"]
    assert TorchEager().lower(graph).calls == 8
