"""From a traced graph to the nodes of its ONNX export (opset 17, TorchScript exporter).

An op that reads constants alone becomes a constant, and a view a Reshape. Ops that have an ONNX operator with the same
inputs stand in the table `SAME`, those with a second operand that may be a number in `TWO`. For other kinds, functions
registered with the decorator `exports` write the nodes. Of a graph that was read from an ONNX file, ops without a torch
kind become the file's nodes again. An op of any other kind becomes a node that holds the traced op, so that its work is
counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hwcost.graph import Graph, Op, TensorSpec
from hwcost.runtimes.onnxruntime.mutable_graph import Sketch, Step, Value

SAME = {  # ONNX operators by kind of op
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "erf": "Erf", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "neg": "Neg", "abs": "Abs", "floor": "Floor", "ceil": "Ceil", "round": "Round", "sin": "Sin", "cos": "Cos",
    "reciprocal": "Reciprocal", "softplus": "Softplus", "elu": "Elu", "selu": "Selu", "celu": "Celu",
    "leaky_relu": "LeakyRelu", "hardsigmoid": "HardSigmoid", "hardswish": "HardSwish", "sign": "Sign",
    "logical_not": "Not", "bitwise_not": "Not", "softsign": "Softsign", "prelu": "PRelu", "isnan": "IsNaN",
    "maximum": "Max", "minimum": "Min", "matmul": "MatMul", "bmm": "MatMul", "mm": "MatMul",
    "tile": "Tile", "repeat": "Tile",
}  # fmt: skip
TWO = {  # ONNX operators by kind of op
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "eq": "Equal", "lt": "Less", "gt": "Greater",
    "le": "LessOrEqual", "ge": "GreaterOrEqual", "logical_and": "And", "logical_or": "Or", "bitwise_and": "And",
    "bitwise_or": "Or", "remainder": "Mod",
}  # fmt: skip
NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1}  # second operands with which ONNX Runtime removes the op
REDUCED = {"mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin", "linalg_vector_norm": "ReduceL2"}
VIEWS = {"reshape", "view", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"}
# Ops whose result does not depend on what is in their inputs, so that it becomes a constant.
FILLED = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
# Ops that an export leaves out: in inference their output is their input.
NOTHING = {"dropout", "clone", "contiguous", "detach", "alias", "lift_fresh", "feature_dropout", "resolve_conj"}


class Export:
    """The nodes that a traced graph is exported to, in `sketch`; `values` maps its value numbers to values of that."""

    def __init__(self, graph: Graph) -> None:
        self.sketch = Sketch()
        self.values = {
            number: Value(spec.shape, spec.dtype)
            for number, spec in zip(graph.input_values, graph.inputs, strict=True)
        }  # fmt: skip
        for op in graph.ops:
            self._op(op)
        for number in graph.output_values:
            if number in self.values:
                self.values[number].kept = True
                self.sketch.outputs.append(self.values[number])
        self.sketch.clean()

    def _op(self, op: Op) -> None:
        reads = [self._value(number, spec) for number, spec in zip(op.reads, op.spec.inputs, strict=True)]
        if all(v.constant for v in reads) or op.spec.kind in FILLED:
            for number, spec in zip(op.writes, op.spec.outputs, strict=False):
                self.values[number] = Value(spec.shape, spec.dtype, constant=True)
            return
        kind = op.spec.kind
        if kind in NOTHING:
            self.values[op.writes[0]] = reads[0]
        elif kind in EXPORTS:
            EXPORTS[kind](self, op, reads)
        elif kind in SAME:
            self.write(op, SAME[kind], reads)
        elif kind in NEUTRAL and len(reads) == 1 and op.spec.param("other") == NEUTRAL[kind]:
            self.values[op.writes[0]] = reads[0]  # as in 0 + x, with which many a sum begins
        elif kind in TWO and (kind != "remainder" or not reads[0].dtype.startswith("float")):
            self.write(op, TWO[kind], [reads[0], self.other(op, reads)])
        elif op.state == "free" or kind in VIEWS:
            for index in range(len(op.writes)):
                self.write(op, "Reshape", reads[:1], index)
        elif kind.startswith("onnx."):
            self._put(op, reads, kind.removeprefix("onnx."), dict(op.spec.params))
        else:
            self.unknown(op, reads)

    def unknown(self, op: Op, reads: list[Value]) -> None:
        """Add a node that stands for the traced op: its kernel is described by the op, and costs as much."""
        self._put(op, reads, op.spec.kind, {"traced": op.spec})

    def _put(self, op: Op, reads: list[Value], kind: str, attributes: dict[str, Any]) -> None:
        writes = [Value(t.shape, t.dtype) for t in op.spec.outputs]
        if writes:
            self.sketch.put(Step(kind, reads, writes, op.module, attributes))
        self.values |= dict(zip(op.writes, writes, strict=False))

    def _value(self, number: int, spec: TensorSpec) -> Value:
        if number not in self.values:
            self.values[number] = Value(spec.shape, spec.dtype, constant=True, number=("weight", number))
        return self.values[number]

    # -- for the functions that write nodes ----------------------------------------------------------

    def write(self, op: Op, kind: str, reads: Sequence[Value], index: int = 0, **attributes: Any) -> Value:
        """Add a node that makes the output of that index of the op; returns that output."""
        spec = op.spec.outputs[index]
        value = Value(spec.shape, spec.dtype)
        self.sketch.put(Step(kind, list(reads), [value], op.module, attributes))
        self.values[op.writes[index]] = value
        return value

    def other(self, op: Op, reads: list[Value]) -> Value:
        """The second operand of the op; a constant of no axes where the op has it as a number."""
        if len(reads) > 1:
            return reads[1]
        number = op.spec.param("other", op.spec.param("exponent"))
        return constant((), reads[0].dtype, number)

    def named(self, op: Op, reads: list[Value], name: str) -> Value | None:
        """The input of the op that has that name, None where it was left out."""
        return next((v for v, t in zip(reads, op.spec.inputs, strict=True) if t.name == name), None)


def constant(shape: Sequence[int], dtype: str = "float32", number: object = None) -> Value:
    """A constant of that shape; equal `number`s, unless None, stand for equal contents (`Value.number`)."""
    return Value(tuple(shape), dtype, constant=True, number=number)


def pair(value: object, count: int = 2) -> tuple[Any, ...]:
    """A parameter as one number per axis: a single number is repeated `count` times."""
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return sides * count if len(sides) == 1 else sides


def whole(value: object) -> int:
    """A parameter that must be a whole number, as an int."""
    return int(value)  # type: ignore[call-overload, no-any-return]


EXPORTS: dict[str, Callable[[Export, Op, list[Value]], None]] = {}
Function = Callable[[Export, Op, list[Value]], None]


def exports(*kinds: str) -> Callable[[Function], Function]:
    """Decorator of a function that writes the nodes of ops of these kinds.

    The function is given the export, the op, and the values that the op reads.
    """

    def register(function: Function) -> Function:
        EXPORTS.update(dict.fromkeys(kinds, function))
        return function

    return register


# -- convolutions, pools, products ---------------------------------------------------------------


@exports("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d")
def _convolution(e: Export, op: Op, reads: list[Value]) -> None:
    spec, axes = op.spec, len(op.spec.outputs[0].shape) - 2
    kind = "ConvTranspose" if "transpose" in spec.kind else "Conv"
    dilations = pair(spec.param("dilation", 1), axes)
    padding = spec.param("padding", 0)
    named = op.name.endswith(".padding")  # "same", "valid": the node computes its padding itself
    pads = 2 * pair(0 if named else padding, axes)
    e.write(op, kind, reads, strides=pair(spec.param("stride", 1), axes), pads=pads, dilations=dilations,
            group=spec.param("groups", 1), named=named)  # fmt: skip


@exports("batch_norm", "native_batch_norm")
def _batch_norm(e: Export, op: Op, reads: list[Value]) -> None:
    channels = reads[0].shape[1:2]
    affine = [e.named(op, reads, name) or constant(channels) for name in ("weight", "bias")]
    moments = [e.named(op, reads, name) or constant(channels) for name in ("running_mean", "running_var")]
    e.write(op, "BatchNormalization", [reads[0], *affine, *moments])


@exports("layer_norm", "native_layer_norm")
def _layer_norm(e: Export, op: Op, reads: list[Value]) -> None:
    shape = pair(op.spec.param("normalized_shape"), 1)
    affine = [e.named(op, reads, name) or constant(shape) for name in ("weight", "bias")]
    e.write(op, "LayerNormalization", [reads[0], *affine])


@exports("group_norm")
def _group_norm(e: Export, op: Op, reads: list[Value]) -> None:
    x, groups = reads[0], whole(op.spec.param("num_groups", 1))
    n, c, *rest = x.shape
    flat = (n, groups, math.prod(x.shape) // max(n * groups, 1))
    split = e.sketch.add("Reshape", [x], flat, op.module)
    norm = e.sketch.add("InstanceNormalization", [split, constant((groups,)), constant((groups,))], flat, op.module)
    affine = (c, *(1 for _ in rest))
    joined = e.sketch.add("Reshape", [norm], x.shape, op.module)
    scaled = e.sketch.add("Mul", [joined, constant(affine)], x.shape, op.module)
    e.write(op, "Add", [scaled, constant(affine)])


@exports("instance_norm")
def _instance_norm(e: Export, op: Op, reads: list[Value]) -> None:
    channels = reads[0].shape[1:2]
    affine = [e.named(op, reads, name) or constant(channels) for name in ("weight", "bias")]
    e.write(op, "InstanceNormalization", [reads[0], *affine])


@exports("max_pool2d", "avg_pool2d")
def _pool(e: Export, op: Op, reads: list[Value]) -> None:
    spec = op.spec
    size = pair(spec.param("kernel_size"))
    stride = pair(spec.param("stride")) if spec.param("stride") else size
    kind = "MaxPool" if spec.kind == "max_pool2d" else "AveragePool"
    pads = 2 * pair(spec.param("padding", 0))
    e.write(op, kind, reads[:1], kernel_shape=size, strides=stride, pads=pads, ceil=bool(spec.param("ceil_mode")))


@exports("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive_pool(e: Export, op: Op, reads: list[Value]) -> None:
    before, after = reads[0].shape[2:], op.spec.outputs[0].shape[2:]
    kind = "AveragePool" if "avg" in op.spec.kind else "MaxPool"
    if set(after) == {1} and kind == "AveragePool":
        e.write(op, "GlobalAveragePool", reads[:1])
        return
    size = tuple(a // b for a, b in zip(before, after, strict=True))
    e.write(op, kind, reads[:1], kernel_shape=size, strides=size, pads=(0, 0, 0, 0))


@exports("linear")
def _linear(e: Export, op: Op, reads: list[Value]) -> None:
    x, weight, *bias = reads
    if len(x.shape) == 2 and bias:
        e.write(op, "Gemm", reads)
        return
    if weight.constant:
        turned = constant(weight.shape[::-1], weight.dtype, ("turned", weight.number))
    else:
        turned = e.sketch.add("Transpose", [weight], weight.shape[::-1], op.module, perm=(1, 0))
    if not bias:
        e.write(op, "MatMul", [x, turned])
        return
    product = e.sketch.add("MatMul", [x, turned], op.spec.outputs[0].shape, op.module)
    e.write(op, "Add", [bias[0], product])


@exports("addmm")
def _addmm(e: Export, op: Op, reads: list[Value]) -> None:
    e.write(op, "Gemm", [reads[1], reads[2], reads[0]])


@exports("baddbmm")
def _baddbmm(e: Export, op: Op, reads: list[Value]) -> None:
    product = e.sketch.add("MatMul", reads[1:], op.spec.outputs[0].shape, op.module)
    e.write(op, "Add", [reads[0], product])


@exports("einsum")
def _einsum(e: Export, op: Op, reads: list[Value]) -> None:
    e.write(op, "Einsum", reads, equation=op.spec.param("equation"))


@exports("scaled_dot_product_attention")
def _attention(e: Export, op: Op, reads: list[Value]) -> None:
    q, k, v = reads[:3]
    rank = len(k.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    turned = e.sketch.add("Transpose", [k], tuple(k.shape[p] for p in perm), op.module, perm=perm)
    scale = constant((1,), number="root of scale")
    left = e.sketch.add("Mul", [q, scale], q.shape, op.module)
    right = e.sketch.add("Mul", [turned, scale], turned.shape, op.module)
    shape = (*op.spec.outputs[0].shape[:-1], k.shape[-2])
    scores = e.sketch.add("MatMul", [left, right], shape, op.module)
    mask = e.named(op, reads, "attn_mask")
    if op.spec.param("is_causal"):
        mask = constant(shape[-2:])
    if mask is not None:
        if mask.dtype == "bool":
            mask = e.sketch.add("Where", [mask, constant((1,)), constant((1,))], mask.shape, op.module)
            mask.dtype = q.dtype
            mask.constant = all(r.constant for r in (mask.maker.reads if mask.maker else ()))
        scores = e.sketch.add("Add", [scores, mask], shape, op.module)
    shares = e.sketch.add("Softmax", [scores], shape, op.module, axis=-1)
    e.write(op, "MatMul", [shares, v])


# -- pointwise -----------------------------------------------------------------------------------


@exports("silu")
def _silu(e: Export, op: Op, reads: list[Value]) -> None:
    gate = e.sketch.add("Sigmoid", reads, reads[0].shape, op.module)
    e.write(op, "Mul", [reads[0], gate])


@exports("gelu")
def _gelu(e: Export, op: Op, reads: list[Value]) -> None:
    if op.spec.param("approximate") != "tanh":
        e.write(op, "Gelu", reads)
        return
    x, shape = reads[0], reads[0].shape
    cube = e.sketch.add("Mul", [x, e.sketch.add("Mul", [x, x], shape, op.module)], shape, op.module)
    scaled = e.sketch.add("Mul", [constant(()), cube], shape, op.module)
    inner = e.sketch.add("Mul", [constant(()), e.sketch.add("Add", [x, scaled], shape, op.module)], shape, op.module)
    total = e.sketch.add("Add", [constant(()), e.sketch.add("Tanh", [inner], shape, op.module)], shape, op.module)
    e.write(op, "Mul", [constant(()), e.sketch.add("Mul", [x, total], shape, op.module)])


@exports("rms_norm")
def _rms_norm(e: Export, op: Op, reads: list[Value]) -> None:
    scale = e.named(op, reads, "weight") or constant(pair(op.spec.param("normalized_shape"), 1))
    e.write(op, "SimplifiedLayerNormalization", [reads[0], scale])


@exports("mish")
def _mish(e: Export, op: Op, reads: list[Value]) -> None:
    soft = e.sketch.add("Softplus", reads, reads[0].shape, op.module)
    e.write(op, "Mul", [reads[0], e.sketch.add("Tanh", [soft], reads[0].shape, op.module)])


@exports("glu")
def _glu(e: Export, op: Op, reads: list[Value]) -> None:
    shape = op.spec.outputs[0].shape
    halves = [Value(shape, reads[0].dtype) for _ in range(2)]
    axis = whole(op.spec.param("dim", -1))
    e.sketch.put(Step("Split", [reads[0], constant((2,), "int64")], halves, op.module, {"axis": axis}))
    e.write(op, "Mul", [halves[0], e.sketch.add("Sigmoid", [halves[1]], shape, op.module)])


@exports("hardtanh", "relu6", "clamp", "clip", "clamp_min", "clamp_max")
def _clip(e: Export, op: Op, reads: list[Value]) -> None:
    known = [op.spec.param(name) for name in ("min", "max")]
    both = op.spec.kind in ("hardtanh", "relu6") or None not in known
    e.write(op, "Clip", [reads[0], *(constant((), reads[0].dtype) for _ in range(2 if both else 1))])


@exports("rsub")
def _rsub(e: Export, op: Op, reads: list[Value]) -> None:
    e.write(op, "Sub", [e.other(op, reads), reads[0]])


@exports("rsqrt")
def _rsqrt(e: Export, op: Op, reads: list[Value]) -> None:
    root = e.sketch.add("Sqrt", reads, reads[0].shape, op.module)
    e.write(op, "Div", [constant(()), root])


@exports("square")
def _square(e: Export, op: Op, reads: list[Value]) -> None:
    e.write(op, "Mul", [reads[0], reads[0]])


@exports("where", "masked_fill")
def _where(e: Export, op: Op, reads: list[Value]) -> None:
    if op.spec.kind == "masked_fill":
        dtype = op.spec.outputs[0].dtype
        e.write(op, "Where", [reads[1], reads[2] if len(reads) > 2 else constant((), dtype), reads[0]])
        return
    e.write(op, "Where", [*reads, *(constant(()) for _ in range(3 - len(reads)))])


@exports("to", "_to_copy", "type_as")
def _cast(e: Export, op: Op, reads: list[Value]) -> None:
    if op.spec.outputs[0].dtype == reads[0].dtype:
        e.values[op.writes[0]] = reads[0]
    else:
        e.write(op, "Cast", reads[:1])


@exports("softmax", "log_softmax", "_softmax")
def _softmax(e: Export, op: Op, reads: list[Value]) -> None:
    e.write(op, "LogSoftmax" if "log" in op.spec.kind else "Softmax", reads[:1], axis=whole(op.spec.param("dim", -1)))


@exports("mean", "amax", "amin", "linalg_vector_norm", "sum")
def _reduce(e: Export, op: Op, reads: list[Value]) -> None:
    kind, rank = op.spec.kind, len(reads[0].shape)
    axes = op.spec.param("dim")
    axes = tuple(range(rank)) if axes in (None, ()) else tuple(whole(a) % rank for a in pair(axes, 1))
    keep = len(op.spec.outputs[0].shape) == rank
    if kind == "sum":
        e.write(op, "ReduceSum", [reads[0], constant((len(axes),), "int64")], axes=axes, keep=keep)
    else:
        e.write(op, REDUCED[kind], reads[:1], axes=axes, keep=keep)
