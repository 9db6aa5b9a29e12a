"""Tests of hwcost.runtimes.openvino.lowering: what folds into a convolution, against what OpenVINO ran."""

from __future__ import annotations

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
