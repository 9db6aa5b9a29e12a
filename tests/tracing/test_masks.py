"""Boolean masks: unknown ones are noted, known ones are used, and both give the shapes that torch gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hwcost

ROWS = torch.tensor([True, False, True, True, False, False])
WHOLE = torch.zeros(6, 8, dtype=torch.bool)
WHOLE[:2] = True
X = torch.linspace(-1, 1, 48).view(6, 8)

SELECTIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "rows": (lambda x, m: x[m], ROWS),
    "rows of every column": (lambda x, m: x[m, :], ROWS),
    "columns": (lambda x, m: x.t()[:, m], ROWS),
    "rows and a column": (lambda x, m: x[m, 2], ROWS),
    "elements": (lambda x, m: x[m], WHOLE),
    "with a new axis": (lambda x, m: x[:, None][m], ROWS),
    "bytes": (lambda x, m: x[m.to(torch.uint8)], ROWS),
    "masked_select": (torch.masked_select, WHOLE),
    "masked_select by keyword": (lambda x, m: torch.masked_select(input=x, mask=m), WHOLE),
    "masked_select, mask broadcast": (lambda x, m: torch.masked_select(x, m[:, None]), ROWS),
    "masked_select, input broadcast": (lambda x, m: torch.masked_select(x[:, :1], m), WHOLE),
    "nonzero": (lambda x, m: x[m.nonzero(as_tuple=True)], WHOLE),
}


@pytest.mark.filterwarnings("ignore:.*uint8")
@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_known_mask_selects_what_it_selects(name: str, device: str) -> None:
    select, mask = SELECTIONS[name]
    graph = hwcost.trace(select, (X.to(device), mask))
    assert graph.ops[-1].spec.outputs[0].shape == tuple(select(X, mask).shape)
    assert graph.notes == ()


@pytest.mark.filterwarnings("ignore:.*uint8")
@pytest.mark.parametrize("name", SELECTIONS)
def test_an_unknown_mask_selects_everything_and_is_noted(name: str) -> None:
    select, mask = SELECTIONS[name]
    graph = hwcost.trace(select, (X, torch.empty(mask.shape, dtype=torch.bool, device="meta")))
    assert graph.ops[-1].spec.outputs[0].shape == tuple(select(X, torch.ones_like(mask)).shape)
    assert any("selects by values" in note or "depends on values" in note for note in graph.notes)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_mask_of_any_rank_is_noted_where_it_selects_and_where_it_is_written_through(rank: int) -> None:
    def selects(x: Tensor) -> Tensor:
        return x[x.sum(tuple(range(rank, 3))) > 0] if rank < 3 else x[x > 0]

    def writes(x: Tensor) -> Tensor:
        y = x.clone()
        y[x.sum(tuple(range(rank, 3))) > 0 if rank < 3 else x > 0] = 0
        return y

    for forward in (selects, writes):
        (note,) = hwcost.trace(forward, torch.zeros(2, 3, 4)).notes
        assert "a boolean index selects by values" in note


def test_a_mask_with_other_values_is_not_taken_for_one_that_was_met_before() -> None:
    for rows in (1, 4, 2):
        mask = torch.arange(6) < rows
        graph = hwcost.trace(lambda x, m: x[m], (X, mask))
        assert graph.ops[-1].spec.outputs[0].shape == (rows, 8)


def test_a_view_by_the_number_of_what_a_mask_selects() -> None:
    linear = nn.Linear(8, 5, bias=False)

    def forward(x: Tensor) -> Tensor:
        mask = x[:, 0] > 0
        out: Tensor = linear(x[mask].view(int(mask.sum()), -1))
        return out

    assert hwcost.trace(forward, X).cost.macs == int((X[:, 0] > 0).sum()) * 8 * 5
    with pytest.raises(hwcost.TraceError, match=r"inputs with data .* --input 1x8=random"):
        hwcost.trace(forward, X.to("meta"))


def test_a_write_through_a_known_mask() -> None:
    def forward(x: Tensor, mask: Tensor) -> Tensor:
        y = x.clone()
        y[mask] = x[mask] * 2
        return y

    graph = hwcost.trace(forward, (X, ROWS))
    assert [op.spec.outputs[0].shape for op in graph.ops[1:3]] == [(3, 8), (3, 8)]
    assert graph.notes == ()
