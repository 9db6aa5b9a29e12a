"""Thirty-four small cases where public counters disagree, each with the number of macs worked out by hand."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import hwcost

Case = tuple[nn.Module | Callable[..., Any], tuple[Tensor, ...], int]
CASES: dict[str, Callable[[], Case]] = {}


def case(name: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def register(build: Callable[[], Case]) -> Callable[[], Case]:
        CASES[name] = build
        return build

    return register


class Calls(nn.Module):
    """A module around a function and parameters."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *self.weights)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


# 12 heads, 64 queries, 64 keys, width 64: q k^T and p v take 12 * 64 * 64 * 64 each
case("F.sdpa B1H12S64D64")(
    lambda: (Calls(F.scaled_dot_product_attention), (zeros(1, 12, 64, 64),) * 3, 2 * 12 * 64 * 64 * 64)
)
# one of the two products only
case("q@k operator")(lambda: (Calls(lambda q, k: q @ k), (zeros(1, 12, 64, 64),) * 2, 12 * 64 * 64 * 64))
case("torch.einsum bhid,bhjd->bhij")(
    lambda: (
        Calls(lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k)),
        (zeros(1, 12, 64, 64), zeros(1, 12, 64, 64)),
        12 * 64 * 64 * 64,
    )
)

# Self-attention of width 64 over 128 tokens: four projections 128 * 64 * 64, two products 128 * 128 * 64
# (the heads share the width)
ATTENTION = 4 * 128 * 64 * 64 + 2 * 128 * 128 * 64


class SelfAttention(nn.Module):
    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(64, 4, batch_first=True), weights

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, need_weights=self.weights)[0]
        return out


case("nn.MultiheadAttention(64,4) S128")(lambda: (SelfAttention(weights=False), (zeros(1, 128, 64),), ATTENTION))
case("nn.MHA need_weights=True")(lambda: (SelfAttention(weights=True), (zeros(1, 128, 64),), ATTENTION))
# and two linears between 64 and 256
case("nn.TransformerEncoderLayer(64,4,256)")(
    lambda: (
        nn.TransformerEncoderLayer(64, 4, 256, batch_first=True),
        (zeros(1, 128, 64),),
        ATTENTION + 2 * 128 * 64 * 256,
    )
)

# A transposed convolution sends each of 8 * 8 inputs of 16 channels through 4 * 4 taps to 32 / groups channels
case("ConvTranspose2d(16,32,4,s2,p1) 8x8")(
    lambda: (nn.ConvTranspose2d(16, 32, 4, 2, 1), (zeros(1, 16, 8, 8),), 8 * 8 * 16 * 4 * 4 * 32)
)
case("ConvTranspose2d groups=4")(
    lambda: (nn.ConvTranspose2d(16, 32, 4, 2, 1, groups=4), (zeros(1, 16, 8, 8),), 8 * 8 * 16 * 4 * 4 * 32 // 4)
)
# 32 * 32 outputs of 64 channels, 9 taps of one input channel each
case("depthwise Conv2d(64,64,3,g64) 32x32")(
    lambda: (nn.Conv2d(64, 64, 3, padding=1, groups=64), (zeros(1, 64, 32, 32),), 32 * 32 * 64 * 9)
)
# stride 2 and padding 2 halve 64 x 64 (dilation spreads the taps, it adds none): 32 * 32 * 32 outputs of 9 * 32
case("Conv2d dilation2 stride2")(
    lambda: (
        nn.Conv2d(32, 32, 3, stride=2, padding=2, dilation=2),
        (zeros(1, 32, 64, 64),),
        32 * 32 * 32 * 9 * 32,
    )
)
case("Conv3d(8,16,3) 8^3")(lambda: (nn.Conv3d(8, 16, 3, padding=1), (zeros(1, 8, 8, 8, 8),), 8**3 * 16 * 27 * 8))

# Per step: 4 (LSTM) or 3 (GRU) gates of 64, each from 32 inputs and 64 hidden
case("nn.LSTM(32,64) T10 B1")(lambda: (nn.LSTM(32, 64, batch_first=True), (zeros(1, 10, 32),), 10 * 4 * 64 * (32 + 64)))
case("nn.GRU(32,64) T10 B1")(lambda: (nn.GRU(32, 64, batch_first=True), (zeros(1, 10, 32),), 10 * 3 * 64 * (32 + 64)))
case("nn.LSTMCell(32,64)")(lambda: (nn.LSTMCell(32, 64), (zeros(1, 32),), 4 * 64 * (32 + 64)))

case("F.linear w/ Parameter")(lambda: (Calls(F.linear, (128, 64)), (zeros(16, 64),), 16 * 64 * 128))
case("F.conv2d w/ Parameter")(
    lambda: (
        Calls(lambda x, w: F.conv2d(x, w, padding=1), (32, 16, 3, 3)),
        (zeros(1, 16, 16, 16),),
        16 * 16 * 32 * 9 * 16,
    )
)


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.linear(self.linear(x)))
        return out


class Aliased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x))
        return out


class Explicit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear.forward(x)


case("same Linear called 3x")(lambda: (Repeated(), (zeros(16, 64),), 3 * 16 * 64 * 64))
case("aliased submodule (a is b)")(lambda: (Aliased(), (zeros(16, 64),), 2 * 16 * 64 * 64))
case("explicit .forward()")(lambda: (Explicit(), (zeros(16, 64),), 16 * 64 * 64))
case("Linear on 1-D input (mv)")(lambda: (nn.Linear(64, 128), (zeros(64),), 64 * 128))
case("torch.mv")(lambda: (Calls(lambda x, w: torch.mv(w, x), (128, 64)), (zeros(64),), 128 * 64))
case("torch.dot")(lambda: (Calls(torch.dot), (zeros(64), zeros(64)), 64))
case("torch.baddbmm")(
    lambda: (Calls(torch.baddbmm), (zeros(4, 16, 16), zeros(4, 16, 16), zeros(4, 16, 16)), 4 * 16 * 16 * 16)
)
# the four products are summed; each is made
case("torch.addbmm")(
    lambda: (Calls(torch.addbmm), (zeros(16, 16), zeros(4, 16, 16), zeros(4, 16, 16)), 4 * 16 * 16 * 16)
)
case("torch.outer")(lambda: (Calls(torch.outer), (zeros(64), zeros(128)), 64 * 128))
# x1 A x2 for 8 features of 4 samples
case("nn.Bilinear(16,16,8) B4")(lambda: (nn.Bilinear(16, 16, 8), (zeros(4, 16), zeros(4, 16)), 4 * 8 * 16 * 16))
case("Linear bf16")(
    lambda: (nn.Linear(64, 128).to(torch.bfloat16), (zeros(16, 64, dtype=torch.bfloat16),), 16 * 64 * 128)
)
case("Conv2d channels_last")(
    lambda: (
        nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        (zeros(1, 64, 32, 32).to(memory_format=torch.channels_last),),
        32 * 32 * 64 * 9 * 64,
    )
)


@case("torchvision.ops.deform_conv2d 3x3 16->16")
def deformable() -> Case:
    ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
    offsets, weight = zeros(1, 2 * 9, 32, 32), zeros(16, 16, 3, 3)
    return (
        Calls(lambda x, o, w: ops.deform_conv2d(x, o, w, padding=1)),
        (zeros(1, 16, 32, 32), offsets, weight),
        (32 * 32 * 16 * 9 * 16),
    )


# Not a product among them: headline macs are convolution, matmul and attention
case("nn.LayerNorm(768) 197")(lambda: (nn.LayerNorm(768), (zeros(1, 197, 768),), 0))
case("BatchNorm2d 64x56x56")(lambda: (nn.BatchNorm2d(64), (zeros(1, 64, 56, 56),), 0))
case("GELU+add (elementwise) 1e6")(lambda: (Calls(lambda x: F.gelu(x) + x), (zeros(1_000_000),), 0))
case("torch.fft.rfft2 64ch 56x56")(lambda: (Calls(torch.fft.rfft2), (zeros(1, 64, 56, 56),), 0))


@case("dynamic-quantized Linear")
def quantised() -> Case:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the quantiser moved to another package
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 128)), {nn.Linear})
    return model, (zeros(16, 64),), 16 * 64 * 128


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_macs_of_a_small_case(name: str) -> None:
    module, inputs, macs = CASES[name]()
    graph = hwcost.trace(module, inputs)
    assert graph.cost.macs == macs
    assert graph.status == "complete", graph.uncounted


def test_the_published_list_of_cases_is_covered_and_agrees() -> None:
    shared = Path(os.environ.get("HWCOST_SHARED", Path(__file__).parents[2] / "shared"))
    path = shared / "data" / "counters" / "micro_cases.json"
    if not path.is_file():
        pytest.skip(f"the list of counter cases is not at {path}")
    published = {row["case"]: row["expected_macs"] for row in json.loads(path.read_text())}
    assert set(published) == set(CASES)
    for name, macs in published.items():
        if "torchvision" not in name or importlib.util.find_spec("torchvision"):
            assert CASES[name]()[2] == macs, name


def test_each_spelling_of_attention_gives_the_same_macs() -> None:
    """One layer of self-attention, four times: fused path, unfused path, einsum, bare products."""
    torch.manual_seed(0)
    x = zeros(2, 32, 64)

    def bare(x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
        q, k, v = (F.linear(x, w).unflatten(-1, (4, 16)).transpose(1, 2) for w in w_in.chunk(3))
        return F.linear(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2), w_out)

    def einsum(x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bld,ed->ble", x, w).unflatten(-1, (4, 16)) for w in w_in.chunk(3))
        scores = torch.einsum("blhd,bshd->bhls", q, k).softmax(-1)
        return torch.einsum("ble,de->bld", torch.einsum("bhls,bshd->blhd", scores, v).flatten(2), w_out)

    def fused(x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
        q, k, v = (F.linear(x, w).unflatten(-1, (4, 16)).transpose(1, 2) for w in w_in.chunk(3))
        return F.linear(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), w_out)

    shapes = ((192, 64), (64, 64))
    spellings: list[nn.Module] = [Calls(f, *shapes) for f in (bare, einsum, fused)]
    spellings += [SelfAttention(weights=False), SelfAttention(weights=True)]
    macs = [hwcost.trace(module, (x,)).cost.macs for module in spellings]
    assert macs == [2 * (4 * 32 * 64 * 64 + 2 * 32 * 32 * 64)] * 5


def test_grouped_queries_cost_what_their_heads_cost() -> None:
    """8 query heads over 2 key heads do the work of 8 heads; they read the keys of 2."""
    attention = Calls(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    query, key = zeros(1, 8, 16, 32), zeros(1, 2, 16, 32)
    graph = hwcost.trace(attention, (query, key, key.clone()))
    assert graph.cost.macs == 2 * 8 * 16 * 16 * 32
    assert graph.cost.bytes_activations == (query.numel() + 2 * key.numel()) * 4


def test_a_mask_adds_one_flop_a_score() -> None:
    q = zeros(1, 2, 8, 4)
    plain = hwcost.trace(Calls(F.scaled_dot_product_attention), (q, q, q)).cost
    masked = hwcost.trace(Calls(F.scaled_dot_product_attention), (q, q, q, zeros(8, 8))).cost
    assert masked.macs == plain.macs
    assert masked.other_flops - plain.other_flops == 2 * 8 * 8
