"""Loading an ONNX file without the data of its weights, and the descriptions of its inputs and weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from hwcost.foreign import one_line
from hwcost.graph import TensorSpec

_DTYPES = {  # by number of onnx.TensorProto.DataType
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn",
    18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 24: "float8_e8m0fnu",
}  # fmt: skip
# Numbers of less than a byte: several lie in one. Their dtype is that of the bytes.
_PACKED = {21: ("uint8", 2), 22: ("int8", 2), 23: ("uint8", 2), 25: ("uint8", 4), 26: ("int8", 4)}
_STRING = 8
# Domains of the operators that are known: ONNX's own, then those of ONNX Runtime.
OUR_DOMAINS = ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
SMALL = 64  # elements of a tensor whose data is read: sizes, axes and bounds have fewer


class OnnxError(ValueError):
    """An ONNX file that cannot be counted."""


def load(path: str | Path) -> Any:
    """The model of a file; of weights, only the data of small ones is kept.

    Raises:
        OnnxError: the package onnx is missing, or the file is missing or no ONNX model.
    """
    try:
        import onnx
    except ImportError as error:
        raise OnnxError("an .onnx target needs the package onnx; install hwcost[onnx]") from error
    if not Path(path).is_file():
        raise OnnxError(f"{path} does not exist; give the path of an .onnx file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise OnnxError(
            f"{path} must be an ONNX model, but could not be read ({one_line(error) or type(error).__name__})"
        ) from error
    if not model.graph.node:
        raise OnnxError(f"{path} must be an ONNX model, but holds no node")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _fetch(onnx, tensor, Path(path).parent)
        elif prod(tensor.dims) > SMALL and tensor.data_type not in (6, 7):  # whole numbers may be sizes
            for field in ("raw_data", "float_data", "double_data", "int32_data"):
                tensor.ClearField(field)
    for sparse in model.graph.sparse_initializer:
        model.graph.initializer.add().CopyFrom(without_data(sparse))
    del model.graph.sparse_initializer[:]
    return model


def without_data(sparse: Any) -> Any:
    """A sparse tensor as a dense one without data; all of its elements count."""
    return type(sparse.values)(name=sparse.values.name, dims=sparse.dims, data_type=sparse.values.data_type)


def weights_of(graph: Any) -> set[str]:
    """The names of the weights of a graph: its initialisers, and its constants of several numbers that differ."""
    import onnx

    found = {w.name for w in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            if tensor.dims and (onnx.numpy_helper.to_array(tensor) != onnx.numpy_helper.to_array(tensor).flat[0]).any():
                found.add(node.output[0])
    return found


def _fetch(onnx: Any, tensor: Any, folder: Path) -> None:
    """Read the data of a small tensor that lies in another file, where that file is there."""
    if prod(tensor.dims) > SMALL:
        return
    try:
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = onnx.TensorProto.DEFAULT
    except Exception as error:
        if tensor.data_type in (6, 7):  # whole numbers may be sizes, which shapes follow from
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "another file")
            raise OnnxError(
                f"{tensor.name} may hold sizes and lies in {place}, which cannot be read; put it beside the .onnx file"
            ) from error


def dtype_of(number: int, shape: tuple[int, ...]) -> tuple[str, int] | str:
    """The dtype of that number of onnx.TensorProto.DataType, and how many of the elements share a byte with another.

    A text, which says what is wrong, where it is no dtype of numbers that is known here.
    """
    if number in _DTYPES:
        return _DTYPES[number], 0
    if number in _PACKED:
        dtype, each = _PACKED[number]
        return dtype, prod(shape) - -(-prod(shape) // each)
    if number == _STRING:
        return "holds text, and only tensors of numbers are counted; cut the part of the network off that reads text"
    return f"has dtype number {number} of ONNX, which is not known here; convert the file to a dtype such as float32"


def weight_of(tensor: Any) -> TensorSpec | str:
    """The description of an initialiser or a constant, or a text, which says why there is none."""
    shape = tuple(tensor.dims)
    dtype = dtype_of(tensor.data_type, shape)
    return dtype if isinstance(dtype, str) else TensorSpec("", shape, dtype[0], weight=True, overlapping=dtype[1])


def tensor_of(value: Any) -> TensorSpec | str | None:
    """The description of a value; None where its shape is not known; a text where it is no tensor of numbers."""
    kind = value.type.WhichOneof("value")
    if kind not in (None, "tensor_type"):
        return f"is a {kind.removesuffix('_type')}, and only tensors are counted; export the network without it"
    found = value.type.tensor_type
    if not found.HasField("shape") or not all(d.HasField("dim_value") for d in found.shape.dim):
        return None
    shape = tuple(d.dim_value for d in found.shape.dim)
    dtype = dtype_of(found.elem_type, shape) if found.elem_type else None
    if dtype is None or isinstance(dtype, str):
        return dtype
    return TensorSpec("", shape, dtype[0], overlapping=dtype[1])


# -- the sizes of inputs -------------------------------------------------------------------------------


def set_inputs(model: Any, shapes: Sequence[Sequence[int]]) -> None:
    """Write the given shapes into the model's inputs, and sizes that they name into the rest of the model.

    Raises:
        OnnxError: their number or axes do not fit, one size has two values, or a size stays open.
    """
    weights = {w.name for w in model.graph.initializer}
    free = [i for i in model.graph.input if i.name not in weights]
    if shapes and len(shapes) != len(free):
        raise OnnxError(
            f"the file has {len(free)} inputs ({', '.join(i.name for i in free)}), but {len(shapes)} were given"
        )
    named: dict[str, int] = {}
    for value, shape in zip(free, shapes, strict=False):
        _set_shape(value, tuple(shape), named)
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
            elif dim.dim_value < 0:  # as some exporters write an open size
                dim.ClearField("dim_value")
    for value in free:
        described = tensor_of(value)
        if isinstance(described, str):
            raise OnnxError(f"input {value.name} {described}")
        kind = value.type.tensor_type
        if not kind.HasField("shape") or any(d.dim_value <= 0 for d in kind.shape.dim):
            raise OnnxError(f"input {value.name} leaves a size open; give it with --input 1x3x224x224")


def _set_shape(value: Any, shape: tuple[int, ...], named: dict[str, int]) -> None:
    """Write a shape into an input; `named` maps the names of open sizes to their values so far."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        for _ in shape:
            kind.shape.dim.add()
    dims = kind.shape.dim
    if len(dims) != len(shape):
        raise OnnxError(f"input {value.name} has {len(dims)} axes, but {shape} was given")
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if dim.dim_value > 0 and dim.dim_value != size:
            raise OnnxError(
                f"input {value.name} has size {dim.dim_value} along axis {axis}, which the file fixes, but {size} was "
                "given; give that size, or export with it left open"
            )
        name = dim.dim_param
        if name and named.setdefault(name, size) != size:
            raise OnnxError(f"size {name} of input {value.name} must be {named[name]} as in another input, not {size}")
        dim.dim_value = size
