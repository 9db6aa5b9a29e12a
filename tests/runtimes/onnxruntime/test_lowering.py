"""The lowering for ONNX Runtime has the same kernels as the graph that ONNX Runtime itself optimises.

The reference is read from the runtime, never written down here, so that a test fails when either side changes.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from hwcost import CostModel, Device, trace
from hwcost.measure.items import sampled_items
from hwcost.measure.materialise import materialise
from hwcost.runtimes.base import RuntimeUnavailable
from hwcost.runtimes.onnxruntime.blocked_layout import blocked_form
from hwcost.runtimes.onnxruntime.lowering import VERSION
from hwcost.runtimes.registry import get_runtime
from hwcost.search.spaces import get_space, space_names
from hwcost.spaces.designed.attention import Attention
from hwcost.spaces.designed.modules import Arithmetic, Concatenated, Residual, SqueezeExcite
from hwcost.spaces.designed.space import DesignedSpace

pytest.importorskip("hwcost.runtimes.onnxruntime.session", exc_type=RuntimeUnavailable)
onnx = get_runtime("onnxruntime")

pytestmark = pytest.mark.skipif(
    not onnx.environment()["onnxruntime"].startswith(VERSION), reason=f"the rules are those of ONNX Runtime {VERSION}"
)


class Does(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class First(nn.Module):
    """The first output of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[0]  # type: ignore[no-any-return]


def windows(x: Tensor) -> Tensor:
    """[n, c, h, w] -> windows of 4 x 4 pixels of the map shifted by 2, [windows, 16, c]."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).roll((-2, -2), (1, 2))
    return x.reshape(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)


def root_mean_square(x: Tensor) -> Tensor:
    return torch.ones(x.shape[-1]) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


MAP, TOKENS = (1, 16, 16, 16), (2, 12, 32)
PATTERNS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention by its parts": (lambda: Residual(Attention(32, 4, fused=False)), TOKENS),
    "attention fused": (lambda: nn.Sequential(nn.LayerNorm(32), Attention(32, 4, fused=True)), TOKENS),
    "sum before a norm": (lambda: nn.Sequential(Residual(nn.Linear(32, 32)), nn.LayerNorm(32)), TOKENS),
    "number times x": (lambda: nn.Sequential(nn.Linear(32, 32), Arithmetic("scale", TOKENS)), TOKENS),
    "gelu of tanh": (lambda: nn.Sequential(nn.Linear(32, 32), nn.GELU("tanh")), TOKENS),
    "gate of a number times x": (lambda: Does(lambda x: x * torch.sigmoid(1.702 * x)), TOKENS),
    "norm by root mean square": (lambda: Does(root_mean_square), TOKENS),
    "activated linear": (lambda: nn.Sequential(nn.Linear(32, 8), nn.ReLU()), (3, 32)),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(16, 20, 3), nn.GroupNorm(4, 20)), MAP),
    "resize smoothly": (
        lambda: nn.Sequential(nn.Conv2d(16, 20, 3), nn.Upsample(scale_factor=2.0, mode="bilinear")), MAP),
    "resize in blocks": (lambda: nn.Sequential(nn.Conv2d(16, 16, 3), nn.Upsample(scale_factor=2.0)), MAP),
    "resize by half": (lambda: nn.Sequential(nn.Conv2d(16, 16, 3), nn.Upsample(scale_factor=0.5)), MAP),
    "sum that begins with nothing": (
        lambda: nn.Sequential(nn.Conv2d(16, 16, 1), Does(lambda x: 0 + x), Residual(nn.Conv2d(16, 16, 1))), MAP),
    "resize by cubes": (lambda: nn.Upsample(scale_factor=2.0, mode="bicubic"), MAP),
    "recurrence, batch first": (
        lambda: nn.Sequential(nn.Linear(32, 32), First(nn.LSTM(32, 16, batch_first=True))), TOKENS),
    "recurrence of two layers, both ways": (
        lambda: First(nn.GRU(32, 16, num_layers=2, bidirectional=True)), TOKENS),
    "recurrence without a bias": (lambda: First(nn.RNN(32, 16, bias=False, batch_first=True)), TOKENS),
    "transposition of nothing": (lambda: Does(lambda x: F.relu(x).permute(0, 1, 2, 3).exp()), MAP),
    "sum into a plain convolution": (lambda: nn.Sequential(Residual(nn.Conv2d(9, 9, 1)), nn.ELU()), (1, 9, 6, 6)),
    "sum after one without a bias": (
        lambda: nn.Sequential(Residual(nn.Conv2d(9, 9, 1, bias=False)), nn.ReLU()), (1, 9, 6, 6)),
    "odd channels and a sum": (
        lambda: nn.Sequential(nn.Conv2d(16, 19, 1), Residual(nn.Conv2d(19, 19, 3, padding=1)), nn.ReLU()), MAP),
    "sum in blocks": (lambda: nn.Sequential(Residual(nn.Conv2d(16, 16, 3, padding=1)), nn.Hardswish()), MAP),
    "hardswish of a sum in blocks": (
        lambda: nn.Sequential(nn.Conv2d(16, 16, 1), Residual(nn.Conv2d(16, 16, 3, padding=1)), nn.Hardswish()), MAP),
    "mean of what is given": (lambda: nn.AdaptiveAvgPool2d(1), MAP),
    "mean of what is not in blocks": (lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1)), MAP),
    "maximum of a map": (lambda: nn.AdaptiveMaxPool2d(1), MAP),
    "hardswish after a convolution": (lambda: nn.Sequential(nn.Conv2d(16, 16, 3), nn.Hardswish()), MAP),
    "depthwise of half a block": (lambda: nn.Conv2d(20, 20, 3, groups=20), (1, 20, 8, 8)),
    "groups": (lambda: nn.Conv2d(32, 32, 3, groups=4), (1, 32, 8, 8)),
    "norm alone": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(16), nn.ReLU()), MAP),
    "factor per channel": (lambda: nn.Sequential(nn.MaxPool2d(2), Arithmetic("channel", MAP)), MAP),
    "branches in blocks": (lambda: Concatenated([nn.Conv2d(16, 8, 1), nn.Conv2d(16, 24, 1)]), MAP),
    "branches beside odd ones": (lambda: Concatenated([nn.Conv2d(16, 9, 1), nn.Identity()]), MAP),
    "zeros around": (lambda: nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(16, 16, 3)), MAP),
    "windows": (lambda: nn.Sequential(Does(windows), nn.Linear(16, 16)), MAP),
    "channels last and back": (
        lambda: nn.Sequential(
            Does(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(16), Does(lambda x: x.permute(0, 3, 1, 2)),
            nn.Conv2d(16, 16, 1)), MAP),
    "unused branch": (lambda: Does(lambda x: F.relu(x) + torch.zeros_like(F.avg_pool2d(x, 1))), MAP),
}  # fmt: skip


def compared(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """(kernel, reuse distance) in the order they run: of the graph that ONNX Runtime optimised, and of the lowering."""
    networks = onnx.prepare(module, inputs, threads=1).network, onnx.lower(trace(module, inputs))
    real, foreseen = ([(p.kernel, p.distance) for p in network.kernels] for network in networks)
    return real, foreseen


@pytest.mark.parametrize("name", PATTERNS)
def test_the_kernels_of_a_pattern_are_foreseen(name: str) -> None:
    make, shape = PATTERNS[name]
    real, foreseen = compared(*materialise(lambda: (make(), (torch.empty(shape, device="meta"),))))
    assert foreseen == real


@pytest.mark.parametrize("space", space_names())
def test_the_kernels_of_a_space_are_foreseen(space: str) -> None:
    for item in islice(sampled_items(get_space(space), seed=11), 2):
        real, foreseen = compared(*materialise(item.build))
        assert foreseen == real, item.name


def test_designed_networks_are_foreseen_whole() -> None:
    items = list(islice(sampled_items(DesignedSpace(), seed=3), 20))
    for item in items:
        real, foreseen = compared(*materialise(item.build))
        assert foreseen == real, item.name


@pytest.mark.parametrize("form", ["mul", "add", "scale"])
def test_a_gelu_of_a_product_stays_in_its_parts(form: str) -> None:
    """A GELU of a sum is one kernel. So is one of a scaled value where the scale folds into the convolution before."""
    shape = (1, 8, 8, 8)
    layers = nn.Sequential(nn.Conv2d(8, 8, 1), Arithmetic(form, shape), nn.GELU())
    real, foreseen = compared(*materialise(lambda: (layers, (torch.empty(shape, device="meta"),))))
    assert foreseen == real


def test_the_same_module_runs_in_the_same_order_each_time() -> None:
    """Six gates, since ONNX Runtime's optimiser places the copies out of blocks around each of them at random."""
    gated = [part for _ in range(6) for part in (nn.Conv2d(16, 16, 3, padding=1), SqueezeExcite(16, 16))]
    module, inputs = materialise(lambda: (nn.Sequential(*gated), (torch.empty(1, 16, 8, 8, device="meta"),)))
    orders = {onnx.prepare(module, inputs, threads=1).network.kernels for _ in range(4)}
    assert len(orders) == 1


def test_a_block_is_as_wide_as_a_register() -> None:
    assert blocked_form((24, 16, 3, 3), 1, 8).weight == (24, 16, 3, 3)
    assert blocked_form((24, 16, 3, 3), 1, 16).weight == (32, 16, 3, 3)
    assert blocked_form((6, 3, 3, 3), 1, 8).reorders is False  # too few channels: read as they are


def test_blocks_are_those_of_the_target_wherever_it_is_asked_for() -> None:
    device = Device.load("intel-i9-10980xe")  # AVX-512
    graph = trace(nn.Conv2d(16, 24, 3), (torch.empty(1, 16, 8, 8),))

    def filters(lanes: int) -> int:
        model = CostModel.analytic(device.model_copy(update={"lanes": lanes}), runtime="onnxruntime", threads=1)
        return max(t.shape[0] for p in model.lower(graph).kernels for t in p.kernel.main.inputs if t.weight)

    assert (filters(16), filters(8)) == (32, 24)  # 24 channels are one and a half blocks of 16, and three of 8
