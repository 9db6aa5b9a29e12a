"""Other convolutions that map the same input shape to the same output shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeGuard

from hwcost.advise.edits import Edit, Replacements, remake, reshape, together, unused_values
from hwcost.advise.patterns import ACTIVATIONS, Chain, Conv, conv_of
from hwcost.advise.registry import Context, rule
from hwcost.graph import Op

Change = tuple[str, Replacements]


@rule
def undilated(context: Context) -> Iterator[Edit]:
    """The same convolution without dilation, padded less."""

    def change(i: int, op: Op) -> Change | None:
        conv = conv_of(op)
        if conv is None or max(conv.dilation) < 2 or conv.window % 2 == 0:
            return None
        vertical, horizontal = (
            padding - (dilation - 1) * (conv.window - 1) // 2
            for padding, dilation in zip(conv.padding, conv.dilation, strict=True)
        )
        if min(vertical, horizontal) < 0:
            return None
        x, result = op.spec.inputs[0], op.spec.outputs[0]
        spec = conv.make(x, result, dilation=(1, 1), padding=(vertical, horizontal))
        text = f"convolution {conv.window}x{conv.window} without its dilation of {conv.dilation[0]}"
        return text, {i: [remake(op, spec)]}

    yield from together(context.graph, change)


@rule
def smaller_window(context: Context) -> Iterator[Edit]:
    """A 3x3 convolution in place of one with a larger window."""

    def change(i: int, op: Op) -> Change | None:
        conv = conv_of(op)
        if not _can_shrink(conv):
            return None
        vertical, horizontal = (padding - (conv.window - 3) // 2 for padding in conv.padding)
        spec = conv.make(op.spec.inputs[0], op.spec.outputs[0], window=3, padding=(vertical, horizontal))
        return f"convolution 3x3 instead of {conv.window}x{conv.window}", {i: [remake(op, spec)]}

    yield from together(context.graph, change)


def _can_shrink(conv: Conv | None) -> TypeGuard[Conv]:
    """Whether the window is odd and above 3, and padded so much that a 3x3 window can give the same output shape."""
    return (
        conv is not None
        and conv.window >= 5
        and conv.window % 2 == 1
        and conv.dilation == (1, 1)
        and min(conv.padding) >= (conv.window - 3) // 2
    )


@rule
def stacked(context: Context) -> Iterator[Edit]:
    """Several 3x3 convolutions in place of one with a 5x5 or 7x7 window; they reach as far."""
    numbers = unused_values(context.graph)

    def change(i: int, op: Op) -> Change | None:
        conv = conv_of(op)
        if not _can_shrink(conv) or conv.window > 7 or (conv.groups > 1 and not conv.depthwise):
            return None
        if conv.padding != ((conv.window - 1) // 2,) * 2:
            return None
        layers, result = (conv.window - 1) // 2, op.spec.outputs[0]
        first = conv.make(op.spec.inputs[0], result, window=3, padding=(1, 1))
        ops = [remake(op, first, op.reads, (next(numbers),))]
        x = replace(result, name=op.spec.inputs[0].name)
        groups = result.shape[1] if conv.depthwise else 1
        later = conv.make(x, result, window=3, padding=(1, 1), stride=(1, 1), groups=groups)
        for layer in range(1, layers):
            value = ops[-1].writes[0]
            writes = op.writes if layer == layers - 1 else (next(numbers),)
            weights = tuple(next(numbers) for _ in later.inputs[1:])
            ops.append(remake(op, later, (value, *weights), writes))
        return f"{layers} convolutions 3x3 instead of one {conv.window}x{conv.window}", {i: ops}

    yield from together(context.graph, change)


@rule
def separable(context: Context) -> Iterator[Edit]:
    """A depthwise and a pointwise convolution in place of an ordinary one."""
    numbers = unused_values(context.graph)

    def change(i: int, op: Op) -> Change | None:
        conv = conv_of(op)
        if conv is None or conv.groups > 1 or conv.window < 3 or conv.channels < 8:
            return None
        x, result = op.spec.inputs[0], op.spec.outputs[0]
        between = reshape(result, result.shape[0], conv.channels, *result.shape[2:])
        depthwise = conv.make(x, between, groups=conv.channels)
        middle = next(numbers)
        pointwise = conv.make(
            replace(between, name=x.name), result, window=1, stride=(1, 1), padding=(0, 0), dilation=(1, 1)
        )
        weights = tuple(next(numbers) for _ in pointwise.inputs[1:])
        ops = [remake(op, depthwise, op.reads, (middle,)), remake(op, pointwise, (middle, *weights))]
        return f"depthwise and pointwise instead of convolution {conv.window}x{conv.window}", {i: ops}

    yield from together(context.graph, change)


@rule
def ordinary(context: Context) -> Iterator[Edit]:
    """One ordinary convolution in place of a depthwise one and the pointwise one after it.

    A normalisation or an activation between the two is left out.
    """
    graph, chain = context.graph, Chain(context.graph)

    def change(i: int, op: Op) -> Change | None:
        conv = conv_of(op)
        if conv is None or not conv.depthwise or conv.out != conv.channels:
            return None
        between: list[int] = []
        last = chain.next(i)
        while last is not None and graph.ops[last].spec.kind in ("batch_norm", *ACTIVATIONS):
            between.append(last)
            last = chain.next(last)
        if last is None:
            return None
        end = graph.ops[last]
        pointwise = conv_of(end)
        if pointwise is None or pointwise.window > 1 or pointwise.groups > 1 or pointwise.stride != (1, 1):
            return None
        spec = conv.make(op.spec.inputs[0], end.spec.outputs[0], groups=1)
        joined = remake(op, spec, (*op.reads[:1], *end.reads[1 : len(spec.inputs)]), end.writes)
        text = f"one convolution {conv.window}x{conv.window} instead of depthwise and pointwise"
        return text, {i: [], **dict.fromkeys(between, ()), last: [joined]}

    yield from together(graph, change)
