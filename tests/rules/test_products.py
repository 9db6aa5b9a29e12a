"""Products of every form against what torch runs, naive loops and written-out arithmetic."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

import hwcost


class Seen(TorchDispatchMode):
    """Counts the products and sums that torch makes of an einsum outside inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.additions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        self.macs += {"aten::bmm": out.numel() * args[0].shape[-1], "aten::mul": out.numel()}.get(name, 0)
        self.additions += args[0].numel() if name == "aten::sum" else 0
        return out


def random_einsum(draw: random.Random) -> tuple[str, list[torch.Tensor], list[int] | None]:
    """An equation, its operands and a path: diagonals, ellipses, broadcast axes, and indices of one operand alone."""
    size = {c: draw.randint(1, 5) for c in "abcdeA"}
    dots = [draw.choice([1, 2, 3]) for _ in range(2)]
    terms, operands = [], []
    for _ in range(draw.randint(1, 4)):
        term = [draw.choice("abcdeA") for _ in range(draw.randint(1, 4))]
        shape = [size[c] if draw.random() > 0.1 or term.count(c) > 1 else 1 for c in term]
        if draw.random() < 0.3:
            at, n = draw.randint(0, len(term)), draw.randint(0, 2)
            term.insert(at, "...")
            shape[at:at] = [d if draw.random() > 0.3 else 1 for d in dots[2 - n :]]
        terms.append("".join(term))
        operands.append(torch.zeros(shape))
    equation = ",".join(terms)
    if draw.random() < 0.7:
        letters = sorted(set("".join(terms)) - {"."})
        out = draw.sample(letters, draw.randint(0, len(letters)))
        out += ["..."] * ("..." in equation)
        equation += "->" + "".join(out)
    path = [i for n in range(len(terms), 1, -1) for i in draw.sample(range(n), 2)] if len(terms) > 2 else None
    return equation, operands, path if draw.random() < 0.5 else None


@pytest.mark.parametrize("seed", range(60))
def test_einsum_counts_the_products_and_sums_that_torch_runs(seed: int) -> None:
    equation, operands, path = random_einsum(random.Random(seed))

    def einsum(*xs: torch.Tensor) -> Any:
        return torch._VF.einsum(equation, list(xs), path=path)  # type: ignore[attr-defined]

    try:
        with Seen() as seen:
            einsum(*operands)
    except RuntimeError:  # sizes that do not fit
        with pytest.raises(hwcost.TraceError):
            hwcost.trace(einsum, operands)
        return
    cost = hwcost.trace(einsum, operands).cost
    assert (cost.macs, cost.other_flops) == (seen.macs, seen.additions), (equation, path)


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (lambda a, b: a @ b, [(3, 4), (4, 5)], 4 * 3 * 4 * 5),  # (a + bi)(c + di): four products of real numbers
        (torch.dot, [(7,), (7,)], 4 * 7),
        (F.conv1d, [(2, 3, 9), (4, 3, 3)], 4 * 2 * 4 * 7 * 3 * 3),
        (lambda a, b: torch.einsum("ij,jk->ik", a, b), [(3, 4), (4, 5)], 4 * 3 * 4 * 5),
    ],
)
def test_a_complex_multiply_add_is_four_of_real_numbers(function: Any, shapes: list[Any], macs: int) -> None:
    operands = [torch.zeros(shape, dtype=torch.complex64) for shape in shapes]
    assert hwcost.trace(function, operands).cost.macs == macs


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda x, y: x + y, 2),  # both parts
        (lambda x, y: x * y, 6),  # 4 products, 2 sums
        (lambda x, y: x * 2.0, 2),
        (lambda x, y: x * y.real, 2),
        (lambda x, y: x / y, 6 + 3 + 2),  # times the conjugate; |y|^2; divide both parts
        (lambda x, y: x.abs(), 3 + 1),  # |x|^2 and a square root
        (lambda x, y: x.sum(), 2),
    ],
)
def test_flops_of_complex_numbers(function: Any, flops: int) -> None:
    x = torch.zeros(5, 3, dtype=torch.complex64)
    assert hwcost.trace(function, (x, x.clone())).cost.other_flops == 15 * flops


def test_a_dot_product_along_any_axis_and_a_chain_in_its_best_order() -> None:
    x, y = torch.zeros(4, 5, 6), torch.zeros(1, 5, 6)
    assert hwcost.trace(lambda a, b: torch.linalg.vecdot(a, b, dim=1), (x, y)).cost.macs == 4 * 5 * 6
    a, b, c = torch.zeros(2, 30), torch.zeros(30, 3), torch.zeros(3, 40)
    chain = hwcost.trace(lambda *xs: torch.linalg.multi_dot(xs), (a, b, c)).cost.macs
    assert chain == min(2 * 30 * 3 + 2 * 3 * 40, 30 * 3 * 40 + 2 * 30 * 40)


def test_factors_of_a_sum_count() -> None:
    x = torch.zeros(3, 4)
    assert hwcost.trace(lambda a: torch.add(a, a, alpha=0.5), x).cost.other_flops == 2 * 12
    c, a, b = torch.zeros(3, 5), torch.zeros(3, 4), torch.zeros(4, 5)
    cost = hwcost.trace(lambda c, a, b: torch.addmm(c, a, b, alpha=2, beta=0.5), (c, a, b)).cost
    assert (cost.macs, cost.other_flops) == (60, 3 * 15)


@pytest.mark.parametrize(("rows", "experts"), [(2, 64), (100, 4)])
def test_rows_meet_at_most_as_many_experts_as_there_are_rows(rows: int, experts: int) -> None:
    weight = nn.Parameter(torch.empty(experts, 32, 16, dtype=torch.bfloat16))
    x, ends = torch.zeros(rows, 32, dtype=torch.bfloat16), torch.zeros(experts, dtype=torch.int32)
    module = nn.Module()
    module.w = weight  # type: ignore[assignment]
    module.forward = lambda x, ends: F.grouped_mm(x, weight, offs=ends)  # type: ignore[method-assign]
    cost = hwcost.trace(module, (x, ends)).cost
    assert cost.macs == rows * 32 * 16
    assert cost.bytes_weights == min(rows, experts) * 32 * 16 * 2


def test_a_layer_that_gets_no_rows_reads_no_weights() -> None:
    assert hwcost.trace(nn.Linear(8, 8), torch.zeros(0, 8)).cost.bytes_weights == 0


@pytest.mark.parametrize("gqa", [False, True])
def test_attention_over_heads_and_batches_that_are_broadcast(gqa: bool) -> None:
    """By going through every score."""
    q = torch.zeros(1 if not gqa else 2, 6, 5, 4)
    k, v = torch.zeros(2, 6 if not gqa else 3, 7, 4), torch.zeros(2, 6 if not gqa else 3, 7, 3)
    if not gqa:
        q = q.expand(2, 6, 5, 4)
    done = sum(4 + 3 for _ in product(range(2), range(6), range(5), range(7)))
    attention = hwcost.trace(lambda *x: F.scaled_dot_product_attention(*x, enable_gqa=gqa), (q, k, v))
    assert attention.cost.macs == done


def test_a_mask_inside_fused_attention_is_read_and_added() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x, mask = torch.zeros(1, 5, 8), torch.zeros(1, 5, dtype=torch.bool)
    plain = hwcost.trace(lambda x: layer(x, x, x, need_weights=False)[0], (x,))
    masked = hwcost.trace(lambda x: layer(x, x, x, key_padding_mask=mask, need_weights=False)[0], (x,))
    fused = [next(op for op in g.ops if "multi_head" in op.name) for g in (plain, masked)]
    assert fused[1].cost.other_flops - fused[0].cost.other_flops == 2 * 5 * 5  # one for each score of each head


class Cell(nn.Module):
    """The time steps of a layer, written out."""

    def __init__(self, gates: int) -> None:
        super().__init__()
        self.gates = gates

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        if self.gates == 4:  # the gates' sums are products, which count as macs
            i, f, g, o = torch.sigmoid(x), torch.sigmoid(x), torch.tanh(x), torch.sigmoid(x)
            c = f * c + i * g
            return o * torch.tanh(c)
        if self.gates == 3:
            r, z = torch.sigmoid(x), torch.sigmoid(x)
            n = torch.tanh(r * h)  # the sum with the input's share comes with the products
            return (1 - z) * n + z * h
        return torch.tanh(x)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_a_recurrent_layer_does_what_its_cell_does(kind: Any, gates: int) -> None:
    x = torch.zeros(2, 5)
    cell = hwcost.trace(Cell(gates), (x, x.clone(), x.clone())).cost.other_flops
    layer = hwcost.trace(kind(6, 5), torch.zeros(7, 2, 6)).cost.other_flops
    assert layer == 7 * (cell + 2 * 2 * gates * 5)  # two biases of each gate


def test_an_lstm_with_a_projected_state() -> None:
    """Two layers: input or state of the layer below, projected state, projection."""
    module = nn.LSTM(6, 8, num_layers=2, proj_size=3)
    cost = hwcost.trace(module, torch.zeros(5, 2, 6)).cost
    assert cost.macs == 5 * 2 * (4 * 8 * (6 + 3) + 8 * 3 + 4 * 8 * (3 + 3) + 8 * 3)
    assert cost.other_flops == 5 * 2 * 2 * (8 * 24 + 2 * 4 * 8)


def test_functions_count_inside_others_as_they_do_alone() -> None:
    x = torch.zeros(9)

    def flops(function: Any) -> int:
        return hwcost.trace(function, x).cost.other_flops

    assert flops(F.mish) == flops(lambda x: x * torch.tanh(F.softplus(x)))
    assert flops(F.silu) == flops(lambda x: x * torch.sigmoid(x))
    assert flops(F.logsigmoid) == flops(lambda x: torch.log(torch.sigmoid(x)))
    assert flops(lambda x: F.gelu(x, approximate="tanh")) == flops(
        lambda x: x * 0.5 * (1 + torch.tanh(0.79788 * (x + 0.044715 * x * x * x)))
    )
    assert flops(F.gelu) == flops(lambda x: x * 0.5 * (1 + torch.erf(x / 1.41421)))
