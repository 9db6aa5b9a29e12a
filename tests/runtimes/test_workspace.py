"""Workspace of convolutions in torch eager, against what torch's allocator says of a real run."""

from __future__ import annotations

import platform
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import hwcost
from hwcost.runtimes.registry import get_runtime

x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="other CPUs convolve with other libraries than oneDNN's x86 kernels",
)
LANES = 16 if "512" in torch.backends.cpu.get_cpu_capability() else 8


def conv(c_in: int, c_out: int, kernel: int, **settings: Any) -> nn.Module:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, **settings)


CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (conv(64, 64, 3), (4, 64, 56, 56)),
    "strided": (conv(64, 128, 3, stride=2), (4, 64, 28, 28)),
    "few input channels": (conv(3, 64, 7, stride=2), (4, 3, 112, 112)),
    "channels that fill no blocks": (conv(40, 56, 3), (4, 40, 28, 28)),
    "depthwise": (conv(96, 96, 5, groups=96), (4, 96, 28, 28)),
    "groups": (conv(64, 64, 3, groups=4), (4, 64, 28, 28)),
    "pointwise": (conv(64, 256, 1), (4, 64, 28, 28)),
    "pointwise, many images": (conv(64, 64, 1), (16, 64, 28, 28)),
    "small single image": (conv(16, 16, 3), (1, 16, 14, 14)),
    "large single image": (conv(16, 16, 3), (1, 16, 112, 112)),
    "patches": (nn.Conv2d(3, 192, 16, 16), (4, 3, 224, 224)),
    "double precision": (conv(16, 16, 3).double(), (2, 16, 28, 28)),
    "transposed": (nn.ConvTranspose2d(64, 32, 2, 2), (4, 64, 28, 28)),
    "no convolution": (nn.Linear(64, 64), (4, 64)),
}


LAST = ("plain", "few input channels", "depthwise", "groups", "pointwise", "large single image")  # in channels last too


def allocated(module: nn.Module, x: torch.Tensor) -> int:
    """Most bytes that one inference holds on top of weights and input."""
    with torch.inference_mode():
        module(x)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            module(x)
    live = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    return most


@x86
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "threads", "channels_last"),
    [(name, threads, False) for name in CASES for threads in (1, 2)] + [(name, 1, True) for name in LAST],
)
def test_workspace_of_a_real_run(name: str, threads: int, channels_last: bool) -> None:
    made, shape = CASES[name]
    module, x = deepcopy(made).eval(), torch.rand(shape, dtype=next(made.parameters()).dtype)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        real = allocated(module, x)
    finally:
        torch.set_num_threads(before)
    graph = hwcost.trace(module, (x,))
    held = graph.weight_bytes + graph.inputs[0].bytes
    workspace = get_runtime("torch-eager").workspace(graph, threads=threads, lanes=LANES)
    assert workspace is not None
    assert graph.peak_memory + workspace == pytest.approx(held + real, rel=0.1)


def test_other_runtimes_say_that_they_do_not_know() -> None:
    graph = hwcost.trace(conv(8, 8, 3), (torch.zeros(4, 8, 8, 8),))
    assert get_runtime("onnxruntime").workspace(graph) is None


def test_workspace_counts_where_memory_peaks() -> None:
    """A convolution that needs much beside it does not matter while a larger activation is live elsewhere."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)  # 4 x 16 x 8 x 8 floats; copies of as many
            return y.repeat(1, 1, 8, 8).sum()

    graph = hwcost.trace(Net(), (torch.zeros(4, 16, 8, 8),))
    assert get_runtime("torch-eager").workspace(graph) == 0
