"""Other numbers of channels: sizes that fill the vectors of the processor.

A convolution, or a linear layer on a matrix, is given another number of outputs, and the new shape is propagated
through the graph: normalisation, additions, depthwise convolutions, concatenations, pooling, flattening and the inputs
of the layers behind. Where an op does not tell how its shape follows, there is no edit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from hwcost.advise.edits import Edit
from hwcost.advise.patterns import conv_of
from hwcost.advise.registry import Context, rule
from hwcost.graph import Graph, Op, OpSpec, TensorSpec
from hwcost.rules.registry import cost_of

Shape = tuple[int, ...]
MULTIPLES = (8, 16)  # float32 numbers in a vector of 256 and of 512 bits
_VECTORS = (
    "batch_norm",
    "prelu",
    "_prelu_kernel",
    "group_norm",
    "instance_norm",
)  # have inputs of one number a channel


@rule
def multiples(context: Context) -> Iterator[Edit]:
    """Numbers of channels that are no multiple of a vector's length, brought to the multiples around them."""
    for multiple in MULTIPLES:
        yield from channel_edits(context.graph, multiple)


def channel_edits(graph: Graph, multiple: int) -> Iterator[Edit]:
    """Edits that give layers the multiple of `multiple` below and above their number of outputs, where it is none; one
    edit for each such number and multiple."""
    for count in _counts_between(graph, multiple):
        for new in {count // multiple * multiple, -(-count // multiple) * multiple} - {0}:
            edited = resized(graph, count, new)
            if edited is not None:
                where = tuple(op.module for op in graph.ops if _outputs(op) == count)
                yield Edit(f"{new} channels instead of {count}, a multiple of {multiple}", where, edited)


def _counts_between(graph: Graph, multiple: int) -> tuple[int, ...]:
    """The numbers of outputs of layers that lie between multiples of `multiple`, in the order they occur."""
    counts = Counter(_outputs(op) for op in graph.ops)
    return tuple(c for c in counts if c is not None and c % multiple)


def _outputs(op: Op) -> int | None:
    """Number of outputs of a layer whose number of outputs can be chosen freely; None for other ops."""
    conv = conv_of(op)
    if conv is not None:
        return conv.out if conv.groups == 1 else None
    if op.spec.kind == "linear" and len(op.spec.inputs[0].shape) == 2:
        return op.spec.outputs[0].shape[1]
    return None


class _Lost(Exception):
    """The shape of an op's result does not follow from the new shapes of its inputs."""


def resized(graph: Graph, old: int, new: int) -> Graph | None:
    """The graph in which every layer with `old` outputs has `new` ones.

    None where an op's new shape cannot be told, or where the network's own output would have another shape.
    """
    shapes: dict[int, Shape] = {}
    ops = []
    final = set(graph.output_values)
    try:
        for op in graph.ops:
            given = tuple(shapes.get(v, t.shape) for v, t in zip(op.reads, op.spec.inputs, strict=True))
            spec = _follow(op, given, old, new)
            shapes |= {v: t.shape for v, t in zip(op.writes, spec.outputs, strict=False)}
            if spec is op.spec:
                ops.append(op)
                continue
            cost, state, reason = cost_of(spec) if op.state != "free" else (op.cost, op.state, op.reason)
            ops.append(replace(op, spec=spec, cost=cost, state=state, reason=reason))
    except _Lost:
        return None
    before = {v: t.shape for op in graph.ops for v, t in zip(op.writes, op.spec.outputs, strict=False)}
    if any(shapes.get(v) != before.get(v) for v in final):
        return None
    return replace(graph, ops=tuple(ops))


def _follow(op: Op, given: tuple[Shape, ...], old: int, new: int) -> OpSpec:
    """The description of an op on inputs of the shapes `given`, with `new` outputs where it had `old`."""
    spec = op.spec
    if _outputs(op) is not None or conv_of(op) is not None:
        return _layer(op, given, old, new)
    was = tuple(t.shape for t in spec.inputs)
    if given == was or not spec.inputs:
        return spec
    if spec.kind in _VECTORS:
        given = tuple(given[0][1:2] if len(s) == 1 else s for s in given)
    result = given[0] if spec.kind in _VECTORS else _result(spec, given)
    inputs = tuple(_sized(t, s) for t, s in zip(spec.inputs, given, strict=True))
    return replace(spec, inputs=inputs, outputs=tuple(_sized(t, result) for t in spec.outputs))


def _layer(op: Op, given: tuple[Shape, ...], old: int, new: int) -> OpSpec:
    """The description of a convolution or linear layer on inputs of the shapes `given`."""
    spec, conv = op.spec, conv_of(op)
    x, weight, out = given[0], spec.inputs[1].shape, spec.outputs[0].shape
    params = spec.params
    if conv is None or conv.groups == 1:
        chosen = new if out[1] == old else out[1]
        weight = (chosen, x[1], *weight[2:])
    elif conv.depthwise and conv.out % conv.channels == 0:
        chosen = conv.out // conv.channels * x[1]
        weight = (chosen, *weight[1:])
        params = tuple((name, x[1] if name == "groups" else value) for name, value in params)
    elif x[1] == conv.channels:
        chosen = out[1]
    else:
        raise _Lost
    shapes = (x, weight, *((chosen,) for _ in given[2:]))
    inputs = tuple(_sized(t, s) for t, s in zip(spec.inputs, shapes, strict=True))
    if inputs == spec.inputs and chosen == out[1]:
        return spec
    return replace(spec, inputs=inputs, outputs=(_sized(spec.outputs[0], (out[0], chosen, *out[2:])),), params=params)


def _result(spec: OpSpec, given: tuple[Shape, ...]) -> Shape:
    """Shape of the result of an op that is no layer, on inputs of the shapes `given`."""
    if len({t.shape for t in spec.outputs}) != 1:
        raise _Lost
    was, out, x = spec.inputs[0].shape, spec.outputs[0].shape, given[0]
    if spec.kind == "cat" and spec.param("dim", 0) == 1:
        return (*out[:1], sum(s[1] for s in given), *out[2:])
    if all(len(s) <= len(out) for s in given) and out == _broadcast([t.shape for t in spec.inputs]):
        return _broadcast(list(given))
    if len(was) < 2 or len(out) < 2 or was[0] != out[0]:
        raise _Lost
    if out[1] == was[1] and len(out) in (2, len(was)):
        return (*out[:1], x[1], *out[2:])  # pooling, means over space, flattening of 1 x 1 maps
    if len(out) == 2 and out[1] == math.prod(was[1:]):
        return out[0], math.prod(x[1:])
    raise _Lost


def _broadcast(shapes: list[Shape]) -> Shape:
    """The shape to which all are broadcast."""
    length = max(map(len, shapes))
    columns = zip(*((1,) * (length - len(s)) + s for s in shapes), strict=True)
    sizes = [set(column) - {1} for column in columns]
    if any(len(size) > 1 for size in sizes):
        raise _Lost
    return tuple(size.pop() if size else 1 for size in sizes)


def _sized(tensor: TensorSpec, shape: Shape) -> TensorSpec:
    return tensor if tensor.shape == shape else replace(tensor, shape=shape, overlapping=0)
