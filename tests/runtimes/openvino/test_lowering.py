"""Tests of hwcost.runtimes.openvino.lowering: what folds into a convolution, against what OpenVINO ran."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn

import hwcost
from hwcost.runtimes.base import RuntimeUnavailable
from hwcost.runtimes.registry import get_runtime


def test_batch_norms_in_a_row_fold_one_after_the_other() -> None:
    runtime = get_runtime("openvino")
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)
    module, inputs = nn.Sequential(*layers).eval(), [torch.randn(1, 3, 16, 16)]
    foreseen = [p.kernel.name for p in runtime.lower(hwcost.trace(module, inputs)).kernels]
    assert "batch_norm" not in "".join(foreseen)
    try:
        session = runtime.prepare(module, inputs, threads=1)
    except RuntimeUnavailable as reason:
        pytest.skip(str(reason))
    assert foreseen == [p.kernel.name for p in session.network.kernels]


class Outputs(nn.Module):
    """A convolution whose result is an output of the network, before or after what is made of it."""

    def __init__(self, after: nn.Module, *, first: bool) -> None:
        super().__init__()
        self.conv, self.after, self.first = nn.Conv2d(3, 8, 1), after, first

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both results."""
        made = self.conv(x)
        return (made, self.after(made)) if self.first else (self.after(made), made)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("after", [nn.BatchNorm2d(8), nn.ReLU()])
def test_a_convolution_that_is_an_output_stays_by_itself(after: nn.Module, first: bool) -> None:
    runtime = get_runtime("openvino")
    module, inputs = Outputs(after, first=first).eval(), (torch.randn(1, 3, 8, 8),)
    foreseen = runtime.lower(hwcost.trace(module, inputs))
    assert foreseen.cost.flops == hwcost.trace(module, inputs).cost.flops
    try:
        session = runtime.prepare(module, inputs, threads=1)
    except RuntimeUnavailable as reason:
        pytest.skip(str(reason))
    kernels = [sorted(p.kernel.to_json() for p in network.kernels) for network in (foreseen, session.network)]
    assert kernels[0] == kernels[1]


def test_a_copy_of_a_convolutions_result_reads_what_was_just_written() -> None:
    """Distances in byte, written out: each kernel reads what the one before it wrote, but for the copied result of a
    convolution that another one read too."""
    runtime = get_runtime("openvino")
    module, inputs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval(), (torch.randn(1, 3, 8, 8),)
    networks = [runtime.lower(hwcost.trace(module, inputs))]
    with suppress(RuntimeUnavailable):
        networks.append(runtime.prepare(module, inputs, threads=1).network)
    copied = 2 * 3 * 8 * 8 * 4  # the copy of the image that the first convolution reads
    for network in networks:
        assert [p.kernel.name for p in network.kernels] == ["clone", "conv2d+relu", "conv2d", "clone"]
        assert [p.distance for p in network.kernels] == [0, copied, 0, 0]
