"""Cheaper activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hwcost.advise.edits import Edit, remake, rewrite
from hwcost.advise.patterns import COSTLY
from hwcost.advise.registry import Context, rule
from hwcost.graph import OpSpec


@rule
def relu_instead(context: Context) -> Iterator[Edit]:
    """ReLU in place of a costlier activation, in all layers that have it: networks seldom mix activations."""
    graph = context.graph
    for kind in Counter(op.spec.kind for op in graph.ops if op.spec.kind in COSTLY):
        changed, where = {}, []
        for i, op in enumerate(graph.ops):
            if op.spec.kind == kind:
                relu = OpSpec("relu", op.spec.inputs[:1], op.spec.outputs)
                changed[i] = [remake(op, relu, op.reads[:1])]
                where.append(op.module)
        yield Edit(f"ReLU instead of {kind}", tuple(where), rewrite(graph, changed))
