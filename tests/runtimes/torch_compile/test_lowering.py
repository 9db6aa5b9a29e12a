"""The lowering for torch.compile against the code that inductor generates: the same kernels.

The reference is read from inductor's own record of the kernels it wrote, never written down here.
"""

from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from torch import nn

from hwcost import trace
from hwcost.measure.items import sampled_items
from hwcost.measure.materialise import materialise
from hwcost.runtimes.base import RuntimeUnavailable
from hwcost.runtimes.registry import get_runtime
from hwcost.runtimes.torch_compile.lowering import VERSION
from hwcost.search.spaces import get_space, space_names
from hwcost.spaces.designed.attention import Attention
from hwcost.spaces.designed.modules import Concatenated, Residual

pytest.importorskip("hwcost.runtimes.torch_compile.session", exc_type=RuntimeUnavailable)
compiler = get_runtime("torch-compile")

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith(VERSION), reason=f"the rules are those of inductor of torch {VERSION}"
)

MAP, TOKENS = (1, 16, 16, 16), (2, 12, 32)
PATTERNS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pointwise chain": (lambda: nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Tanh(), nn.Linear(32, 8)), TOKENS),
    "norm between convolutions": (
        lambda: nn.Sequential(nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1)), MAP),
    "activations in place": (
        lambda: nn.Sequential(
            nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.SiLU(inplace=True), nn.Conv2d(24, 8, 1), nn.ReLU(inplace=True),
            nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)), MAP),
    "sum of branches": (lambda: nn.Sequential(Residual(nn.Conv2d(16, 16, 3, padding=1)), nn.ReLU()), MAP),
    "a convolution's own result": (lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)), MAP),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.Hardswish(), nn.Conv2d(16, 24, 1)), MAP),
    "pool and classifier": (
        lambda: nn.Sequential(nn.Conv2d(16, 24, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)), MAP),
    "whole attention layers": (
        lambda: nn.Sequential(
            nn.Linear(32, 32), nn.GELU(), *(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True) for _ in range(2)),
            nn.ReLU(), nn.Linear(32, 8)), TOKENS),
    "attention fused": (lambda: nn.Sequential(nn.LayerNorm(32), Attention(32, 4, fused=True)), TOKENS),
}  # fmt: skip


def compared(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Counter[object], Counter[object]]:
    """Kernels of the compiled function, and those of the lowering, each counted."""
    real = Counter[object](p.kernel for p in compiler.prepare(module, inputs, threads=1).network.kernels)
    return real, Counter[object](p.kernel for p in compiler.lower(trace(module, inputs)).kernels)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_kernels_of_a_pattern_are_foreseen(name: str) -> None:
    make, shape = PATTERNS[name]
    real, foreseen = compared(*materialise(lambda: (make(), (torch.empty(shape, device="meta"),))))
    assert foreseen == real


# Inductor makes one copy for both convolutions in the first; in the second, it copies what a product reads transposed.
NOT_YET: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "an input of two convolutions": (lambda: Concatenated([nn.Conv2d(16, 8, 1), nn.Conv2d(16, 24, 1)]), MAP),
    "attention by its parts": (lambda: Residual(Attention(32, 4, fused=False)), TOKENS),
}


@pytest.mark.xfail(reason="not foreseen yet", strict=True)
@pytest.mark.parametrize("name", NOT_YET)
def test_what_is_not_foreseen_yet(name: str) -> None:
    make, shape = NOT_YET[name]
    real, foreseen = compared(*materialise(lambda: (make(), (torch.empty(shape, device="meta"),))))
    assert foreseen == real


@pytest.mark.slow
@pytest.mark.parametrize("space", space_names())
def test_a_network_of_a_space_has_as_many_kernels_as_foreseen(space: str) -> None:
    """To 5 % of the number of kernels."""
    for item in islice(sampled_items(get_space(space), seed=11), 1):
        real, foreseen = compared(*materialise(item.build))
        assert abs(foreseen.total() - real.total()) <= 0.05 * real.total(), item.name
