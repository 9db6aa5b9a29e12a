"""Results whose forms a trial run of torch tells: each is compared with what the call really returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from hwcost import trace
from hwcost.tracing.trace import TraceError

aten = torch.ops.aten
SEEN: list[Any] = []


def described(result: Any) -> list[Any]:
    leaves = pytree.tree_leaves(result)
    return [(tuple(t.shape), t.dtype) if isinstance(t, Tensor) else t for t in leaves]


def traced(function: Callable[..., Any], *inputs: Tensor) -> tuple[list[Any], tuple[str, ...]]:
    """What the function returned in a trace, and the notes of the graph."""

    def forward(*tensors: Tensor) -> Any:
        result = function(*tensors)
        SEEN[:] = described(result)
        return result

    return SEEN, trace(forward, inputs).notes


def into(op: Callable[..., Any], *dtypes: torch.dtype) -> Callable[..., Any]:
    """The op, with its results written into tensors that are empty before."""

    def call(*inputs: Tensor) -> Any:
        places = tuple(torch.empty(0, dtype=dtype) for dtype in dtypes)
        op(*inputs, out=places if len(places) > 1 else places[0])
        return [place + 1 for place in places]

    return call


@torch.library.custom_op("hwcost_test::split_and_add", mutates_args=("total",))
def split_and_add(x: Tensor, total: Tensor, n: int) -> tuple[Tensor, list[Tensor], int]:
    total.add_(x)
    return x.clone(), [part.clone() for part in x.chunk(n)], n + 1


@split_and_add.register_fake
def _(x: Tensor, total: Tensor, n: int) -> tuple[Tensor, list[Tensor], int]:
    return torch.empty_like(x), [torch.empty_like(part) for part in x.chunk(n)], n + 1


X = torch.rand(6, 5, 4)
CASES: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "out= that is empty": (into(torch.add, torch.float32), (X, X)),
    "two out= that are empty": (into(torch.sort, torch.float32, torch.int64), (X,)),
    "out= of a factory": (lambda _: torch.arange(7, out=torch.empty(0)), (X,)),
    "out= of a size in values": (into(torch.masked_select, torch.int64), (torch.arange(9), torch.arange(9) > 3)),
    "a list inside a tuple": (lambda x: torch.histogramdd(x, [3, 4]), (X[:, :2, 0],)),
    "writes and makes": (lambda x: aten.rrelu_with_noise.default(x, x[..., :1].clone().expand_as(x).clone()), (X,)),
    "writes, makes a list, returns a number": (lambda x: split_and_add(x, x.clone(), 3), (X,)),
    "weights that must not sum to zero": (lambda x, w: torch.cov(x, aweights=w), (X[0], torch.rand(4))),
    "one number": (lambda x: torch.nn.functional.normalize(x, dim=0), (torch.tensor(3.0),)),
    "split at known places": (lambda x, at: torch.tensor_split(x, at), (X, torch.tensor([1, 4]))),
    "counts of known numbers": (torch.bincount, (torch.tensor([1, 5, 2]),)),
    "a row of its own": (lambda x, y: aten.multilabel_margin_loss(x, y, 0), (torch.rand(5), torch.zeros(5).long())),
}


@pytest.mark.parametrize("name", CASES)
def test_as_in_a_run(name: str) -> None:
    function, inputs = CASES[name]
    assert traced(function, *inputs)[0] == described(function(*(x.clone() for x in inputs)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtypes", [(torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.bfloat16, torch.float32)])
def test_saved_statistics(dtypes: tuple[torch.dtype, torch.dtype], *, training: bool) -> None:
    x, w = torch.rand(2, 4, 3, 3, dtype=dtypes[0]), torch.rand(4, dtype=dtypes[1])
    calls: list[Callable[..., Any]] = [
        lambda x, w: aten.native_batch_norm(x, w, w, w.clone(), w.clone(), training, 0.1, 1e-5),
        lambda x, w: aten._native_batch_norm_legit(x, w, w, w.clone(), w.clone(), training, 0.1, 1e-5),
        lambda x, w: aten.native_layer_norm(x, [3], w[:3], w[:3], 1e-5),
        lambda x, w: aten.native_layer_norm(x, [3], None, None, 1e-5),
        lambda x, w: aten.native_group_norm(x, w, w, 2, 4, 9, 2, 1e-5),
    ]
    for call in calls:
        assert traced(call, x, w)[0] == described(call(x, w))


def test_sizes_that_values_give_are_refused_without_them() -> None:
    ids = torch.zeros(3, dtype=torch.int64, device="meta")
    for call in (
        torch.bincount,
        torch.nn.functional.one_hot,
        torch.repeat_interleave,
        lambda at: torch.tensor_split(torch.empty(8, device="meta"), at),
    ):
        with pytest.raises(TraceError, match="follows from values of") as refusal:
            trace(call, (ids,))
        assert "\n" not in str(refusal.value)
    seen, notes = traced(lambda ids: torch.bincount(ids, minlength=7), ids)
    assert seen == [((7,), torch.int64)]
    assert any("minlength" in note for note in notes)


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_unique_is_stated_for_equal_values(dim: int | None) -> None:
    for op in (torch.unique, torch.unique_consecutive):
        real = op(torch.ones(6, 5, 4), return_inverse=True, return_counts=True, dim=dim)
        seen, notes = traced(lambda x, op=op: op(x, return_inverse=True, return_counts=True, dim=dim), X)
        assert seen == described(real)
        assert any("taken as if all were" in note for note in notes)


def test_a_place_is_not_read() -> None:
    """The op reads two matrices and writes one, wherever that lies."""
    a, b = torch.rand(6, 5), torch.rand(5, 3)
    graph = trace(lambda a, b: torch.mm(a, b, out=torch.empty(6, 3)), (a, b))
    op = graph.ops[-1]
    assert [t.name for t in op.spec.inputs] == ["self", "mat2"]
    assert op.reads == graph.input_values
    assert (op.cost.bytes_read, op.cost.bytes_written) == (4 * (6 * 5 + 5 * 3), 4 * 6 * 3)
