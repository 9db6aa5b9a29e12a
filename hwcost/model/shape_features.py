"""Features of a kernel's tensors and parameters, by name.

They are read from shapes, layouts and parameters in the same way for every op, so that an op nobody thought of is
described too. The tables below hold a function for each name. A size n is told as log2(1 + n) unless said otherwise,
since times follow ratios of sizes; counts and flags are plain numbers.

An op works along one dimension: the channels of a convolution, the features of a linear layer, what a norm or a
softmax runs over. Which one it is cannot be read from the input's shape, since [n, h, w, c] and [n, c, h, w] look
alike; it is found from the weight's shape and the op's parameters. Below, *channels* means the extent of that
dimension, whatever the op.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hwcost.graph import ITEMSIZE, OpSpec, Param, TensorSpec
from hwcost.kernel import Kernel
from hwcost.model.windows import window_extents
from hwcost.rules.registry import cost_of

_BROADCASTING = frozenset({"add", "sub", "mul", "div", "maximum", "minimum"})


class Shapes(NamedTuple):
    """What the features of one kernel are read from."""

    kernel: Kernel
    op: OpSpec  # the main op, which has most multiply-adds of the kernel
    first: TensorSpec  # its first input; the largest one of an op that broadcasts
    out: TensorSpec  # its first output
    channels_in: int  # of `first`, at least 1
    channels_out: int  # of `out`, at least 1
    groups: int  # of a grouped convolution; 1 of others
    window: tuple[int, ...]  # spatial extents of a convolution's window; () of other ops
    inputs: tuple[TensorSpec, ...]  # of all ops of the kernel


Features = Mapping[str, Callable[[Shapes], float]]  # by name, in the order of their columns


def shapes_of(kernel: Kernel) -> Shapes:
    """Find the main op of a kernel and the dimension that it works along."""
    op = kernel.main
    out = op.outputs[0] if op.outputs else op.inputs[0]
    first = op.inputs[0] if op.inputs else out
    if op.kind in _BROADCASTING:
        first = max(op.inputs, key=lambda tensor: tensor.numel)  # gate * map is as much work as map * gate
    channels_in, channels_out = _channels(op, first, out)
    return Shapes(
        kernel=kernel,
        op=op,
        first=first,
        out=out,
        channels_in=channels_in,
        channels_out=channels_out,
        groups=int(_number(op.param("groups", 1))),
        window=window_extents(op),
        inputs=tuple([tensor for each in kernel.ops for tensor in each.inputs]),
    )


def _channels(op: OpSpec, first: TensorSpec, out: TensorSpec) -> tuple[int, int]:
    """(of the input, of the output): extent of the dimension that an op works along, at least 1."""
    weight = next((t.shape for t in op.inputs if t.name == "weight"), ())  # a parameter, or computed by the network
    if len(weight) == 2:  # a linear layer
        return _last(first), _last(out)
    normalised = op.param("normalized_shape")
    if isinstance(normalised, tuple):  # a layer norm
        size = math.prod(int(n) for n in normalised if isinstance(n, int))
        return max(size, 1), max(size, 1)
    dim = op.param("dim")
    if not weight and isinstance(dim, int) and -len(first.shape) <= dim < len(first.shape):  # a softmax, a sum
        size = max(first.shape[dim], 1)
        return size, max(out.shape[dim], 1) if len(out.shape) == len(first.shape) else size
    return _of_map(first), _of_map(out)


def _of_map(tensor: TensorSpec) -> int:
    """Channels of a feature map [n, c, h, w], or of anything else [*, c]."""
    return max(tensor.shape[1], 1) if len(tensor.shape) >= 4 else _last(tensor)


def _last(tensor: TensorSpec) -> int:
    """Extent of the last dimension, at least 1."""
    return max(tensor.shape[-1], 1) if tensor.shape else 1


def _number(value: Param, low: float = 1.0) -> float:
    """A parameter's number, the first one of several, at least `low`; `low` where it is no number."""
    first = value[0] if isinstance(value, tuple) and value else value
    return max(float(first), low) if isinstance(first, (int, float)) else low


def _log(size: float) -> float:
    """log2(1 + size), which is defined at 0."""
    return math.log2(1 + size)


# -- fusion -------------------------------------------------------------------------------------------

FUSION: Features = {
    "ops": lambda s: len(s.kernel.ops),
    "epilogue": lambda s: len({op.kind for op in s.kernel.ops[1:]}),  # distinct kinds after the first op
}

# -- extents ------------------------------------------------------------------------------------------


def _multiply_adds(shapes: Shapes) -> float:
    """Multiply-adds of the main op for one element of its output."""
    return cost_of(shapes.op)[0].macs / max(shapes.out.numel, 1)


def _side(tensor: TensorSpec, axis: int) -> int:
    """Extent of a feature map along an axis; 1 of anything else."""
    return tensor.shape[axis] if len(tensor.shape) >= 4 else 1


EXTENT: Features = {
    "depth_k": lambda s: _log(_multiply_adds(s)),
    "channels_out": lambda s: _log(s.channels_out),
    "channels_in": lambda s: _log(s.channels_in),
    "rows": lambda s: _log(s.out.numel // s.channels_out),  # elements of the output for each of its channels
    "height": lambda s: _log(_side(s.out, -2)),
    "width": lambda s: _log(_side(s.out, -1)),
    "batch": lambda s: math.log2(max((*s.out.shape, 1)[0], 1)),  # log2 of the output's first dimension
    "dims": lambda s: len(s.out.shape),
    "last_in": lambda s: _log(_last(s.first)),
    "last_out": lambda s: _log(_last(s.out)),
    "input": lambda s: _log(s.first.numel),
}

# -- windows ------------------------------------------------------------------------------------------


def _window_size(shapes: Shapes) -> float:
    """Elements of the window of a convolution or a pooling; 1 of other ops."""
    if shapes.window:
        return math.prod(shapes.window)
    size = shapes.op.param("kernel_size", 1)
    return math.prod(_number(side) for side in size) if isinstance(size, tuple) else _number(size) ** 2


def _parameter(shapes: Shapes, name: str) -> float:
    """log2 of a parameter, of its first number where it has one for each axis; 0 of an op without it."""
    return math.log2(_number(shapes.op.param(name, 1)))


def _padding(shapes: Shapes) -> float:
    """Elements of padding before the first spatial axis; of "same", before the longest axis of the window."""
    padding = shapes.op.param("padding", 0)
    return max(shapes.window, default=1) // 2 if padding == "same" else _number(padding, low=0.0)


WINDOW: Features = {
    "window": lambda s: _log(_window_size(s)),
    "stride": lambda s: _parameter(s, "stride"),
    "dilation": lambda s: _parameter(s, "dilation"),
    "groups": lambda s: _parameter(s, "groups"),
    "padding": _padding,
    "window_width": lambda s: s.window[-1] if s.window else 1,  # not as a logarithm; 1 of a pooling too
    "group_in": lambda s: math.log2(max(s.channels_in / s.groups, 1)),  # log2 of the input's channels in a group
    "group_out": lambda s: math.log2(max(s.channels_out / s.groups, 1)),
}

# -- alignment ----------------------------------------------------------------------------------------
#
# Runtimes compute on vectors, and on blocks of several vectors. Where a size is no multiple of the block, the last
# block is computed as a whole and used in part.


def _twos(size: int) -> float:
    """log2 of the largest power of two, up to 64, that divides a size."""
    return min((size & -size).bit_length() - 1, 6)


def _waste(size: int, block: int) -> float:
    """log2 of (work in whole blocks / work asked for): 0 where `size` is a multiple of `block`."""
    return math.log2(-(-size // block) * block / size)


def _waste_out(shapes: Shapes, block: int) -> float:
    """`_waste` along the output's channels in a group."""
    return _waste(max(shapes.channels_out // shapes.groups, 1), block)


def _waste_in(shapes: Shapes, block: int) -> float:
    """`_waste` along the input's channels in a group."""
    return _waste(max(shapes.channels_in // shapes.groups, 1), block)


ALIGNMENT: Features = {
    "align_out": lambda s: _twos(s.channels_out),
    "align_in": lambda s: _twos(s.channels_in),
    "waste_8_out": lambda s: _waste_out(s, 8),
    "waste_8_in": lambda s: _waste_in(s, 8),
    "waste_16_out": lambda s: _waste_out(s, 16),
    "waste_32_out": lambda s: _waste_out(s, 32),
    "waste_4_last": lambda s: _waste(_last(s.out), 4),
    "waste_8_last": lambda s: _waste(_last(s.out), 8),
}

# -- layout -------------------------------------------------------------------------------------------

_LAYOUTS = {"contiguous": 0.0, "strided": 2.0}


def _layout(tensor: TensorSpec) -> float:
    """0 of a contiguous tensor, 2 of a strided one, 1 of one with its channels innermost or in blocks."""
    return _LAYOUTS.get(tensor.layout, 1.0)


def _order(op: OpSpec) -> list[int]:
    """The order in which a copy writes its input's dimensions; [] of an op that does not reorder them."""
    perm = op.param("perm")
    return [int(p) for p in perm if isinstance(p, int)] if isinstance(perm, tuple) else []


def _run(shapes: Shapes) -> float:
    """log2 of the elements that a reordering copy moves as one run, those of the innermost dimensions that stay where
    they are; -1 of other ops."""
    order = _order(shapes.op)
    if not order:
        return -1.0
    inner = len(order)  # the first of these dimensions
    while inner and order[inner - 1] == inner - 1:
        inner -= 1
    return math.log2(math.prod(shapes.first.shape[inner:]))


def _moved(shapes: Shapes) -> float:
    """The fewest dimensions that a reordering copy must move, so that the others keep their order; -1 of other ops."""
    order = _order(shapes.op)
    if not order:
        return -1.0
    longest = [1] * len(order)  # rising subsequence of the order that ends at each place
    for i, p in enumerate(order):
        longest[i] = 1 + max((longest[j] for j in range(i) if order[j] < p), default=0)
    return len(order) - max(longest)


LAYOUT: Features = {
    "strided": lambda s: sum(tensor.layout != "contiguous" for tensor in s.inputs),  # inputs that are not contiguous
    "layout_in": lambda s: _layout(s.first),
    "layout_out": lambda s: _layout(s.out),
    "run": _run,
    "moved": _moved,
    "itemsize": lambda s: ITEMSIZE[s.first.dtype],  # byte
    "inputs": lambda s: len(s.inputs),
    "in_place": lambda s: any(
        op.param("in_place") is True for op in s.kernel.ops
    ),  # whether an op overwrites its input
}
