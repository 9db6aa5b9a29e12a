"""From the nodes of an optimised ONNX graph to kernels.

Kernels are described by the kinds of traced ops: a `Conv` of images is a "conv2d", one with an activation fused into it
"conv2d+relu". Tensors in the blocked layout of the CPU provider have layout "nchwc" and as many channels as are
computed, padding included. Copies between layouts, and transpositions, which are free in torch, are kernels of kind
"clone". An operator without a counterpart in torch has the kind "onnx." and its ONNX name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwcost.graph import OpSpec, Param, TensorSpec
from hwcost.kernel import Kernel

# Operators that move no data.
FREE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant", "Size"})
_KINDS: Mapping[str, str] = {
    "Conv": "conv2d", "FusedConv": "conv2d", "ConvTranspose": "conv_transpose2d", "Gemm": "linear",
    "FusedGemm": "linear", "MatMul": "matmul", "FusedMatMul": "matmul", "MaxPool": "max_pool2d",
    "AveragePool": "avg_pool2d", "GlobalAveragePool": "adaptive_avg_pool2d", "GlobalMaxPool": "adaptive_max_pool2d",
    "BatchNormalization": "batch_norm", "LayerNormalization": "layer_norm",
    "SimplifiedLayerNormalization": "rms_norm", "InstanceNormalization": "group_norm", "GroupNorm": "group_norm",
    "Softmax": "softmax", "LogSoftmax": "log_softmax", "Relu": "relu", "LeakyRelu": "leaky_relu",
    "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSigmoid": "hardsigmoid", "HardSwish": "hardswish",
    "QuickGelu": "silu", "Gelu": "gelu", "BiasGelu": "gelu", "FastGelu": "gelu", "Elu": "elu", "Selu": "selu",
    "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish", "PRelu": "prelu", "Clip": "hardtanh",
    "Erf": "erf", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Neg": "neg", "Abs": "abs", "Pow": "pow",
    "Floor": "floor", "Reciprocal": "reciprocal", "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div",
    "Sum": "add", "Max": "maximum", "Min": "minimum", "Where": "where", "Equal": "eq", "Concat": "cat",
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "Resize": "upsample", "Upsample": "upsample",
    "Transpose": "clone", "ReorderInput": "clone", "ReorderOutput": "clone", "Slice": "clone", "Split": "clone",
    "Expand": "clone", "Pad": "constant_pad_nd", "Gather": "embedding", "Einsum": "einsum", "Cast": "clone",
    "DepthToSpace": "clone", "Trilu": "tril",
}  # fmt: skip
_RESIZED = {"linear": "bilinear", "cubic": "bicubic"}
_DTYPES = {"float": "float32", "double": "float64", "bfloat16": "bfloat16", "float16": "float16", "bool": "bool"}
_NAMES: Mapping[str, tuple[str, ...]] = {
    "conv2d": ("input", "weight", "bias"), "conv_transpose2d": ("input", "weight", "bias"),
    "linear": ("input", "weight", "bias"), "matmul": ("self", "other"),
    "batch_norm": ("input", "weight", "bias", "running_mean", "running_var"), "layer_norm": ("input", "weight", "bias"),
    "group_norm": ("input", "weight", "bias"), "embedding": ("weight", "indices"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the optimised graph, with the descriptions of its tensors."""

    name: str
    kind: str  # ONNX operator
    blocked: bool  # whether it runs in the blocked layout
    inputs: tuple[TensorSpec, ...]  # optional ones that are absent in the graph are absent here
    outputs: tuple[TensorSpec, ...]
    attributes: Mapping[str, Any]


def dtype_of(onnx_name: str) -> str:
    """hwcost's name of an ONNX element type."""
    return _DTYPES.get(onnx_name, onnx_name)


def kernel_of(node: Node) -> Kernel | None:
    """The kernel that runs a node; None where it moves no data."""
    if node.kind in FREE:
        return None
    kind = _kind(node)
    names = _NAMES.get(kind, ())
    layout = "nchwc" if node.blocked else "contiguous"
    inputs = [
        replace(t, name=names[i] if i < len(names) else "self" if i == 0 else "other", layout=_layout(t, layout))
        for i, t in enumerate(node.inputs)
    ]
    outputs = tuple(replace(t, name="out", layout=layout) for t in node.outputs)
    if node.kind == "ReorderInput":
        inputs[0] = replace(inputs[0], layout="contiguous")
    elif node.kind == "ReorderOutput":
        outputs = tuple(replace(t, layout="contiguous") for t in outputs)
    if kind == "conv2d":
        return _fused(node, inputs, outputs)
    if node.kind == "SkipLayerNormalization":
        return _skip(inputs, outputs)
    return Kernel((OpSpec(kind, tuple(inputs), outputs, _params(node, kind)),))


def _kind(node: Node) -> str:
    """The kind of traced op that a node is described by; of several ops, the main one."""
    if node.kind == "Conv" or node.kind == "FusedConv":
        return f"conv{len(node.outputs[0].shape) - 2}d"
    if node.kind in ("Gemm", "MatMul") and len(node.inputs) > 1 and not node.inputs[1].weight:
        return "matmul"
    if node.kind in ("Resize", "Upsample"):
        mode = node.attributes.get("mode", b"nearest").decode()
        return f"upsample_{_RESIZED.get(mode, mode)}2d"
    return _KINDS.get(node.kind, f"onnx.{node.kind}")


def _layout(tensor: TensorSpec, layout: str) -> str:
    """The layout of an input of a node whose feature maps have `layout`: only tensors of four axes can be in blocks."""
    return layout if len(tensor.shape) == 4 else "contiguous"


def _fused(node: Node, inputs: Sequence[TensorSpec], outputs: tuple[TensorSpec, ...]) -> Kernel:
    """A convolution with the addition and the activation that were fused into it."""
    tails: list[tuple[str, tuple[TensorSpec, ...]]] = []
    if len(inputs) > 3:
        tails.append(("add", (replace(inputs[3], name="other"),)))
    activation = node.attributes.get("activation", b"").decode()
    if activation:
        tails.append((_KINDS.get(activation, f"onnx.{activation}"), ()))
    specs = [OpSpec("conv2d", tuple(inputs[:3]), outputs, _params(node, "conv2d"))]
    for kind, others in tails:
        inner = tuple(replace(t, internal=True) for t in outputs)
        specs[-1] = replace(specs[-1], outputs=inner)
        into = (replace(inner[0], name="self"), *others)
        specs.append(OpSpec(kind, into, outputs))
    return Kernel(tuple(specs))


def _skip(inputs: Sequence[TensorSpec], outputs: tuple[TensorSpec, ...]) -> Kernel:
    """An addition and the layer norm of its result. The sum is written to memory only where the node outputs it too."""
    x, other = (replace(t, name=name) for t, name in zip(inputs, ("self", "other"), strict=False))
    total = outputs[-1] if len(outputs) > 1 else replace(outputs[0], internal=True)
    inner = replace(total, name="input", internal=True)
    names = ("weight", "bias")
    affine = tuple(replace(t, name=name) for t, name in zip(inputs[2:4], names, strict=False))
    return Kernel((OpSpec("add", (x, other), (total,)), OpSpec("layer_norm", (inner, *affine), outputs[:1])))


def _params(node: Node, kind: str) -> tuple[tuple[str, Param], ...]:
    """The parameters of a traced op of that kind, sorted by name. Of convolutions and pools, defaults are left out."""
    attributes, found = node.attributes, dict[str, Param]()
    if kind in ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d"):
        pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
        found = {
            "stride": tuple(attributes.get("strides", (1, 1))),
            "padding": pads[: len(pads) // 2],
            "dilation": tuple(attributes.get("dilations", (1, 1))),
            "groups": attributes.get("group", 1),
        }
        plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        found = {k: v for k, v in found.items() if v != plain[k]}
        if kind.endswith("pool2d"):
            found["kernel_size"] = tuple(attributes.get("kernel_shape", ()))
    elif node.kind == "Transpose":
        found["perm"] = tuple(attributes.get("perm", ()))
    elif kind == "einsum":
        equation = attributes.get("equation", "")
        found["equation"] = equation.decode() if isinstance(equation, bytes) else equation
    elif kind in ("softmax", "cat"):
        found["dim"] = attributes.get("axis", -1)
    return tuple(sorted(found.items()))
