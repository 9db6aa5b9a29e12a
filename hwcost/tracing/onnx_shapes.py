"""Constant folding of the arithmetic on shapes in an ONNX model.

Exporters write sizes as chains of small nodes (Shape, Gather, Mod, Concat) that lead to a Reshape or a Slice, and
ONNX's shape inference follows only some of them. Each node whose result follows from constants and known shapes is
replaced by that result here.
"""

from __future__ import annotations

from math import prod
from typing import Any

_LIMIT = 64  # elements of a folded integer result: sizes and axes have fewer
_FLOATS = 8  # elements of a folded floating-point result: scales have fewer, and weights are not to be folded


def unsettled(model: Any) -> bool:
    """Whether the shape of any value that a node writes is missing, in whole or in part."""
    known = _shapes(model.graph)
    return any(name and name not in known for node in model.graph.node for name in node.output)


def settle(model: Any) -> Any:
    """The model with shapes inferred and constants folded, in turns, until no shape is missing or nothing changes."""
    import onnx

    nodes = -1
    while unsettled(model) and len(model.graph.node) != nodes:
        nodes = len(model.graph.node)
        _fold(model.graph)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return model


def _fold(graph: Any) -> None:
    """Replace nodes whose result is known and small by initialisers, in place."""
    import onnx

    values = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer if prod(w.dims) <= _LIMIT}
    shapes, kept = _shapes(graph), []
    for node in graph.node:
        result = _value(node, values, shapes)
        # What is too large to be arithmetic on shapes stays a node of the network.
        if result is None or result.size > (_FLOATS if result.dtype.kind == "f" else _LIMIT):
            kept.append(node)
        else:
            values[node.output[0]] = result
            graph.initializer.append(onnx.numpy_helper.from_array(result, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """The shapes that are known completely, by name of the value."""
    kinds = {v.name: v.type.tensor_type for v in (*graph.input, *graph.value_info, *graph.output)}
    return {
        name: tuple(d.dim_value for d in kind.shape.dim)
        for name, kind in kinds.items()
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim)
    }


def _value(node: Any, values: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Any:
    """The result of a node, an array; None where its operands are not known."""
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    feeds: dict[str, Any]
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        feeds = {node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])}
    elif len(node.output) == 1 and all(name in values for name in node.input if name):
        feeds = {name: values[name] for name in node.input if name}
    else:
        return None
    try:
        reference: Any = ReferenceEvaluator(node)
        return np.asarray(reference.run(None, feeds)[0])
    except Exception:  # ONNX has no reference implementation of this op: the node stays, and is counted
        return None
