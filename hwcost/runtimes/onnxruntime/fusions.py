"""What ONNX Runtime fuses before it chooses layouts, pass by pass (version 1.32, CPU).

There are two levels of passes, each repeated until nothing changes, ten times at most. First level: norms, products and
sums with constants are folded into the convolution before them; common subexpressions are computed once; a matrix
product and its bias become a Gemm; transpositions move. Second level: activations are fused into convolutions and
Gemms, additions into layer norms, biases into GELUs, scalings and transpositions into matrix products.

A pass changes the graph that it is given, and returns whether it changed anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hwcost.runtimes.onnxruntime.mutable_graph import Sketch, Step, Value, sole_maker
from hwcost.runtimes.onnxruntime.patterns import (
    add_into_norm,
    bias_into_gelu,
    gate_to_silu,
    parts_to_gelu,
    parts_to_norm,
    product_before_gelu,
    scale_in_matmul,
)
from hwcost.runtimes.onnxruntime.transposes import push_transposes

IN_CONV = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip"})
IN_GEMM = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Elu", "Selu", "Softplus", "Softsign"})
_ROUNDS = 10


def fuse(sketch: Sketch) -> None:
    """Run the passes of both levels on a graph, which they change."""
    for level in (_FIRST, _SECOND):
        for _ in range(_ROUNDS):
            if not sum(run(sketch) for run in level):  # unlike `any`, it runs them all
                break
    sketch.sort()


# -- first level ---------------------------------------------------------------------------------


def fold_into_conv(sketch: Sketch) -> bool:
    """Fold batch norms, and sums and products with a constant per channel, into the convolution before them."""
    changed = False
    for step in sketch:
        conv = sole_maker(step.reads[0], "Conv") if step.reads else None
        if conv is None:
            continue
        if step.kind == "BatchNormalization" or (step.kind in ("Add", "Mul") and _per_channel(step)):
            if len(conv.reads) < 3 and step.kind != "Mul":
                bias = Value(conv.reads[1].shape[:1], constant=True)
                conv.reads.append(bias)
                bias.readers.append(conv)
            sketch.bypass(step)
            changed = True
    return changed


def _per_channel(step: Step) -> bool:
    """Whether the second operand is a constant per channel; for a product, a single number too."""
    x, other = step.reads
    c, *rest = x.shape[1:]
    if step.kind == "Mul" and not other.shape:
        return other.constant
    return other.constant and other.shape in ((c, *(1 for _ in rest)), (1, c, *(1 for _ in rest)))


def eliminate_common(sketch: Sketch) -> bool:
    """Common subexpression elimination: of nodes with the same kind, inputs and attributes one remains."""
    changed, seen = False, dict[object, Step]()
    for step in sketch:
        if not step.reads or step.reads[0].uses < 2:
            continue
        reads = tuple((v.shape, v.number) if v.constant and v.number is not None else id(v) for v in step.reads)
        key = (step.kind, reads, step.out.shape, repr(sorted(step.attributes.items())))
        first = seen.setdefault(key, step)
        if first is not step and not any(v.kept for v in step.writes):
            for mine, theirs in zip(step.writes, first.writes, strict=True):
                sketch.replace(mine, theirs)
            sketch.drop(step)
            changed = True
    return changed


def add_into_matmul(sketch: Sketch) -> bool:
    """A product with a matrix and the addition of a bias become a Gemm.

    A Gemm has two axes. Where its left operand has more, all but the last are joined before it and split after it.
    """
    changed = False
    for step in sketch:
        if step.kind != "Add":
            continue
        for x, bias in (step.reads, step.reads[::-1]):
            product = sole_maker(x, "MatMul")
            if product is None or not bias.constant or not _is_bias(product, bias):
                continue
            left, weight = product.reads
            if len(left.shape) > 2:
                rows = (math.prod(left.shape[:-1]), left.shape[-1])
                left = sketch.add("Reshape", [left], rows, step.module)
            shape = (left.shape[0], weight.shape[-1])
            made = sketch.add("Gemm", [left, weight, bias], shape, product.module)
            if len(step.out.shape) > 2:
                made = sketch.add("Reshape", [made], step.out.shape, step.module)
            sketch.replace(step.out, made)
            sketch.drop(step)
            changed = True
            break
    if changed:
        sketch.sort()
    return changed


def _is_bias(product: Step, bias: Value) -> bool:
    """Whether a constant that is added to a matrix product can be the bias of a Gemm, by its shape."""
    weight = product.reads[1]
    if len(weight.shape) != 2:
        return False
    if len(product.reads[0].shape) == 2:
        return bias.shape in (weight.shape[1:], (1, *weight.shape[1:]))
    return weight.constant and bias.shape == weight.shape[1:]


def pad_in_window(sketch: Sketch) -> bool:
    """Padding with zeros before a convolution or an average pool becomes padding of that node."""
    changed = False
    for step in sketch:
        pad = sole_maker(step.reads[0], "Pad") if step.kind in ("Conv", "AveragePool") else None
        if pad is None or pad.attributes["mode"] != "constant" or step.attributes.get("named"):
            continue
        ends = pad.attributes["pads"]  # last axis first: before, after
        if any(ends[4:]) or any(n < 0 for n in ends):
            continue
        ends = (*ends, *(0 for _ in range(4 - len(ends))))
        old = step.attributes["pads"]
        step.attributes["pads"] = tuple(a + b for a, b in zip(old, (ends[2], ends[0], ends[3], ends[1]), strict=True))
        sketch.read(step, 0, pad.reads[0])
        sketch.drop(pad)
        changed = True
    return changed


def join_concats(sketch: Sketch) -> bool:
    """A concatenation of concatenations along one axis becomes one concatenation."""
    changed = False
    for step in sketch:
        if step.kind != "Concat":
            continue
        inner = [sole_maker(v, "Concat") for v in step.reads]
        alike = [c is not None and c.attributes["axis"] == step.attributes["axis"] for c in inner]
        if any(alike):
            reads = [w for v, c, a in zip(step.reads, inner, alike, strict=True) for w in (c.reads if c and a else [v])]
            made = sketch.add("Concat", reads, step.out.shape, step.module, axis=step.attributes["axis"])
            sketch.replace(step.out, made)
            sketch.drop(step)
            changed = True
    if changed:
        sketch.sort()
    return changed


# -- second level --------------------------------------------------------------------------------


def activate_conv(sketch: Sketch) -> bool:
    """Fuse an activation into the convolution before it."""
    changed = False
    for step in sketch:
        conv = sole_maker(step.reads[0], "Conv") if step.kind in IN_CONV else None
        if conv is not None and "activation" not in conv.attributes:
            conv.attributes["activation"] = step.kind.encode()
            sketch.bypass(step)
            changed = True
    return changed


def activate_gemm(sketch: Sketch) -> bool:
    """Fuse an activation into the Gemm before it."""
    changed = False
    for step in sketch:
        gemm = sole_maker(step.reads[0], "Gemm") if step.kind in IN_GEMM else None
        if gemm is not None:
            gemm.kind = "FusedGemm"
            sketch.bypass(step)
            changed = True
    return changed


def gathers_to_split(sketch: Sketch) -> bool:
    """Gathers that together read every index of an axis become a split."""
    changed = False
    for step in sketch:
        for value in step.writes:
            changed |= _split_gathers(sketch, value)
    return changed


def slices_to_split(sketch: Sketch) -> bool:
    """Slices that together cover an axis, without overlap, become a split."""
    changed = False
    for step in sketch:
        for value in step.writes:
            changed |= _split_slices(sketch, value)
    return changed


def _split_slices(sketch: Sketch, value: Value) -> bool:
    """Replace the slices that read a value by a split, where they are all its readers and cover one axis of it."""
    slices = [r for r in value.readers if r.kind == "Slice" and "start" in r.attributes]
    if len(slices) < 2 or len(slices) != len(value.readers) or value.kept:
        return False
    axes, size = slices[0].attributes["axes"], value.shape[slices[0].attributes["axes"][0]]
    if any(s.attributes["axes"] != axes or s.attributes["step"] != 1 for s in slices):
        return False
    found = sorted(((_bound(s.attributes["start"], size, 0), s) for s in slices), key=lambda each: each[0])
    at = 0
    for start, step in found:
        if start != at:
            return False
        at += step.out.shape[axes[0]]
    if at != size:
        return False
    sizes = Value((len(found),), "int64", constant=True)
    parts = [Value(step.out.shape, value.dtype) for _, step in found]
    sketch.put(Step("Split", [value, sizes], parts, slices[0].module, {"axis": axes[0]}))
    for (_, step), part in zip(found, parts, strict=True):
        sketch.replace(step.out, part)
        sketch.drop(step)
    sketch.sort()
    return True


def _bound(number: object, size: int, default: int) -> int:
    """A bound of a slice of an axis of that size, counted from its start; `default` for None."""
    at = default if number is None else int(number)  # type: ignore[call-overload]
    return at + size if at < 0 else at


def _split_gathers(sketch: Sketch, value: Value) -> bool:
    """Replace the gathers of single indices that read a value by a split, where they are all its readers."""
    gathers = [r for r in value.readers if r.kind == "Gather" and "at" in r.attributes]
    if not gathers or len(gathers) != len(value.readers) or value.kept:
        return False
    axis = gathers[0].attributes["axis"]
    indices = sorted(g.attributes["at"] for g in gathers)
    if any(g.attributes["axis"] != axis for g in gathers) or indices != list(range(value.shape[axis])):
        return False
    shape = tuple(1 if i == axis else n for i, n in enumerate(value.shape))
    parts = [Value(shape, value.dtype) for _ in gathers]
    sizes = Value((len(parts),), "int64", constant=True)
    sketch.put(Step("Split", [value, sizes], parts, gathers[0].module, {"axis": axis}))
    for gather in gathers:
        part = parts[gather.attributes["at"]]
        sketch.replace(gather.out, sketch.add("Squeeze", [part], gather.out.shape, gather.module, axes=(axis,)))
        sketch.drop(gather)
    sketch.sort()
    return True


def turn_in_matmul(sketch: Sketch) -> bool:
    """A transposition of the last two axes of an operand is fused into the matrix product that reads it."""
    changed = False
    for step in sketch:
        if step.kind not in ("MatMul", "FusedMatMul"):
            continue
        for index, value in enumerate(step.reads):
            maker, rank = value.maker, len(value.shape)
            last = (*range(rank - 2), rank - 1, rank - 2)
            if maker is not None and maker.kind == "Transpose" and maker.attributes["perm"] == last and rank > 1:
                step.kind = "FusedMatMul"
                sketch.read(step, index, maker.reads[0])
                if not maker.out.uses:
                    sketch.drop(maker)
                changed = True
    return changed


_Pass = Callable[[Sketch], bool]
_FIRST: tuple[_Pass, ...] = (
    fold_into_conv, pad_in_window, join_concats, eliminate_common, add_into_matmul, push_transposes,
)  # fmt: skip
_SECOND: tuple[_Pass, ...] = (
    push_transposes, activate_gemm, activate_conv, gathers_to_split, slices_to_split, turn_in_matmul,
    product_before_gelu, bias_into_gelu, parts_to_norm, add_into_norm, parts_to_gelu, gate_to_silu, scale_in_matmul,
)  # fmt: skip
