"""Tests of the lowering for torch eager: what counts as a call."""

from __future__ import annotations

import torch
from torch import nn

from hwcost.runtimes.torch_eager.lowering import TorchEager
from hwcost.tracing.trace import trace


class Gate(nn.Module):
    """Calls two operators itself, and between them a module that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.inner(x.relu())


def test_calls_are_of_operators_and_of_the_modules_that_make_them() -> None:
    """Four operators: linear, relu, linear, mul. Four modules: the first linear, the gate, the inner linear, and the
    gate again. It is counted twice, since only the modules of operators are known, and not that the gate went on."""
    graph = trace(nn.Sequential(nn.Linear(8, 8), Gate()), (torch.empty(2, 8),))
    assert [op.module for op in graph.ops] == ["0", "1", "1.inner", "1"]
    assert TorchEager().lower(graph).calls == 8
