"""Operators that take functions, against the same forward written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._higher_order_ops import map as map_op
from torch._higher_order_ops import scan, while_loop
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import hwcost

pytestmark = pytest.mark.filterwarnings("ignore")


def cheap(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def dear(x: torch.Tensor) -> torch.Tensor:
    return x @ x.transpose(-1, -2) @ x


@pytest.mark.parametrize("branches", [(cheap, dear), (dear, cheap)])
def test_cond_counts_its_dearer_branch_and_says_so(branches: Any) -> None:
    x = torch.zeros(6, 4)
    graph = hwcost.trace(lambda x: torch.cond(x.sum() > 0, *branches, (x,)), x)
    written = hwcost.trace(lambda x: (x.sum() > 0, dear(x)), x)
    assert graph.cost == written.cost
    assert graph.peak_memory == written.peak_memory
    assert any("dearer branch" in note for note in graph.notes)


def test_cond_takes_a_branch_that_is_known() -> None:
    graph = hwcost.trace(lambda x, n: torch.cond(n > 0, cheap, dear, (x,)), (torch.zeros(6, 4), torch.tensor(1)))
    assert graph.cost.macs == 0


def test_loops_count_every_step() -> None:
    x, y = torch.zeros(5, 3, 4), torch.zeros(4, 2)
    assert hwcost.trace(lambda x, y: map_op(lambda a, y: a @ y, x, y), (x, y)).cost.macs == 5 * 3 * 4 * 2
    steps = hwcost.trace(
        lambda c, x: scan(lambda c, x: (c + x, c * x), c, x, dim=0), (torch.zeros(4), torch.zeros(7, 4))
    )
    assert sum(op.spec.kind in ("add", "mul") for op in steps.ops) == 2 * 7
    loop = hwcost.trace(
        lambda i, x: while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x @ x), (i, x)),
        (torch.tensor(0), torch.zeros(4, 4)),
    )
    assert loop.cost.macs == 3 * 4 * 4 * 4


def test_a_loop_whose_end_is_not_known_is_refused() -> None:
    x = torch.zeros(4, device="meta")
    with pytest.raises(hwcost.TraceError, match="reads a value that shapes alone do not determine"):
        hwcost.trace(lambda x: while_loop(lambda x: x.sum() < 3, lambda x: (x + 1,), (x,)), x)


def test_flex_attention_counts_the_blocks_that_its_mask_keeps() -> None:
    q = torch.zeros(2, 3, 512, 16)
    full = hwcost.trace(lambda q: flex_attention(q, q, q), q).cost
    assert full.macs == 2 * 3 * 512 * 512 * (16 + 16)
    mask = create_block_mask(lambda b, h, m, n: m >= n, None, None, 512, 512, device="cpu", BLOCK_SIZE=128)
    graph = hwcost.trace(lambda q: flex_attention(q, q, q, block_mask=mask), q)
    kept = sum(1 for row in range(4) for column in range(4) if row >= column)
    op = graph.ops[-1]
    assert (op.spec.kind, graph.status) == ("flex_attention", "complete")
    assert op.cost.macs == 2 * 3 * kept * 128 * 128 * (16 + 16)
    diagonal = 2 * 3 * 4 * 128 * 128  # scores of blocks that the mask cuts: a comparison and a choice
    assert op.cost.other_flops == 2 * 3 * kept * 128 * 128 * 6 + diagonal * 2


def test_flex_attention_with_fewer_heads_of_keys_and_a_changed_score() -> None:
    q, k = torch.zeros(1, 8, 64, 16), torch.zeros(1, 2, 64, 16)
    graph = hwcost.trace(
        lambda q, k: flex_attention(q, k, k, score_mod=lambda s, b, h, m, n: s + (m - n), enable_gqa=True), (q, k)
    )
    scores = 8 * 64 * 64
    assert (graph.ops[-1].cost.macs, graph.ops[-1].cost.other_flops) == (scores * 32, scores * (6 + 2))
