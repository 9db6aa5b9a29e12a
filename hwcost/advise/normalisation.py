"""Batch normalisation that a runtime can fold into the convolution before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hwcost.advise.edits import Edit, remake, reshape, rewrite, unused_values
from hwcost.advise.patterns import ACTIVATIONS, Chain, conv_of
from hwcost.advise.registry import Context, rule
from hwcost.graph import Op


@rule
def folded(context: Context) -> Iterator[Edit]:
    """Batch norms folded into the weights and the bias of the convolution before them.

    Nothing is gained with a runtime that does so itself.
    """
    graph, chain = context.graph, Chain(context.graph)
    numbers = unused_values(graph)
    changed: dict[int, Sequence[Op]] = {}
    where = []
    for i, op in enumerate(graph.ops):
        at = chain.next(i)
        if at is None or conv_of(op) is None or graph.ops[at].spec.kind != "batch_norm":
            continue
        spec, norm = op.spec, graph.ops[at]
        inputs, reads = spec.inputs, op.reads
        if spec.input("bias") is None:
            inputs = (*inputs, replace(reshape(inputs[1], inputs[1].shape[0]), name="bias"))
            reads = (*reads, next(numbers))
        changed |= {i: [], at: [remake(op, replace(spec, inputs=inputs), reads, norm.writes)]}
        where.append(norm.module)
    if where:
        yield Edit("batch norm folded into the convolution before it", tuple(where), rewrite(graph, changed), same=True)


@rule
def reordered(context: Context) -> Iterator[Edit]:
    """Convolution, batch norm, activation in place of convolution, activation, batch norm, which cannot be folded."""
    graph, chain = context.graph, Chain(context.graph)
    changed: dict[int, Sequence[Op]] = {}
    where = []
    for i, op in enumerate(graph.ops):
        middle = chain.next(i)
        end = chain.next(middle) if middle is not None else None
        if conv_of(op) is None or middle is None or end is None:
            continue
        activation, norm = graph.ops[middle], graph.ops[end]
        if activation.spec.kind not in ACTIVATIONS or norm.spec.kind != "batch_norm":
            continue
        in_place = activation.writes == op.writes  # then the activation changes in place what the norm writes
        between = norm.writes if in_place else activation.writes
        changed[middle] = [replace(norm, reads=(*op.writes, *norm.reads[1:]), writes=between)]
        changed[end] = [replace(activation, reads=between, writes=norm.writes)]
        where.append(norm.module)
    if where:
        text = "batch norm before the activation, not after it, so that it folds"
        yield Edit(text, tuple(where), rewrite(graph, changed))
