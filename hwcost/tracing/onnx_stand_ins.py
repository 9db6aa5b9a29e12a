"""Shapes of the nodes that only ONNX Runtime knows (domain com.microsoft), by standard nodes that stand in for them.

A model that ONNX Runtime has optimised or quantised holds such nodes, and no shapes. ONNX's shape inference knows
neither, so each is replaced by a standard node whose output has the same shape, while shapes are inferred.
"""

from __future__ import annotations

from typing import Any

from hwcost.tracing.onnx_inputs import OUR_DOMAINS

_LONG = 1 << 24  # elements of a vector
_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "group", "kernel_shape", "pads", "strides")
# By type: the standard type, which inputs it gets, and the attributes that it keeps.
_STAND_INS: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
    "Conv": ("Conv", (0, 1, 2), _WINDOW),
    "FusedConv": ("Conv", (0, 1, 2), _WINDOW),
    "QGemm": ("Gemm", (0, 3), ("transA", "transB")),
    "FusedGemm": ("Gemm", (0, 1, 2), ("transA", "transB")),
    "QLinearAdd": ("Add", (0, 3), ()),
    "QLinearMul": ("Mul", (0, 3), ()),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1), ()),
    "EmbedLayerNormalization": ("Gather", (2, 0), ()),
    "MaxPool": ("MaxPool", (0,), _WINDOW),
    "AveragePool": ("AveragePool", (0,), _WINDOW),
    "QLinearAveragePool": ("AveragePool", (0,), _WINDOW),
    "GlobalMaxPool": ("GlobalMaxPool", (0,), ()),
    "GlobalAveragePool": ("GlobalAveragePool", (0,), ()),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), ()),
} | dict.fromkeys(
    ("Attention", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "GroupQueryAttention", "MultiHeadAttention",
     "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QuickGelu", "ReorderInput", "RotaryEmbedding",
     "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
    ("Identity", (0,), ()),
)  # fmt: skip


def infer(model: Any) -> Any:
    """The model with the shapes that ONNX's inference finds, stand-ins included."""
    import onnx

    own = [type(node).FromString(node.SerializeToString()) for node in model.graph.node]
    weights = len(model.graph.initializer)
    for node in model.graph.node:
        if node.domain in OUR_DOMAINS[2:] or node.op_type == "SimplifiedLayerNormalization":
            _stand_in(node, model.graph)
    model = onnx.shape_inference.infer_shapes(model)
    if not _holds_long_vector(model.graph):  # which ONNX would take for a shape and write out, number by number
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.node[:]
    model.graph.node.extend(own)
    del model.graph.initializer[weights:]
    return model


def _holds_long_vector(graph: Any) -> bool:
    kinds = (value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output))
    return any(len(kind.shape.dim) == 1 and kind.shape.dim[0].dim_value > _LONG for kind in kinds)


def _stand_in(node: Any, graph: Any) -> None:
    """Turn a node into a standard one whose first output has the same shape, where one is known."""
    attributes = {a.name: a for a in node.attribute}
    if node.op_type in ("FusedMatMul", "TransposeMatMul"):
        left = _indices("ij", _set(attributes, "transA"), _set(attributes, "transBatchA"))
        right = _indices("jk", _set(attributes, "transB"), _set(attributes, "transBatchB"))
        _become(node, "Einsum", (0, 1), [_equation(f"{left},{right}->...ik")])
    elif node.op_type == "MatMulNBits":
        node.input[1] = _weight(graph, node, (attributes["K"].i, attributes["N"].i))
        _become(node, "MatMul", (0, 1), [])
    elif node.op_type == "ReorderOutput" and not _set(attributes, "channels_last"):
        node.input.append(_weight(graph, node, (attributes["channels"].i, 1, 1, 1)))
        _become(node, "Conv", (0, 1), [])
    elif node.op_type in _STAND_INS:
        kind, inputs, kept = _STAND_INS[node.op_type]
        _become(node, kind, inputs, [attributes[name] for name in kept if name in attributes])


def _become(node: Any, kind: str, inputs: tuple[int, ...], attributes: list[Any]) -> None:
    """Change the type, the inputs and the attributes of a node, and keep its first output alone."""
    node.op_type, node.domain = kind, ""
    node.input[:] = [node.input[i] for i in inputs if i < len(node.input)]
    del node.output[1:]
    kept = [type(a).FromString(a.SerializeToString()) for a in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)


def _set(attributes: dict[str, Any], name: str) -> bool:
    return name in attributes and bool(attributes[name].i)


def _indices(pair: str, turned: bool, first: bool) -> str:
    """Indices of an operand of a product: its last two axes may be swapped, and the first of them stand before all."""
    a, b = (pair[1], pair[0]) if turned else (pair[0], pair[1])
    return f"{a}...{b}" if first else f"...{a}{b}"


def _equation(text: str) -> Any:
    import onnx

    return onnx.helper.make_attribute("equation", text)


def _weight(graph: Any, node: Any, shape: tuple[int, ...]) -> str:
    """Add a weight of that shape without data, for a stand-in; returns its name."""
    name = f"{node.output[0]}#stand-in"
    graph.initializer.add(name=name, dims=shape, data_type=1)
    return name
