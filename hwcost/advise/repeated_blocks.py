"""Fewer of several equal blocks, for networks whose time is mostly the runtime's overhead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hwcost.advise.edits import Edit
from hwcost.advise.registry import Context, rule
from hwcost.graph import Graph, block_name

SHARE = 0.2  # least share of the latency that no kernel accounts for; below it, fewer layers are not the remedy
DEPTH = 2  # parts of the module path that name a block, at most


@rule
def fewer_blocks(context: Context) -> Iterator[Edit]:
    """The network without the last of several equal blocks whose output has the shape of their input."""
    graph, estimate = context.graph, context.estimate
    if estimate.overhead <= 0 or estimate.overhead < SHARE * estimate.latency:
        return
    for depth in range(1, DEPTH + 1):
        for repeat in graph.repeated(depth):
            edited = _without(graph, repeat.blocks[-1], depth) if len(repeat.blocks) > 1 else None
            if edited is not None:
                text = f"{len(repeat.blocks) - 1} blocks instead of {len(repeat.blocks)} equal ones"
                yield Edit(text, repeat.blocks, edited)


def _without(graph: Graph, block: str, depth: int) -> Graph | None:
    """The graph without a block; None unless the block maps one value to one of the same shape."""
    inside = [op for op in graph.ops if block_name(op.module, depth) == block]
    outside = [op for op in graph.ops if block_name(op.module, depth) != block]
    made = {v for op in inside for v in op.writes}
    given = {
        (v, t.shape)
        for op in inside
        for v, t in zip(op.reads, op.spec.inputs, strict=True)
        if v not in made and not t.weight
    }
    used = {v for op in outside for v in op.reads} | set(graph.output_values)
    kept = {(v, t.shape) for op in inside for v, t in zip(op.writes, op.spec.outputs, strict=False) if v in used}
    costed = sum(op.state != "free" for op in inside)
    if not block or costed < 2 or len(given) != 1 or len(kept) != 1:  # a block of one op is a layer, not a block
        return None
    (source, before), (result, after) = *given, *kept
    if before != after or result in graph.output_values:
        return None
    ops = tuple(replace(op, reads=tuple(source if v == result else v for v in op.reads)) for op in outside)
    return replace(graph, ops=ops)
