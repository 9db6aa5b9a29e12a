"""Rules against independent counts: a naive loop, a formula from the definition, torch's own counter."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

import hwcost
from hwcost.graph import OpSpec, TensorSpec
from hwcost.rules.registry import RuleError, Work, cost_of, free, known_kinds, rule

small = st.integers(1, 4)


def naive_convolution(size: int, channels: int, out: int, kernel: int, stride: int, padding: int, groups: int) -> int:
    """Multiply-adds of a convolution, padding included, by going through every one."""
    done = 0
    side = (size + 2 * padding - kernel) // stride + 1
    for _o, _y, _x in product(range(out), range(side), range(side)):
        for _c, _ky, _kx in product(range(channels // groups), range(kernel), range(kernel)):
            done += 1
    return done


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 7), small, small, st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(1, 2))
def test_convolution(size: int, channels: int, out: int, kernel: int, stride: int, padding: int, groups: int) -> None:
    channels, out = channels * groups, out * groups
    module = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups)
    graph = hwcost.trace(module, torch.zeros(1, channels, size, size))
    assert graph.cost.macs == naive_convolution(size, channels, out, kernel, stride, padding, groups)
    assert graph.cost.other_flops == graph.ops[0].spec.outputs[0].numel  # the bias


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), small, small, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_transposed_convolution(size: int, channels: int, out: int, kernel: int, stride: int, groups: int) -> None:
    """Every input element of every channel is spread over the window of each output channel of its group."""
    module = nn.ConvTranspose2d(channels * groups, out * groups, kernel, stride, groups=groups)
    done = sum(1 for _ in product(range(channels * groups), range(size**2), range(out), range(kernel**2)))
    assert hwcost.trace(module, torch.zeros(1, channels * groups, size, size)).cost.macs == done


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk->...ik", [(2, 3, 4, 5), (2, 3, 5, 6)]),
        ("i,j->ij", [(3,), (4,)]),
        ("nhwpqc,co->nhwpqo", [(1, 2, 2, 3, 3, 4), (4, 5)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    """torch's counter sees the products that einsum is made of."""
    operands = [torch.zeros(shape) for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        torch.einsum(equation, *operands)
    ours = hwcost.trace(lambda *xs: torch.einsum(equation, *xs), operands).cost.macs
    seen = counter.get_total_flops() // 2
    letters = {c: s for term, shape in zip(equation.split("->")[0].replace(".", "").split(","), shapes, strict=True)
               for c, s in zip(reversed(term), reversed(shape), strict=False)}  # fmt: skip
    if seen:
        assert ours == seen
    else:  # an outer product is made by multiplication, which that counter does not see
        assert ours == torch.tensor(list(letters.values())).prod()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent(kind: type[nn.RNNBase], gates: int, layers: int, both: bool) -> None:
    """Step by step: every gate of every direction meets the input and the hidden state."""
    module = kind(6, 5, num_layers=layers, bidirectional=both)  # type: ignore[arg-type]
    done, directions = 0, 1 + both
    for layer, _step, _direction in product(range(layers), range(7), range(directions)):
        done += 3 * gates * 5 * ((6 if layer == 0 else 5 * directions) + 5)
    assert hwcost.trace(module, torch.zeros(7, 3, 6)).cost.macs == done


def test_what_costs_flops_but_no_macs() -> None:
    """Per element, from the definition: see the tables of the rule files."""
    x = torch.zeros(2, 3, 4, 4)
    n = x.numel()
    for function, flops in [
        (F.relu, n),  # a comparison
        (lambda x: F.max_pool2d(x, 2), n),  # windows tile the map: each element is looked at once
        (lambda x: F.adaptive_avg_pool2d(x, 1), n),  # each element is added once
        (lambda x: x.sum(), n),
        (lambda x: F.layer_norm(x, (4,)), 6 * n),  # mean 1, variance 3, subtract and scale 2
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), 8 * 4 * n),  # 4 taps, multiply and add
        (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), 0),
        (lambda x: F.grid_sample(x, torch.zeros(2, 4, 4, 2)), 8 * n),
        (lambda x: torch.cat([x, x]), 0),
    ]:
        cost = hwcost.trace(function, x).cost
        assert (cost.macs, cost.other_flops) == (0, flops), function


def test_a_transform_takes_five_n_log_n() -> None:
    """N = 64 real transforms of 8 x 8: 2.5 * 64 * 64 * log2(64)."""
    graph = hwcost.trace(torch.fft.rfft2, torch.zeros(64, 8, 8))
    assert graph.cost.other_flops == 2.5 * 64 * 64 * 6


def test_an_embedding_reads_the_rows_asked_for_and_a_bag_adds_them() -> None:
    ids = torch.zeros(4, 3, dtype=torch.int64)
    assert hwcost.trace(nn.Embedding(1000, 8), ids).cost.bytes_weights == 12 * 8 * 4
    bag = hwcost.trace(nn.EmbeddingBag(1000, 8), ids).cost
    assert (bag.bytes_weights, bag.other_flops) == (12 * 8 * 4, 12 * 8)


def test_a_user_adds_a_rule_and_two_rules_for_one_kind_are_refused() -> None:
    @rule("my_lib.twice")
    def twice(op: OpSpec) -> Work:
        return Work(other_flops=2 * op.outputs[0].numel)

    x = TensorSpec("self", (3, 5))
    assert cost_of(OpSpec("my_lib.twice", (x,), (x,)))[0].other_flops == 30
    with pytest.raises(RuleError, match=r"one rule, but 'my_lib\.twice' is taken already \(.*twice\)"):
        rule("my_lib.twice")(twice)
    with pytest.raises(RuleError, match="'view' is taken already"):
        free("a second time", "view")


def test_no_kind_is_both_costed_and_free() -> None:
    costed, without_cost = known_kinds()
    assert not set(costed) & set(without_cost)
    assert all(without_cost.values()), "every free kind has its reason"


KINDS: dict[str, Any] = {
    "linear": (lambda x: F.linear(x, torch.zeros(8, 4)), torch.zeros(2, 4)),
    "conv2d": (lambda x: F.conv2d(x, torch.zeros(8, 4, 3, 3), stride=2), torch.zeros(1, 4, 9, 9)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), torch.zeros(1, 2, 4, 8)),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_cost_follows_from_the_description_alone(name: str) -> None:
    from hwcost.kernel import Kernel

    function, x = KINDS[name]
    for op in hwcost.trace(function, x).ops:
        if op.state == "costed":
            assert Kernel.from_json(Kernel((op.spec,)).to_json()).cost == op.cost


@pytest.mark.parametrize(
    ("loss", "flops"),
    [
        (F.mse_loss, 12 * 3),  # subtract, square, sum up
        (F.l1_loss, 12 * 3),  # subtract, drop the sign, sum up
        (lambda x, y: F.mse_loss(x, y, reduction="none"), 12 * 2),
        (lambda x, y: F.kl_div(x, y, reduction="sum"), 12 * 4),  # logarithm, subtract, multiply, sum up
        (F.cross_entropy, 12 * 5 + 12 * 3),  # log_softmax; targets are shares: multiply, negate, sum up
        (lambda x, _: F.cross_entropy(x, torch.zeros(4, dtype=torch.int64)), 12 * 5 + 4 * 2),  # pick, negate, sum up
        (lambda x, _: F.nll_loss(x, torch.zeros(4, dtype=torch.int64)), 4 * 2),
    ],
)
def test_losses_of_a_forward(loss: Any, flops: int) -> None:
    graph = hwcost.trace(loss, (torch.zeros(4, 3), torch.zeros(4, 3)))
    assert (graph.status, graph.cost.macs, graph.cost.other_flops) == ("complete", 0, flops)


@pytest.mark.parametrize(("size", "taps"), [((2, 1, 4, 5), 4), ((2, 1, 4, 5, 6), 8)])
def test_a_grid_is_made_of_products_and_sampled_with_taps(size: tuple[int, ...], taps: int) -> None:
    axes = len(size) - 2
    points = sum(1 for _ in product(*map(range, (size[0], *size[2:]))))
    graph = hwcost.trace(
        lambda matrix, x: F.grid_sample(x, F.affine_grid(matrix, list(size), align_corners=False), align_corners=False),
        (torch.zeros(2, axes, axes + 1), torch.zeros(size)),
    )
    assert graph.status == "complete"
    assert graph.cost.macs == points * axes * (axes + 1)  # [axes, axes + 1] matrix times a point
    assert graph.cost.other_flops == points * taps * 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layers", [{}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.Linear])
@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.qint8, 1), (torch.float16, 2)])
def test_dynamic_quantisation_changes_bytes_alone(kind: Any, layers: dict[str, Any], dtype: Any, itemsize: int) -> None:
    """Weights shrink, biases (which fill one axis) stay in single precision."""
    module = nn.Sequential(kind(32, 16, **(layers if kind is not nn.Linear else {}))).eval()
    quantised = torch.ao.quantization.quantize_dynamic(module, {kind}, dtype=dtype)  # type: ignore[no-untyped-call]
    x = torch.zeros(10, 2, 32)
    plain, packed = hwcost.trace(module, x), hwcost.trace(quantised, x)
    assert packed.status == "complete"
    assert (packed.cost.macs, packed.params) == (plain.cost.macs, plain.params)
    held = sum(p.numel() * (itemsize if p.dim() == 2 else 4) for p in module.parameters())
    assert packed.cost.bytes_weights == held


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        (nn.Conv1d(4, 8, 3), (1, 4, 10), 8 * 8 * 4 * 3),
        (nn.ConvTranspose2d(4, 8, 3), (1, 4, 6, 6), 4 * 36 * 8 * 9),
        (nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8)), (3, 4), 3 * 8 * 4),
        (nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Hardswish()), (1, 4, 6, 6), 8 * 16 * 4 * 9),
    ],
)
def test_static_quantisation(module: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    """Also with its observers in place, which write into buffers of their own."""
    quantisation: Any = torch.ao.quantization
    kind = "qnnpack" if isinstance(module, nn.ConvTranspose2d) else "fbgemm"  # fbgemm cannot quantise it per channel
    whole = nn.Sequential(quantisation.QuantStub(), module, quantisation.DeQuantStub()).eval()
    whole.qconfig = quantisation.get_default_qconfig(kind)
    observed = quantisation.prepare(whole)
    observed(torch.rand(shape))
    for network in (observed, quantisation.convert(observed)):
        graph = hwcost.trace(network, torch.zeros(shape))
        assert (graph.cost.macs, graph.status) == (macs, "complete"), graph.uncounted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "flops"), [(nn.Embedding(100, 32), 2), (nn.EmbeddingBag(100, 32, mode="sum"), 3)])
def test_a_quantised_embedding_reads_the_rows_asked_for(module: nn.Module, flops: int) -> None:
    quantisation: Any = torch.ao.quantization
    whole = nn.Sequential(module).eval()
    whole.qconfig = quantisation.float_qparams_weight_only_qconfig
    graph = hwcost.trace(quantisation.convert(quantisation.prepare(whole)), torch.zeros(2, 7, dtype=torch.int64))
    assert graph.status == "complete"
    assert (graph.cost.bytes_weights, graph.cost.other_flops, graph.params) == (14 * 32, flops * 14 * 32, 3200)


RULES = """
import torch
from hwcost.rules.registry import Work, rule

@torch.library.custom_op("hwcost_extension_test::outer_sum", mutates_args=())
def outer_sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, None] + b[None]

@outer_sum.register_fake
def _(a, b):
    return a.new_empty(len(a), len(b))

# [n, m] = outer_sum([n], [m])
@rule("hwcost_extension_test.outer_sum")
def outer_sum_rule(op):
    return Work(other_flops=op.outputs[0].numel)
"""
TRACE = """
import torch, hwcost
x = torch.zeros(3), torch.zeros(4)
graph = hwcost.trace(lambda a, b: torch.ops.hwcost_extension_test.outer_sum(a, b) @ b, x)
print(graph.status, graph.cost.macs, graph.cost.other_flops)
"""


def _run(code: str, *extensions: Path) -> subprocess.CompletedProcess[str]:
    named = os.environ | {"HWCOST_EXTENSIONS": os.pathsep.join(map(str, extensions))}
    return subprocess.run([sys.executable, "-c", code], env=named, capture_output=True, text=True, timeout=300)


def test_a_rule_family_is_one_file_that_the_environment_names(tmp_path: Path) -> None:
    family = tmp_path / "my_rules.py"
    family.write_text(RULES)
    done = _run(TRACE, family)
    assert done.stdout.split() == ["complete", "12", "12"], done.stderr


def test_a_family_that_claims_a_kind_of_another_is_refused_each_time(tmp_path: Path) -> None:
    family = tmp_path / "my_rules.py"
    family.write_text("from hwcost.rules.registry import Work, rule\nrule('conv2d')(lambda op: Work())\n")
    code = """
from hwcost.extensions import ExtensionError
from hwcost.rules.registry import known_kinds
for _ in range(2):
    try:
        known_kinds()
    except ExtensionError as error:
        print(error)
"""
    said = _run(code, family).stdout.splitlines()
    assert len(said) == 2
    assert said[0] == said[1]
    assert "my_rules.py cannot be imported: RuleError: a kind has one rule, but 'conv2d' is taken already" in said[0]


def test_a_user_s_rule_for_a_kind_of_ours_is_refused_before_ours_are_loaded() -> None:
    code = "import hwcost\nhwcost.rule('conv2d')(lambda op: hwcost.Work())"
    assert "a kind has one rule, but 'conv2d' is taken already" in _run(code).stderr
