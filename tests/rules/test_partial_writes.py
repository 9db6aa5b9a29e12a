"""What is written into part of a tensor counts as that part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import hwcost

WHOLE, PART, INDEX = 2 * 100 * 8 * 4, 2 * 3 * 8 * 4, 3 * 8  # bytes of cache, of three rows, of their numbers


def into_slice(cache: Any, index: Any, rows: Any) -> Any:
    cache[:, 4:7] = rows
    return cache


def at_indices(cache: Any, index: Any, rows: Any) -> Any:
    cache[:, index] = rows
    return cache


@pytest.mark.parametrize(
    ("function", "read", "written", "flops"),
    [
        (into_slice, PART, PART, 0),
        (at_indices, PART + INDEX, PART, 0),
        (lambda c, i, r: c.index_copy_(1, i, r), PART + INDEX, PART, 0),
        (lambda c, i, r: c.index_fill_(1, i, 0.0), INDEX, PART, 0),
        (lambda c, i, r: c.index_add_(1, i, r), 2 * PART + INDEX, PART, PART // 4),  # old values are read too
        (lambda c, i, r: c.index_copy(1, i, r), WHOLE + PART + INDEX, WHOLE, 0),  # a new tensor
        (lambda c, i, r: c.slice_scatter(r, 1, 4, 7), WHOLE, WHOLE, 0),  # the rest of the old one, and the rows
        (lambda c, i, r: c.select_scatter(r[:, 0], 1, 4), WHOLE, WHOLE, 0),
    ],
)
def test_three_rows_of_a_cache(function: Any, read: int, written: int, flops: int) -> None:
    graph = hwcost.trace(function, (torch.zeros(2, 100, 8), torch.tensor([4, 5, 6]), torch.zeros(2, 3, 8)))
    assert graph.status == "complete"
    assert (graph.cost.bytes_read, graph.cost.bytes_written, graph.cost.other_flops) == (read, written, flops)


@pytest.mark.parametrize("adds", [False, True])
def test_scatter_writes_one_element_for_each_index(adds: bool) -> None:
    x, index, source = torch.zeros(2, 100, 8), torch.zeros(2, 3, 8, dtype=torch.int64), torch.zeros(2, 5, 8)
    cost = hwcost.trace(lambda x, i, s: (x.scatter_add_ if adds else x.scatter_)(1, i, s), (x, index, source)).cost
    assert cost.bytes_written == 48 * 4
    assert cost.bytes_read == 48 * 8 + 48 * 4 * (1 + adds)  # indices, as much of the source, old values


@pytest.mark.parametrize(
    ("function", "read", "written"),
    [
        (lambda x, y, z: x.add_(y), 2, 1),
        (lambda x, y, z: torch.add(x, y, out=z), 2, 1),  # the old content of z is not read
        (lambda x, y, z: torch.add(x, y, out=x), 2, 1),
        (lambda x, y, z: x.add_(x), 1, 1),
        (lambda x, y, z: x.view(-1) * x.flatten(), 1, 1),  # two views of one storage
        (lambda x, y, z: x[:2] + x[2:], 1, 0.5),  # two halves of it
    ],
)
def test_what_is_read_and_written_once_counts_once(function: Any, read: float, written: float) -> None:
    tensors = [torch.zeros(4, 6) for _ in range(3)]
    cost = hwcost.trace(function, tensors).cost
    assert (cost.bytes_read, cost.bytes_written) == (read * 96, written * 96)


def test_a_gram_matrix_reads_its_operand_once() -> None:
    assert hwcost.trace(lambda x: x @ x.t(), torch.zeros(4, 6)).cost.bytes_read == 96


def test_an_embedding_reads_at_most_its_table() -> None:
    ids, table = torch.zeros(100, dtype=torch.int64), torch.zeros(5, 8)
    assert hwcost.trace(F.embedding, (ids, table)).cost.bytes_read == 100 * 8 + 5 * 8 * 4
