"""Edits of a traced graph that keep the shapes around them: what the network would be with one thing changed.

Each function yields edits of one kind. An edit is the graph as it would have been traced; nothing here knows
a time. Ops that an edit puts in get their cost by the same rules as any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from hwcost.graph import Graph, Op, OpSpec, Param, TensorSpec
from hwcost.rules.registry import cost_of

CONVOLUTIONS = ("conv2d", "convolution")
COSTLY = (
    "gelu",
    "silu",
    "mish",
    "elu",
    "celu",
    "selu",
    "softplus",
    "hardswish",
)  # activations dearer than a comparison
ACTIVATIONS = (*COSTLY, "relu", "relu6", "hardtanh", "leaky_relu")
Pair = tuple[int, int]


@dataclass(frozen=True)
class Edit:
    """A changed graph. `same`: the edited network computes what the network did, so nothing is trained again."""

    change: str
    where: tuple[str, ...]  # module paths
    graph: Graph
    same: bool = False
    times: int = 1  # how many such networks do the work of one: the batch over that of the original


def remake(op: Op, spec: OpSpec, reads: tuple[int, ...] | None = None, writes: tuple[int, ...] | None = None) -> Op:
    """An op at the place of another."""
    cost, state, reason = cost_of(spec)
    reads, writes = op.reads if reads is None else reads, op.writes if writes is None else writes
    return Op(f"aten.{spec.kind}.default", spec, op.module, reads, writes, cost, state, reason)


def reshape(tensor: TensorSpec, *shape: int) -> TensorSpec:
    """The same tensor in another shape, dense."""
    return replace(tensor, shape=shape, elements=-1)


def rewrite(graph: Graph, changed: Mapping[int, Sequence[Op]]) -> Graph:
    """The graph with ops, by their number, replaced by none, one or several."""
    ops = tuple(new for i, op in enumerate(graph.ops) for new in changed.get(i, (op,)))
    return replace(graph, ops=ops)


def local_edits(graph: Graph) -> Iterator[Edit]:
    """Every edit of this file."""
    chain = Chain(graph)
    for find in (_activations, _undilated, _smaller, _stacked, _separable, _ordinary, _folded, _reordered):
        yield from find(graph, chain)


class Chain:
    """Who reads what: an op's only successor, where it has one."""

    def __init__(self, graph: Graph) -> None:
        self._ops = graph.ops
        self._readers: dict[int, list[int]] = {}
        for i, op in enumerate(graph.ops):
            for value in set(op.reads):
                self._readers.setdefault(value, []).append(i)
        self._outputs = set(graph.output_values)

    def next(self, i: int) -> int | None:
        """Number of the one op that reads what op `i` wrote, or that goes on with it in place."""
        op = self._ops[i]
        if len(op.writes) != 1:
            return None
        value = op.writes[0]
        readers = [r for r in self._readers.get(value, ()) if r > i]
        if readers and value in self._ops[readers[0]].writes:
            return readers[0]
        return readers[0] if len(readers) == 1 and value not in self._outputs else None


# -- convolutions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """A two-dimensional convolution with a square window, read from its op."""

    op: Op
    channels: int
    out: int
    window: int
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        return self.groups == self.channels > 1

    def make(self, x: TensorSpec, result: TensorSpec, **other: int | Pair) -> OpSpec:
        """A convolution like this one, with other settings."""
        now = {name: getattr(self, name) for name in ("window", "stride", "padding", "dilation", "groups")} | other
        old = self.op.spec
        weight = reshape(old.inputs[1], result.shape[1], x.shape[1] // now["groups"], now["window"], now["window"])
        biases = [reshape(t, result.shape[1]) for t in old.inputs[2:] if t.name == "bias"]
        plain: dict[str, Param] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        params = tuple(sorted((name, now[name]) for name in plain if now[name] != plain[name]))
        return OpSpec("conv2d", (x, weight, *biases), (result,), params)


def conv_of(op: Op) -> Conv | None:
    """The convolution that an op is, if it is one that these edits understand."""
    spec = op.spec
    if spec.kind not in CONVOLUTIONS or spec.param("transposed") or len(spec.inputs) < 2:
        return None
    x, weight = spec.inputs[0].shape, spec.inputs[1].shape
    settings = [_pair(spec.param(name, default)) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
    groups = spec.param("groups", 1)
    if len(x) != 4 or len(weight) != 4 or weight[2] != weight[3] or None in settings or not isinstance(groups, int):
        return None
    stride, padding, dilation = (s for s in settings if s is not None)
    return Conv(op, x[1], weight[0], weight[2], stride, padding, dilation, groups)


def _pair(value: Param) -> Pair | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
        return (value * 2)[0], (value * 2)[1]  # type: ignore[return-value]
    return None


def _each(
    graph: Graph, name: str, change: Callable[[int, Op], tuple[str, Mapping[int, Sequence[Op]]] | None]
) -> Iterator[Edit]:
    """One edit for all ops whose descriptions are equal: they would be changed together."""
    groups: dict[tuple[str, OpSpec], list[tuple[str, Mapping[int, Sequence[Op]]]]] = {}
    for i, op in enumerate(graph.ops):
        found = change(i, op)
        if found:
            groups.setdefault((found[0], op.spec), []).append((op.module, found[1]))
    for (text, _), members in groups.items():
        merged: dict[int, Sequence[Op]] = {}
        for _, changed in members:
            merged.update(changed)
        yield Edit(f"{name}{text}", tuple(module for module, _ in members), rewrite(graph, merged))


def _undilated(graph: Graph, _: Chain) -> Iterator[Edit]:
    def change(i: int, op: Op) -> tuple[str, Mapping[int, Sequence[Op]]] | None:
        conv = conv_of(op)
        if conv is None or max(conv.dilation) < 2:
            return None
        padding = tuple(p - (d - 1) * (conv.window - 1) // 2 for p, d in zip(conv.padding, conv.dilation, strict=True))
        if min(padding) < 0 or conv.window % 2 == 0:
            return None
        spec = conv.make(op.spec.inputs[0], op.spec.outputs[0], dilation=(1, 1), padding=(padding[0], padding[1]))
        return f"convolution {conv.window}x{conv.window} without its dilation of {conv.dilation[0]}", {
            i: [remake(op, spec)]
        }

    yield from _each(graph, "", change)


def _smaller(graph: Graph, _: Chain) -> Iterator[Edit]:
    def change(i: int, op: Op) -> tuple[str, Mapping[int, Sequence[Op]]] | None:
        conv = conv_of(op)
        if not _large(conv):
            return None
        padding = tuple(p - (conv.window - 3) // 2 for p in conv.padding)
        spec = conv.make(op.spec.inputs[0], op.spec.outputs[0], window=3, padding=(padding[0], padding[1]))
        return f"convolution 3x3 instead of {conv.window}x{conv.window}", {i: [remake(op, spec)]}

    yield from _each(graph, "", change)


def _large(conv: Conv | None) -> TypeGuard[Conv]:
    """Whether its window is odd, above 3, and padded so that smaller windows give the same shape."""
    return (
        conv is not None
        and conv.window >= 5
        and conv.window % 2 == 1
        and conv.dilation == (1, 1)
        and min(conv.padding) >= (conv.window - 3) // 2
    )


def _stacked(graph: Graph, _: Chain) -> Iterator[Edit]:
    fresh = _fresh(graph)

    def change(i: int, op: Op) -> tuple[str, Mapping[int, Sequence[Op]]] | None:
        conv = conv_of(op)
        if not _large(conv) or conv.window > 7 or (conv.groups > 1 and not conv.depthwise):
            return None
        if conv.padding != ((conv.window - 1) // 2,) * 2:
            return None
        layers, result = (conv.window - 1) // 2, op.spec.outputs[0]
        first = conv.make(op.spec.inputs[0], result, window=3, padding=(1, 1))
        ops, value = [remake(op, first, op.reads, (fresh(),))], 0
        x = replace(result, name=op.spec.inputs[0].name)
        groups = result.shape[1] if conv.depthwise else 1
        later = conv.make(x, result, window=3, padding=(1, 1), stride=(1, 1), groups=groups)
        for layer in range(1, layers):
            value = ops[-1].writes[0]
            writes = op.writes if layer == layers - 1 else (fresh(),)
            weights = tuple(fresh() for _ in later.inputs[1:])
            ops.append(remake(op, later, (value, *weights), writes))
        return f"{layers} convolutions 3x3 instead of one {conv.window}x{conv.window}", {i: ops}

    yield from _each(graph, "", change)


def _fresh(graph: Graph) -> Callable[[], int]:
    """Numbers of values that the graph does not have yet."""
    known = [v for op in graph.ops for v in (*op.reads, *op.writes)]
    last = max(known, default=0)

    def fresh() -> int:
        nonlocal last
        last += 1
        return last

    return fresh


def _separable(graph: Graph, _: Chain) -> Iterator[Edit]:
    """An ordinary convolution taken apart: a depthwise one, then a pointwise one."""
    fresh = _fresh(graph)

    def change(i: int, op: Op) -> tuple[str, Mapping[int, Sequence[Op]]] | None:
        conv = conv_of(op)
        if conv is None or conv.groups > 1 or conv.window < 3 or conv.channels < 8:
            return None
        x, result = op.spec.inputs[0], op.spec.outputs[0]
        between = reshape(result, result.shape[0], conv.channels, *result.shape[2:])
        depthwise, middle = conv.make(x, between, groups=conv.channels), fresh()
        pointwise = conv.make(
            replace(between, name=x.name), result, window=1, stride=(1, 1), padding=(0, 0), dilation=(1, 1)
        )
        weights = tuple(fresh() for _ in pointwise.inputs[1:])
        ops = [remake(op, depthwise, op.reads, (middle,)), remake(op, pointwise, (middle, *weights))]
        return f"depthwise and pointwise instead of convolution {conv.window}x{conv.window}", {i: ops}

    yield from _each(graph, "", change)


def _ordinary(graph: Graph, chain: Chain) -> Iterator[Edit]:
    """A depthwise convolution and the pointwise one after it, as one ordinary convolution."""

    def change(i: int, op: Op) -> tuple[str, Mapping[int, Sequence[Op]]] | None:
        conv = conv_of(op)
        if conv is None or not conv.depthwise or conv.out != conv.channels:
            return None
        dropped: list[int] = []
        at = chain.next(i)
        while at is not None and graph.ops[at].spec.kind in ("batch_norm", *ACTIVATIONS):
            dropped, at = [*dropped, at], chain.next(at)
        last = conv_of(graph.ops[at]) if at is not None else None
        if at is None or last is None or last.window > 1 or last.groups > 1 or last.stride != (1, 1):
            return None
        end = graph.ops[at]
        spec = conv.make(op.spec.inputs[0], end.spec.outputs[0], groups=1)
        joined = remake(op, spec, (*op.reads[:1], *end.reads[1 : len(spec.inputs)]), end.writes)
        text = f"one convolution {conv.window}x{conv.window} instead of depthwise and pointwise"
        return text, {i: [], **dict.fromkeys(dropped, ()), at: [joined]}

    yield from _each(graph, "", change)


# -- order and activations --------------------------------------------------------------------------


def _activations(graph: Graph, _: Chain) -> Iterator[Edit]:
    """Each costly activation as ReLU, everywhere at once: a network has one activation for a reason."""
    for kind in Counter(op.spec.kind for op in graph.ops if op.spec.kind in COSTLY):
        changed, where = {}, []
        for i, op in enumerate(graph.ops):
            if op.spec.kind == kind:
                changed[i] = [remake(op, OpSpec("relu", op.spec.inputs[:1], op.spec.outputs), op.reads[:1])]
                where.append(op.module)
        yield Edit(f"ReLU instead of {kind}", tuple(where), rewrite(graph, changed))


def _folded(graph: Graph, chain: Chain) -> Iterator[Edit]:
    """Batch norms that follow a convolution, folded into its weights; a runtime that folds gains nothing."""
    changed: dict[int, Sequence[Op]] = {}
    where = []
    fresh = _fresh(graph)
    for i, op in enumerate(graph.ops):
        at = chain.next(i)
        if at is None or conv_of(op) is None or graph.ops[at].spec.kind != "batch_norm":
            continue
        spec, norm = op.spec, graph.ops[at]
        inputs, reads = spec.inputs, op.reads
        if spec.input("bias") is None:
            inputs = (*inputs, replace(reshape(inputs[1], inputs[1].shape[0]), name="bias"))
            reads = (*reads, fresh())
        changed |= {i: [], at: [remake(op, replace(spec, inputs=inputs), reads, norm.writes)]}
        where.append(norm.module)
    if where:
        yield Edit("batch norm folded into the convolution before it", tuple(where), rewrite(graph, changed), same=True)


def _reordered(graph: Graph, chain: Chain) -> Iterator[Edit]:
    """Conv, activation, batch norm: in this order nothing folds; the norm goes before the activation."""
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
        in_place = activation.writes == op.writes  # then it works on what the norm wrote
        between = norm.writes if in_place else activation.writes
        changed[middle] = [replace(norm, reads=(*op.writes, *norm.reads[1:]), writes=between)]
        changed[end] = [replace(activation, reads=between, writes=norm.writes)]
        where.append(norm.module)
    if where:
        text = "batch norm before the activation, not after it, so that it folds"
        yield Edit(text, tuple(where), rewrite(graph, changed))
