"""Sparse operands: stored values and indices are moved and worked on, as counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hwcost

pytestmark = pytest.mark.filterwarnings("ignore")


def three() -> torch.Tensor:
    """A 6 x 8 matrix of three ones, which lie in three blocks of 2 x 2."""
    x = torch.zeros(6, 8)
    x[0, 1] = x[2, 3] = x[5, 7] = 1
    return x


FORMS: dict[str, tuple[Any, int, int]] = {  # how it is made, stored values, bytes with indices
    "coo": (lambda x: x.to_sparse(), 3, 3 * 4 + 2 * 3 * 8),
    "csr": (lambda x: x.to_sparse_csr(), 3, 3 * 4 + (6 + 1) * 8 + 3 * 8),
    "csc": (lambda x: x.to_sparse_csc(), 3, 3 * 4 + (8 + 1) * 8 + 3 * 8),
    "bsr": (lambda x: x.to_sparse_bsr((2, 2)), 12, 12 * 4 + (3 + 1) * 8 + 3 * 8),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("product", [lambda a, x: a @ x, torch.sparse.mm, torch.mm])
def test_a_product(name: str, product: Any) -> None:
    make, stored, size = FORMS[name]
    a, x = make(three()), torch.zeros(8, 5)
    for graph in (hwcost.trace(product, (a, x)), hwcost.trace(lambda x: product(a, x), (x,))):
        assert graph.status == "complete"
        assert graph.cost.macs == stored * 5
        assert graph.cost.bytes_read == size + 8 * 5 * 4
        assert graph.cost.bytes_written == 6 * 5 * 4
        assert graph.peak_memory == size + 8 * 5 * 4 + 6 * 5 * 4


@pytest.mark.parametrize("name", FORMS)
def test_other_ops_keep_what_is_stored(name: str) -> None:
    make, stored, size = FORMS[name]
    a = make(three())
    doubled = hwcost.trace(lambda a: a * 2, (a,))
    assert (doubled.cost.other_flops, doubled.cost.bytes_read) == (stored, size)
    dense = hwcost.trace(lambda a: a.to_dense(), (a,)).cost
    assert (dense.bytes_read, dense.bytes_written) == (size, 6 * 8 * 4)


def test_a_graph_network_and_a_matrix_made_in_the_forward() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", three().to_sparse_csr())
            self.linear = nn.Linear(4, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sparse.mm(self.a, self.linear(x)).relu()  # type: ignore[arg-type]

    assert hwcost.trace(Layer(), torch.zeros(8, 4)).cost.macs == 8 * 4 * 2 + 3 * 2

    def made(index: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse_coo_tensor(index, values, (6, 8)) @ x

    graph = hwcost.trace(made, (torch.zeros(2, 5, dtype=torch.int64), torch.zeros(5), torch.zeros(8, 4)))
    assert (graph.cost.macs, graph.status) == (5 * 4, "complete")
