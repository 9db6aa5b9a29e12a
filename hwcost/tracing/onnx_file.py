"""From an ONNX file to a Graph, counted by the rules that count a torch module.

A node becomes an op of the kind that it corresponds to: "Conv" becomes "conv2d". A node without a counterpart gets its
own name, as "onnx.NonMaxSuppression", and is reported as uncounted where no rule has that name. Shapes come from
ONNX's shape inference; the caller gives the sizes that a file leaves open. Initialisers count as weights.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwcost.cost import Cost
from hwcost.graph import Graph, Life, Op, OpSpec, Param, TensorSpec
from hwcost.rules.registry import cost_of
from hwcost.tracing.onnx_shapes import settle, unsettled

_DTYPES = {  # by number of onnx.TensorProto.DataType
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size")
_KINDS = {  # by op type; `_kind` has the rest: convolutions, pooling, views, Gemm, Resize
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Sqrt": "sqrt", "Exp": "exp", "Log": "log",
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf", "Gelu": "gelu", "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Celu": "celu",
    "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish", "PRelu": "prelu", "Clip": "clamp", "Neg": "neg",
    "Abs": "abs", "Reciprocal": "reciprocal", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign",
    "Sin": "sin", "Cos": "cos", "Max": "maximum", "Min": "minimum", "Mod": "remainder", "Equal": "eq", "Less": "lt",
    "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge", "Not": "logical_not", "And": "logical_and",
    "Or": "logical_or", "Where": "where", "Softmax": "softmax", "LogSoftmax": "log_softmax", "MatMul": "matmul",
    "IsNaN": "isnan", "Cast": "_to_copy", "Concat": "cat", "Transpose": "permute_copy", "Slice": "slice_copy",
    "Split": "split_copy", "Gather": "index_select", "GatherElements": "gather", "GatherND": "index", "Pad": "pad",
    "Expand": "expand_copy", "Tile": "tile", "DepthToSpace": "pixel_shuffle", "SpaceToDepth": "pixel_unshuffle",
    "BatchNormalization": "batch_norm", "InstanceNormalization": "instance_norm", "LayerNormalization": "layer_norm",
    "GroupNormalization": "group_norm", "RMSNormalization": "rms_norm", "GlobalAveragePool": "adaptive_avg_pool2d",
    "GlobalMaxPool": "adaptive_max_pool2d", "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax",
    "ReduceMin": "amin", "ReduceProd": "prod", "ReduceL2": "linalg_vector_norm", "ArgMax": "argmax",
    "ArgMin": "argmin", "CumSum": "cumsum", "TopK": "topk", "Range": "arange", "ConstantOfShape": "full",
    "Einsum": "einsum", "QuantizeLinear": "quantize_per_tensor", "DequantizeLinear": "dequantize",
    "ScatterND": "index_put", "ScatterElements": "scatter", "NonZero": "nonzero", "OneHot": "one_hot",
    "GridSample": "grid_sampler", "Trilu": "tril", "Sum": "add", "EyeLike": "eye", "MatMulInteger": "matmul",
}  # fmt: skip
_NAMES = {  # of the inputs, where they are not "self" and "other"
    "Conv": ("input", "weight", "bias"), "ConvTranspose": ("input", "weight", "bias"),
    "ConvInteger": ("input", "weight"),
    "BatchNormalization": ("input", "weight", "bias", "running_mean", "running_var"),
    "LayerNormalization": ("input", "weight", "bias"), "GroupNormalization": ("input", "weight", "bias"),
    "Gather": ("self", "index"), "GatherElements": ("self", "index"), "Gemm": ("mat1", "mat2", "self"),
}  # fmt: skip
_RESIZE = {"nearest": "upsample_nearest2d", "linear": "upsample_bilinear2d", "cubic": "upsample_bicubic2d"}


class OnnxError(ValueError):
    """An ONNX file that cannot be counted."""


def onnx_graph(path: str | Path, inputs: Sequence[Sequence[int]] = ()) -> Graph:
    """The graph of the network in an ONNX file.

    Args:
        path: the file.
        inputs: shape of each input, in order; needed where the file leaves a size open.

    Raises:
        OnnxError: there is no such file, it is no ONNX model, the size of an input is open, or shape inference does
            not find the shape of a value.
    """
    try:
        import onnx
    except ImportError as error:
        raise OnnxError("an .onnx target needs the package onnx; install hwcost[onnx]") from error
    if not Path(path).is_file():
        raise OnnxError(f"{path} does not exist; give the path of an .onnx file")
    try:
        model = onnx.load(str(path))
        if not model.graph.node:
            raise OnnxError(f"{path} must be an ONNX model, but holds no node")
        _set_inputs(model, inputs)
        model = _infer(onnx.shape_inference.infer_shapes(model, data_prop=True))
    except OnnxError:
        raise
    except Exception as error:
        raise OnnxError(
            f"{path} must be an ONNX model, but could not be read ({str(error).splitlines()[0]})"
        ) from error
    return _Reader(model.graph, str(path)).graph()


def _infer(model: Any) -> Any:
    """The model with the shapes that follow from sizes which the network computes.

    Constants are folded first; ONNX Runtime's symbolic inference is asked for what is missing then, if installed.
    """
    model = settle(model)
    if not unsettled(model):
        return model
    try:
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
    except ImportError:
        return model  # the reader names the first shape that is missing
    left_behind = Path("sym_shape_infer_temp.onnx")  # what it writes into the working folder where it gives up
    was_there = left_behind.exists()
    try:
        return SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    finally:
        if not was_there:
            left_behind.unlink(missing_ok=True)


def _set_inputs(model: Any, shapes: Sequence[Sequence[int]]) -> None:
    """Write the given shapes into the model's inputs.

    Raises:
        OnnxError: their number or axes do not fit, or a size stays open.
    """
    weights = {w.name for w in model.graph.initializer}
    free = [i for i in model.graph.input if i.name not in weights]
    if shapes and len(shapes) != len(free):
        raise OnnxError(
            f"the file has {len(free)} inputs ({', '.join(i.name for i in free)}), but {len(shapes)} were given"
        )
    for value, shape in zip(free, shapes, strict=False):
        dims = value.type.tensor_type.shape.dim
        if len(dims) != len(shape):
            raise OnnxError(f"input {value.name} has {len(dims)} axes, but {tuple(shape)} was given")
        for dim, size in zip(dims, shape, strict=True):
            dim.dim_value = size
    for value in free:
        if any(not d.dim_value for d in value.type.tensor_type.shape.dim):
            raise OnnxError(f"input {value.name} leaves a size open; give it with --input 1x3x224x224")


class _Reader:
    """Makes a graph in one pass over the nodes of a model."""

    def __init__(self, graph: Any, path: str) -> None:
        self._graph, self._path = graph, path
        self._weights = {
            w.name: TensorSpec("", tuple(w.dims), _DTYPES.get(w.data_type, "float32"), True) for w in graph.initializer
        }
        self._shapes: dict[str, TensorSpec] = dict(self._weights)
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            if value.name not in self._shapes and all(d.HasField("dim_value") for d in kind.shape.dim):
                shape = tuple(d.dim_value for d in kind.shape.dim)
                self._shapes[value.name] = TensorSpec("", shape, _DTYPES.get(kind.elem_type, "float32"))
        self._numbers: dict[str, int] = {}  # of values, by name
        self._homes: dict[str, str] = {}  # from the name of a view to that of the value whose memory it shares
        self._ops: list[Op] = []

    def graph(self) -> Graph:
        """The graph of all nodes."""
        for node in self._graph.node:
            if node.op_type == "Constant":
                self._constant(node)
            else:
                self._ops.append(self._op(node))
        inputs = [i.name for i in self._graph.input if i.name not in self._weights]
        real = [w for w in self._weights.values() if "float" in w.dtype]
        return Graph(
            ops=tuple(self._ops),
            inputs=tuple(replace(self._shapes[name], name="input") for name in inputs),
            input_values=tuple(self._number(name) for name in inputs),
            output_values=tuple(self._number(o.name) for o in self._graph.output),
            params=sum(w.numel for w in real),
            weight_bytes=sum(w.bytes for w in self._weights.values()),
            lives=self._lives(inputs),
            notes=(f"read from {Path(self._path).name}; batch norm's statistics count as parameters there",),
        )

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _constant(self, node: Any) -> None:
        """Enter the value of a Constant node as a weight."""
        for attribute in node.attribute:
            if attribute.name == "value":
                shape, dtype = tuple(attribute.t.dims), _DTYPES.get(attribute.t.data_type, "float32")
                self._weights[node.output[0]] = self._shapes[node.output[0]] = TensorSpec("", shape, dtype, True)
            else:
                self._shapes[node.output[0]] = TensorSpec("", (), "int64", True)

    def _op(self, node: Any) -> Op:
        read = [name for name in node.input if name]  # "" is an optional input that is left out
        written = [name for name in node.output if name]
        missing = [name for name in (*read, *written) if name not in self._shapes]
        if missing:
            raise OnnxError(
                f"{node.op_type} {node.name or written[0]}: the shape of {missing[0]} does not follow from the inputs; "
                "give every input size, or export with static shapes"
            )
        spec = self._spec(node, [self._shapes[n] for n in read], [self._shapes[n] for n in written])
        cost, state, reason = cost_of(spec)
        if node.op_type in _VIEWS:
            cost, state, reason = Cost(), "free", "a view: no data moves"
            self._homes.update(dict.fromkeys(written, self._homes.get(read[0], read[0])))
        reads = tuple(self._number(name) for name in read)
        # `_taken_apart` gives a recurrent layer more inputs than its node has: all get the number of x.
        if len(reads) != len(spec.inputs):
            reads = tuple(self._number(read[0]) for _ in spec.inputs)
        writes = tuple(self._number(name) for name in written)
        return Op(f"onnx.{node.op_type}", spec, _module(node), reads, writes, cost, state, reason)

    def _spec(self, node: Any, read: list[TensorSpec], written: list[TensorSpec]) -> OpSpec:
        names = _NAMES.get(node.op_type, ("self",))
        inputs = tuple(replace(t, name=names[i] if i < len(names) else "other") for i, t in enumerate(read))
        outputs = tuple(replace(t, name=f"out{i}" if i else "out") for i, t in enumerate(written))
        settings = {a.name: _attribute(a) for a in node.attribute}
        if node.op_type in ("LSTM", "GRU", "RNN"):
            return OpSpec(_recurrent(node.op_type), _taken_apart(inputs, settings), outputs)
        kind, params = _kind(node.op_type, inputs, settings)
        return OpSpec(kind, inputs, outputs, tuple(sorted(params.items())))

    def _lives(self, inputs: list[str]) -> tuple[Life, ...]:
        """Lives of all activations: from the op that writes one to the last op that reads it or a view of it."""
        end = max(len(self._ops) - 1, 0)
        names = {number: name for name, number in self._numbers.items()}
        born = dict.fromkeys(inputs, -1)
        dies = dict.fromkeys((self._homes.get(o.name, o.name) for o in self._graph.output), end)
        for i, op in enumerate(self._ops):
            for value in (*op.reads, *op.writes):
                home = self._homes.get(names[value], names[value])
                if home not in self._weights:
                    born.setdefault(home, i)
                    dies[home] = max(i, dies.get(home, i))
        dies.update(dict.fromkeys(inputs, end))
        return tuple(
            Life(self._shapes[name].bytes, born.get(name, 0), at) for name, at in dies.items() if name in self._shapes
        )


def _attribute(attribute: Any) -> Param:
    """The value of a node's attribute; None for a tensor or a graph."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (int, float, str)):
        return value
    return tuple(value) if hasattr(value, "__iter__") else None


def _kind(op_type: str, inputs: tuple[TensorSpec, ...], settings: Mapping[str, Param]) -> tuple[str, dict[str, Param]]:
    """The kind of op that a node of another type than a recurrent layer corresponds to, and its parameters."""
    axes = len(inputs[0].shape) - 2 if inputs else 0
    names = {"stride": "strides", "dilation": "dilations", "padding": "pads"}
    window = {ours: settings[theirs] for ours, theirs in names.items() if settings.get(theirs) is not None}
    if op_type in ("Conv", "ConvInteger", "ConvTranspose"):
        kind = f"conv_transpose{axes}d" if op_type == "ConvTranspose" else f"conv{axes}d"
        groups = settings.get("group", 1)
        return kind, window if groups == 1 else window | {"groups": groups}
    if op_type in ("MaxPool", "AveragePool"):
        kind = f"max_pool{axes}d" if op_type == "MaxPool" else f"avg_pool{axes}d"
        return kind, {"kernel_size": settings.get("kernel_shape")} | window
    if op_type == "Gemm":
        return "onnx.Gemm", {k: v for k, v in settings.items() if k in ("transA", "transB")}
    if op_type == "Resize":
        return _RESIZE[str(settings.get("mode", "nearest"))], {}
    if op_type in _VIEWS:
        return "view", {}
    params = {"equation": settings["equation"]} if op_type == "Einsum" else {}
    if op_type == "Transpose":
        rank = len(inputs[0].shape) if inputs else 0
        params = {"dims": settings.get("perm", tuple(reversed(range(rank))))}
    elif op_type in ("Softmax", "LogSoftmax", "Concat"):
        params = {"dim": settings.get("axis", -1)}
    return _KINDS.get(op_type, f"onnx.{op_type}"), params


def _recurrent(op_type: str) -> str:
    return {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[op_type]


def _taken_apart(inputs: tuple[TensorSpec, ...], settings: Mapping[str, Param]) -> tuple[TensorSpec, ...]:
    """Inputs of a recurrent layer as torch has them: a matrix or vector for each direction.

    ONNX has X, W [d, g*H, I], R [d, g*H, H] and B [d, 2*g*H] of d directions and g gates.
    """
    x, *weights = inputs[:4]
    out = [replace(x, name="input")]
    for w in weights:
        out += [TensorSpec("params", w.shape[1:], w.dtype, True) for _ in range(w.shape[0])]
    return tuple(out)


def _module(node: Any) -> str:
    """Path of the torch module that a node came from: as torch's exporter notes it, or else from the node's name."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = ast.literal_eval(entry.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    path = ""
    for part in node.name.strip("/").split("/")[:-1]:
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
    return path
