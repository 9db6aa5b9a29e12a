"""Constant folding of the arithmetic on shapes in an ONNX model.

Exporters write sizes as chains of small nodes (Shape, Gather, Mod, Concat) that lead to a Reshape or a Slice, and
ONNX's shape inference follows only some of them. Each node whose result follows from constants and known shapes is
replaced by that result here.
"""

from __future__ import annotations

from math import prod
from typing import Any

from hwcost.tracing.onnx_inputs import SMALL, without_data
from hwcost.tracing.onnx_stand_ins import infer

# Kinds of nodes whose result has no more elements than the product of their operands' sizes.
_ARITHMETIC = """
    Abs Add And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr Cast CastLike Ceil Clip Concat Cos CumSum Div
    Equal Exp Flatten Floor Gather GatherElements GatherND Greater GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual
    Log Max Mean Min Mod Mul Neg NonZero Not Or Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu
    Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size Slice Split Sqrt Squeeze Sub Sum TopK Transpose
    Trilu Unsqueeze Where Xor
"""
_GROWING = ("ConstantOfShape", "Expand", "Tile")  # the last operand tells the size of the result
_RESULT = 1 << 16  # elements of a result, at most
_FLOATS = 8  # elements of a folded floating-point result: scales have fewer, and weights are not to be folded


def unsettled(model: Any) -> bool:
    """Whether the shape of any value that a node writes is missing, in whole or in part."""
    known = _shapes(model.graph)
    return any(name and name not in known for node in model.graph.node for name in node.output)


def settle(model: Any) -> Any:
    """The model with shapes inferred and constants folded, in turns, until nothing changes."""
    nodes = -1
    while len(model.graph.node) != nodes:
        nodes = len(model.graph.node)
        model = infer(model)
        _fold(model.graph)
    return model


def constants(graph: Any) -> dict[str, Any]:
    """What the small initialisers of a graph hold, arrays by name; those whose data is not there are left out."""
    found = {}
    for weight in graph.initializer:
        if prod(weight.dims) <= SMALL:
            value = _array(weight)
            if value is not None:
                found[weight.name] = value
    return found


def _constant(attribute: Any) -> Any:
    """The tensor that a Constant node holds in one of the forms that its attribute can have."""
    import numpy as np
    import onnx

    if attribute.name == "value":
        return attribute.t
    if attribute.name == "sparse_value":
        return without_data(attribute.sparse_tensor)
    value = onnx.helper.get_attribute_value(attribute)
    dtypes = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if attribute.name in dtypes:
        return onnx.numpy_helper.from_array(np.asarray(value, dtypes[attribute.name]))
    shape = [] if attribute.name == "value_string" else [len(value)]
    return onnx.TensorProto(dims=shape, data_type=onnx.TensorProto.STRING)


def _array(tensor: Any) -> Any:
    """What a tensor holds, None where its data is not there."""
    import onnx

    try:
        return onnx.numpy_helper.to_array(tensor)
    except Exception:  # the data lies in a file that is missing, or has a dtype that numpy has not
        return None


def _fold(graph: Any) -> None:
    """Replace nodes whose result is known and small by initialisers, in place."""
    import onnx

    values = constants(graph)
    shapes, kept = _shapes(graph), []
    for node in graph.node:
        if node.op_type == "Constant":
            graph.initializer.add().CopyFrom(_constant(node.attribute[0]))
            graph.initializer[-1].name = node.output[0]
            continue
        result = _value(node, values, shapes)
        # What is too large to be arithmetic on shapes stays a node of the network.
        if result is None or result.size > (_FLOATS if result.dtype.kind == "f" else SMALL):
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


def _is_small(node: Any, operands: list[Any]) -> bool:
    """Whether a node is arithmetic on shapes whose result stays small: a file may ask for one larger than the memory,
    or for a loop that never ends."""
    if node.op_type in _ARITHMETIC.split():
        return node.op_type in ("Shape", "Size") or prod(max(x.size, 1) for x in operands) <= _RESULT
    if node.op_type in _GROWING and operands:
        by = [abs(float(x)) for x in operands[-1].reshape(-1) if x]
        return bool(prod(by) * max(x.size for x in operands) <= _RESULT)
    if node.op_type == "Range" and len(operands) == 3:
        start, limit, step = (float(x.reshape(-1)[0]) for x in operands)
        return step != 0 and abs((limit - start) / step) <= _RESULT
    return False


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
    if not _is_small(node, list(feeds.values())):
        return None
    try:
        reference: Any = ReferenceEvaluator(node)
        return np.asarray(reference.run(None, feeds)[0])
    except Exception:  # ONNX has no reference implementation of this op: the node stays, and is counted
        return None
