"""From a node of an ONNX graph to the ops that it corresponds to.

`parts_of` knows most nodes by two tables: the kind of op, and the names of its inputs. Nodes that need more stand in
`READERS`, filled by the decorator `reads` in `onnx_readers` and `onnx_compound`. Inputs that are settings in torch
(axes, sizes, bounds) are left out where the file holds their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwcost.graph import OpSpec, Param, TensorSpec
from hwcost.tracing.onnx_inputs import OUR_DOMAINS

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
KINDS = {  # by op type
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Sqrt": "sqrt", "Exp": "exp", "Log": "log",
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf", "HardSwish": "hardswish", "Swish": "silu",
    "HardSigmoid": "hardsigmoid", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Celu": "celu",
    "Softplus": "softplus", "Softsign": "onnx.Softsign", "Mish": "mish", "PRelu": "prelu", "Neg": "neg",
    "Shrink": "hardshrink", "Abs": "abs", "Reciprocal": "reciprocal", "Floor": "floor", "Ceil": "ceil",
    "Round": "round", "Sign": "sign", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos",
    "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
    "Mod": "remainder", "Equal": "eq", "Less": "lt", "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge",
    "Not": "logical_not", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor", "Where": "where",
    "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "BitwiseNot": "bitwise_not",
    "BitShift": "bitwise_left_shift", "IsNaN": "isnan", "IsInf": "isinf", "MatMul": "matmul",
    "Slice": "slice_copy", "Split": "split_copy", "GatherElements": "gather", "GatherND": "index",
    "Tile": "tile", "DepthToSpace": "pixel_shuffle", "SpaceToDepth": "pixel_unshuffle",
    "ReverseSequence": "flip", "CenterCropPad": "pad", "Compress": "masked_select", "LayerNormalization": "layer_norm",
    "MeanVarianceNormalization": "layer_norm", "RMSNormalization": "rms_norm", "ArgMax": "argmax", "ArgMin": "argmin",
    "SimplifiedLayerNormalization": "rms_norm", "CumSum": "cumsum", "TopK": "topk", "Range": "arange",
    "ConstantOfShape": "full", "EyeLike": "eye", "RandomNormal": "randn", "RandomNormalLike": "randn_like",
    "RandomUniform": "rand", "RandomUniformLike": "rand_like", "Bernoulli": "bernoulli", "Multinomial": "multinomial",
    "QuantizeLinear": "quantize_per_tensor", "DequantizeLinear": "dequantize",
    "DynamicQuantizeLinear": "quantize_per_tensor_dynamic", "NonZero": "nonzero", "OneHot": "one_hot",
    "MaxUnpool": "max_unpool2d", "Col2Im": "col2im", "AffineGrid": "affine_grid_generator",
    "DeformConv": "torchvision.deform_conv2d", "MaxRoiPool": "torchvision.roi_pool", "ReorderInput": "clone",
    "ReorderOutput": "clone", "QuickGelu": "silu", "MatMulInteger": "matmul", "QLinearMatMul": "quantized.matmul",
    "QLinearAdd": "quantized.add", "QLinearMul": "quantized.mul", "QLinearConcat": "quantized.cat",
    "QLinearSigmoid": "quantized.sigmoid", "QLinearLeakyRelu": "quantized.leaky_relu",
    "QLinearSoftmax": "quantized.softmax", "DynamicQuantizeMatMul": "matmul", "MatMulIntegerToFloat": "matmul",
    "FusedMatMulActivation": "matmul",
}  # fmt: skip
REDUCTIONS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin", "ReduceProd": "prod",
    "ReduceL2": "linalg_vector_norm", "ReduceL1": "linalg_vector_norm", "ReduceSumSquare": "linalg_vector_norm",
    "ReduceLogSumExp": "logsumexp", "ReduceLogSum": "sum",
}  # fmt: skip
_AFFINE = ("input", "weight", "bias")
_NAMES: Mapping[str, tuple[str, ...]] = {  # of the inputs, by op type, where they are not "self" and "other"
    "Conv": _AFFINE, "ConvTranspose": _AFFINE, "LayerNormalization": _AFFINE, "GroupNormalization": _AFFINE,
    "RMSNormalization": _AFFINE, "SimplifiedLayerNormalization": _AFFINE, "InstanceNormalization": _AFFINE,
    "BatchNormalization": ("input", "weight", "bias", "running_mean", "running_var"),
    "DeformConv": ("input", "weight", "offset", "bias", "mask"), "GridSample": ("input", "grid"),
    "GatherElements": ("self", "index"), "GatherND": ("self", "indices"), "PRelu": ("self", "weight"),
    "Where": ("condition", "self", "other"), "MaxRoiPool": ("input", "rois"),
}  # fmt: skip
# Which inputs are settings, by op type.
_SETTINGS: Mapping[str, tuple[int, ...]] = {
    "Slice": (1, 2, 3, 4), "Split": (1,), "Expand": (1,), "Tile": (1,), "TopK": (1,), "CumSum": (1,),
    "Range": (0, 1, 2), "ConstantOfShape": (0,), "OneHot": (1, 2), "EyeLike": (0,), "RandomNormalLike": (0,),
    "RandomUniformLike": (0,), "Col2Im": (1, 2), "AffineGrid": (1,), "CenterCropPad": (1,), "MaxUnpool": (2,),
    "ReverseSequence": (1,),
} | dict.fromkeys(REDUCTIONS, (1,))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operand:
    """A value that a node reads or writes: its name in the file, its description, and what it holds where that is a
    small constant (an array)."""

    name: str
    spec: TensorSpec
    value: Any = None

    def like(self, suffix: str, shape: Sequence[int] | None = None, **changes: Any) -> Operand:
        """A value inside a node, which no other node sees; of that shape, or of the same one."""
        spec = replace(self.spec, shape=self.spec.shape if shape is None else tuple(shape), weight=False, internal=True)
        return Operand(f"{self.name}#{suffix}", replace(spec, overlapping=0, **changes))

    def shaped(self, shape: Sequence[int]) -> Operand:
        """The same value read with another shape."""
        return replace(self, spec=replace(self.spec, shape=tuple(shape)))


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node with what is known of its operands; an operand that is left out is None."""

    op_type: str
    domain: str
    settings: Mapping[str, Param]  # its attributes; None for a tensor or a graph
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand | None, ...]
    opset: int

    def input(self, index: int) -> Operand | None:
        """The input of that index, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int) -> Operand | None:
        """The output of that index, None where it is left out."""
        return self.outputs[index] if index < len(self.outputs) else None

    def given(self, attribute: str, index: int, default: Any = None) -> Any:
        """A setting that is an attribute in some opsets and an input in others, as a list or a number.

        `default` where it is left out, or is an input whose value is not known.
        """
        if self.settings.get(attribute) is not None:
            return self.settings[attribute]
        operand = self.input(index)
        return default if operand is None or operand.value is None else operand.value.tolist()


@dataclass(frozen=True, slots=True)
class Part:
    """An op that a node does, with the names of the values that it reads and writes."""

    spec: OpSpec
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    view: bool = False  # the first output is a view of the first input


Reader = Callable[[NodeView], Sequence[Part]]
READERS: dict[str, Reader] = {}


def reads(*op_types: str) -> Callable[[Reader], Reader]:
    """Decorator of a function that gives the parts of nodes of these types."""

    def register(function: Reader) -> Reader:
        READERS.update(dict.fromkeys(op_types, function))
        return function

    return register


def part(
    kind: str,
    inputs: Sequence[tuple[str, Operand | None]],
    outputs: Sequence[Operand | None],
    params: Mapping[str, Param] | None = None,
    *,
    view: bool = False,
) -> Part:
    """An op of that kind; operands that are None are left out."""
    into = [(name, operand) for name, operand in inputs if operand is not None]
    out = [operand for operand in outputs if operand is not None]
    seen = set[str]()
    specs = []
    for name, operand in into:
        specs.append(replace(operand.spec, name=name, repeat=operand.name in seen))
        seen.add(operand.name)
    written = tuple(replace(o.spec, name=f"out{i}" if i else "out", weight=False) for i, o in enumerate(out))
    spec = OpSpec(kind, tuple(specs), written, tuple(sorted((params or {}).items())))
    return Part(spec, tuple(o.name for _, o in into), tuple(o.name for o in out), view)


def parts_of(node: NodeView) -> Sequence[Part]:
    """The ops that a node does, in order."""
    if node.domain not in OUR_DOMAINS:
        return [part(f"onnx.{node.domain}.{node.op_type}", named(node), node.outputs)]
    if node.op_type in VIEWS:
        return [view(node)]
    if node.op_type in READERS:
        return READERS[node.op_type](node)
    return [part(KINDS.get(node.op_type, f"onnx.{node.op_type}"), named(node), node.outputs)]


def named(node: NodeView) -> list[tuple[str, Operand | None]]:
    """The inputs of a node, each with its name, without settings whose value is known."""
    settings, names = _SETTINGS.get(node.op_type, ()), _NAMES.get(node.op_type, ("self",))
    return [
        (names[i] if i < len(names) else "other", operand)
        for i, operand in enumerate(node.inputs)
        if not (i in settings and operand is not None and (operand.spec.weight or node.op_type.endswith("Like")))
    ]


def view(node: NodeView) -> Part:
    """The first output as a view of the first input."""
    return part("view", [("self", node.input(0))], node.outputs[:1], view=True)


def axes_of(node: NodeView) -> int:
    """Number of axes of the feature map that a node reads, without batch and channels."""
    first = node.input(0)
    return len(first.spec.shape) - 2 if first is not None else 0
