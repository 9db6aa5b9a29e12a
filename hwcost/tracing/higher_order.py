"""Operators that take functions: `torch.cond`, `while_loop`, `scan`, `map`, `flex_attention`.

They are followed as they run in eager mode, from torch's own definitions, with two exceptions. Of a `cond` whose
predicate is not known, both branches are followed, and the dearer one counts; a note says so. `flex_attention` is one
op: the fused kernel that it is made for, with the scores of the blocks that its mask keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from hwcost.cost import total
from hwcost.graph import Op, Param
from hwcost.tracing.form import Form, NotFollowed, contiguous

_EAGER = torch._C.DispatchKey.CompositeExplicitAutograd
_FULLY_FOLLOWED = ("while_loop", "map_impl", "associative_scan", "invoke_subgraph", "hints_wrapper",
                   "strict_mode", "out_dtype", "local_map_hop")  # fmt: skip


Taken = tuple[list[Op], list[list[int]]]  # ops, and [bytes, born, dies] of what they made


class Tape(Protocol):
    """What the recorder lets these operators do."""

    def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `call` returns; the ops that it makes are recorded."""

    def take(self, start: int) -> Taken:
        """Take the ops from number `start` on off the graph, with the lives of what they made."""

    def put(self, taken: Taken) -> None:
        """Append ops that were taken off."""

    def position(self) -> int:
        """Number of ops so far."""

    def value(self, tensor: Any) -> torch.Tensor | None:
        """The values of a tensor, where they are known."""

    def note(self, text: str) -> None:
        """Add a note on the running module to the graph."""

    def own(self, kind: str, tensors: Sequence[tuple[str, Any]], made: Sequence[Form], params: dict[str, Param]) -> Any:
        """Record an op that torch has no operator for, and return the tensors that it makes."""


def follow(tape: Tape, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Record a call of a higher-order operator and return its result.

    Raises:
        NotFollowed: it is none of those that are followed.
    """
    name = func._name
    if name == "cond":
        return _cond(tape, *args, **kwargs)
    if name == "flex_attention":
        return _flex_attention(tape, *args, **kwargs)
    if name == "scan":
        return _scan(tape, *args, **kwargs)
    eager = func.py_kernels.get(_EAGER) if name in _FULLY_FOLLOWED else None
    if eager is None:
        raise NotFollowed(f"hwcost does not follow torch's higher-order operator {name}; call what it wraps directly")
    return tape.run(eager, *args, **kwargs)


def _cond(tape: Tape, predicate: Any, if_true: Callable[..., Any], if_false: Callable[..., Any], operands: Any) -> Any:
    """Follow the branch that the predicate chooses, or the dearer one where its value is not known."""
    known = tape.value(predicate) if isinstance(predicate, torch.Tensor) else predicate
    if known is not None:
        return tape.run(if_true if bool(known) else if_false, *operands)
    start = tape.position()
    results, taken = [], []
    for branch in (if_true, if_false):
        results.append(tape.run(branch, *operands))
        taken.append(tape.take(start))
    costs = [total(op.cost for op in ops) for ops, _ in taken]
    dearer = max((0, 1), key=lambda i: (costs[i].flops, costs[i].bytes))
    tape.put(taken[dearer])
    tape.note("torch.cond chooses by values; counted as its dearer branch")
    return results[dearer]


def _scan(tape: Tape, combine: Callable[..., Any], init: Any, xs: Any, additional_inputs: Any = ()) -> Any:
    """Follow every step, and stack what the steps give; torch's own kernel takes one step more, to learn shapes."""

    def steps() -> list[torch.Tensor]:
        carry, given = list(init), []
        for x in zip(*(x.unbind() for x in xs), strict=True):
            carry_and_given = list(combine(*carry, *x, *additional_inputs))
            carry = carry_and_given[: len(init)]
            given.append(carry_and_given[len(init) :])
        return [*carry, *(torch.stack(each) for each in zip(*given, strict=True))]

    return tape.run(steps)


def _flex_attention(
    tape: Tape,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Callable[..., Any],
    block_mask: Sequence[Any],
    *_rest: Any,
    **_more: Any,
) -> Any:
    """Record attention over the blocks that the mask keeps.

    `block_mask` is `BlockMask.as_tuple()`: for each block of queries the number of key blocks that the mask cuts
    (number 2 of it) and that it keeps whole (number 4), the sizes of a block of queries and of keys, and the mask.
    """
    batch, heads, length = query.shape[:3]
    some, whole, rows, columns, mask_mod = block_mask[2], block_mask[4], *block_mask[-3:]
    masked = _scores(tape, some, query, key, rows, columns)
    plain = 0 if whole is None else _scores(tape, whole, query, key, rows, columns)
    if masked is None or plain is None:
        masked, plain = batch * heads * length * key.shape[-2], 0
        tape.note("the blocks of a flex_attention mask are not known; counted as if all were kept")
    params: dict[str, Param] = {
        "scores": masked + plain,
        "mod_flops": _flops(tape, score_mod, torch.float32, *[torch.int32] * 4),
        "masked": masked if rows < length or whole is not None else 0,
        "mask_flops": _flops(tape, mask_mod, *[torch.int32] * 4),
    }
    out = (batch, heads, length, value.shape[-1])
    made = [Form(out, contiguous(out), query.dtype), *[Form(out[:3], contiguous(out[:3]), torch.float32)] * 2]
    inputs = [("query", query), ("key", key), ("value", value)]
    inputs += [("block_mask", t) for t in block_mask[2:6] if isinstance(t, torch.Tensor)]
    return tuple(tape.own("flex_attention", inputs, made, params))


def _scores(
    tape: Tape, blocks: torch.Tensor, query: torch.Tensor, key: torch.Tensor, rows: int, columns: int
) -> int | None:
    """Scores in the given numbers of key blocks [b, h, blocks of queries]; None where these are not known."""
    counts = tape.value(blocks)
    if counts is None:
        return None
    length, keys = query.shape[-2], key.shape[-2]
    per_block = counts.double().clamp(max=math.ceil(keys / columns)).mean(dim=(0, 1)).tolist()  # broadcast over b and h
    inside = [max(0, min(rows, length - i * rows)) for i in range(len(per_block))]
    one = sum(n * min(columns, keys) * row for n, row in zip(per_block, inside, strict=True))
    sequences = query.shape[0] * query.shape[1]
    return int(min(round(one * sequences), sequences * length * keys))


def _flops(tape: Tape, function: Callable[..., Any], *dtypes: torch.dtype) -> int:
    """Flop of a function for one score; `dtypes` are those of its arguments."""
    start = tape.position()
    scalars = [tape.run(torch.zeros, (), dtype=dtype) for dtype in dtypes]
    tape.run(function, *scalars)
    return sum(op.cost.flops for op in tape.take(start)[0])
