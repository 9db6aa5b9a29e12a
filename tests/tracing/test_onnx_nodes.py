"""Nodes of ONNX files, counted by arithmetic that is written out, or as torch's trace counts the equal call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import hwcost

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from hwcost.graph import Graph  # noqa: E402 - after the check for onnx
from hwcost.tracing.onnx_file import OnnxError, onnx_graph  # noqa: E402

node, kinds = onnx.helper.make_node, onnx.TensorProto
Shape = tuple[Any, ...] | None
MICROSOFT = {"domain": "com.microsoft"}


def random(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape, np.float32)


def written(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    weights: Mapping[str, Any] | None = None,
    opset: int = 18,
    dtypes: Mapping[str, int] | None = None,
) -> Path:
    """A file of these nodes; inputs and outputs are float32 unless `dtypes` says otherwise."""
    of = dtypes or {}
    ins, outs = (
        [onnx.helper.make_tensor_value_info(name, of.get(name, kinds.FLOAT), shape) for name, shape in each.items()]
        for each in (inputs, outputs)
    )
    given = [
        w if isinstance(w, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(w), name)
        for name, w in (weights or {}).items()
    ]
    graph = onnx.helper.make_graph(nodes, "net", ins, outs, given)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Graph]:
    return lambda *model, **more: onnx_graph(written(tmp_path / "net.onnx", *model, **more))


class Does(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        """The function of the inputs."""
        return self.function(*inputs)


X, SIGNAL, VOLUME = (2, 8, 6, 6), (2, 8, 6), (1, 2, 4, 4, 4)
SCALES = {n: np.array([1, 1] + [2] * n, np.float32) for n in (1, 2, 3)}
Case = tuple[list[Any], dict[str, Shape], dict[str, Any], int, nn.Module]
AS_IN_TORCH: dict[str, Case] = {
    "instance norm": (
        [node("InstanceNormalization", ["x", "s", "b"], ["y"])], {"x": X}, {"s": random(8), "b": random(8)}, 18,
        nn.InstanceNorm2d(8, affine=True)),
    "norm by root mean square": (
        [node("RMSNormalization", ["x", "s"], ["y"])], {"x": (2, 4, 8)}, {"s": random(8)}, 23, nn.RMSNorm(8)),
    "gelu by tanh": ([node("Gelu", ["x"], ["y"], approximate="tanh")], {"x": X}, {}, 20, nn.GELU("tanh")),
    "gelu": ([node("Gelu", ["x"], ["y"])], {"x": X}, {}, 20, nn.GELU()),
    **{
        f"grid sampled, {mode}": (
            [node("GridSample", ["x", "g"], ["y"], mode=mode)], {"x": X, "g": (2, 3, 3, 2)}, {}, 20,
            Does(lambda x, g, theirs=theirs: F.grid_sample(x, g, mode=theirs, align_corners=False)))
        for mode, theirs in (("linear", "bilinear"), ("nearest", "nearest"), ("cubic", "bicubic"))
    },
    **{
        f"resized, {theirs}": (
            [node("Resize", ["x", "", "s"], ["y"], mode=mode)], {"x": shape}, {"s": SCALES[len(shape) - 2]}, 18,
            nn.Upsample(scale_factor=2, mode=theirs))
        for shape, mode, theirs in (
            (X, "nearest", "nearest"), (X, "linear", "bilinear"), (X, "cubic", "bicubic"), (SIGNAL, "linear", "linear"),
            (SIGNAL, "nearest", "nearest"), (VOLUME, "linear", "trilinear"), (VOLUME, "nearest", "nearest"))
    },
    "clipped by attributes": ([node("Clip", ["x"], ["y"], min=0.0, max=6.0)], {"x": X}, {}, 6, nn.ReLU6()),
    "clipped by inputs": (
        [node("Clip", ["x", "a", "b"], ["y"])], {"x": X}, {"a": np.float32(0), "b": np.float32(6)}, 18, nn.ReLU6()),
    "padded by an attribute": (
        [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1])], {"x": X}, {}, 2, nn.ZeroPad2d(1)),
    "padded by inputs": (
        [node("Pad", ["x", "p", "", "a"], ["y"])], {"x": X}, {"p": np.array([1, 2]), "a": np.array([-1])}, 18,
        nn.ZeroPad2d((1, 2, 0, 0))),
    "dropout with a mask that nobody reads": (
        [node("Dropout", ["x"], ["d", "m"]), node("Relu", ["d"], ["y"])], {"x": X}, {}, 18,
        nn.Sequential(nn.Dropout(), nn.ReLU())),
    "squeezed by an attribute": (
        [node("Squeeze", ["x"], ["s"], axes=[0]), node("Relu", ["s"], ["y"])], {"x": (1, 3)}, {}, 11,
        Does(lambda x: x.squeeze(0).relu())),
    "squeezed by an input": (
        [node("Squeeze", ["x", "a"], ["s"]), node("Relu", ["s"], ["y"])], {"x": (1, 3)}, {"a": np.array([0])}, 18,
        Does(lambda x: x.squeeze(0).relu())),
    "einsum": (
        [node("Einsum", ["a", "b"], ["y"], equation="bij,bjk->bik")], {"a": (2, 3, 4), "b": (2, 4, 5)}, {}, 18,
        Does(lambda a, b: torch.einsum("bij,bjk->bik", a, b))),
    "lower triangle": ([node("Trilu", ["x"], ["y"], upper=0)], {"x": X}, {}, 18, Does(torch.tril)),
    "reduced by an attribute": (
        [node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)], {"x": X}, {}, 11, Does(lambda x: x.mean(1))),
    "window of equal size": (
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")], {"x": X}, {"w": random(4, 8, 3, 3)}, 18,
        nn.Conv2d(8, 4, 3, padding=1, bias=False)),
    "attention of ONNX": (
        [node("Attention", ["q", "k", "v"], ["y"])], {"q": (2, 4, 6, 8), "k": (2, 4, 9, 8), "v": (2, 4, 9, 8)}, {}, 23,
        Does(F.scaled_dot_product_attention)),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_IN_TORCH)
def test_a_node_costs_what_the_call_costs_in_torch(name: str, read: Callable[..., Graph]) -> None:
    nodes, inputs, weights, opset, module = AS_IN_TORCH[name]
    ours = read(nodes, inputs, {"y": None}, weights, opset)
    theirs = hwcost.trace(module.eval(), tuple(torch.empty(shape) for shape in inputs.values() if shape))
    assert ours.status == "complete"
    assert ours.cost == theirs.cost
    assert [t.shape for t in ours.ops[-1].spec.outputs] == [t.shape for t in theirs.ops[-1].spec.outputs]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["Sum", "Max", "Min", "Mean"])
def test_an_elementwise_node_of_many_operands(kind: str, count: int, read: Callable[..., Graph]) -> None:
    names = "abcde"[:count]
    graph = read([node(kind, list(names), ["y"])], dict.fromkeys(names, (3, 4)), {"y": None})
    each = count - 1 + (kind == "Mean" and count > 1)  # one flop to join each further operand, and a division
    assert (graph.cost.flops, graph.cost.bytes) == (12 * each, (count + 1) * 48 if count > 1 else 0)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("kind", "gates", "states"), [("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1)])
def test_recurrent_layers_with_states_and_without_a_bias(
    kind: str, gates: int, states: int, directions: int, read: Callable[..., Graph]
) -> None:
    steps, batch, width, hidden = 5, 2, 8, 16
    weights = {"w": random(directions, gates * hidden, width), "r": random(directions, gates * hidden, hidden)}
    state, names = (directions, batch, hidden), ["h", "c"][:states]
    turn = "bidirectional" if directions == 2 else "forward"
    made = node(kind, ["x", "w", "r", "", "", *names], ["y"], hidden_size=hidden, direction=turn)
    graph = read([made], {"x": (steps, batch, width)} | dict.fromkeys(names, state), {"y": None}, weights)
    products = steps * batch * directions * gates * hidden * (width + hidden)
    assert (graph.cost.macs, graph.params) == (products, directions * gates * hidden * (width + hidden))
    read_bytes = 4 * (steps * batch * width + states * directions * batch * hidden)
    assert graph.cost.bytes_activations == read_bytes
    assert graph.cost.bytes_written == 4 * steps * directions * batch * hidden


@pytest.mark.parametrize("kind", ["ScatterND", "ScatterElements"])
def test_a_write_into_a_part_counts_that_part(kind: str, read: Callable[..., Graph]) -> None:
    indices = np.array([[0], [3]]) if kind == "ScatterND" else np.zeros((2, 4), np.int64)
    graph = read([node(kind, ["x", "i", "u"], ["y"])], {"x": (10, 4), "u": (2, 4)}, {"y": None}, {"i": indices})
    assert graph.cost.bytes_written == graph.cost.bytes_activations == 2 * 4 * 4  # of 40 numbers, eight
    assert graph.cost.bytes_weights == indices.size * 8


def test_rows_that_are_gathered_are_what_is_read(read: Callable[..., Graph]) -> None:
    nodes = [node("GatherND", ["x", "i"], ["y"])]
    graph = read(nodes, {"x": (10, 4)}, {"y": None}, {"i": np.array([[0], [3]])})
    assert (graph.cost.bytes_activations, graph.cost.bytes_written) == (2 * 4 * 4, 2 * 4 * 4)


def test_a_norm_that_is_trained_computes_its_statistics(read: Callable[..., Graph]) -> None:
    weights = {name: random(8) for name in "sbmv"}
    plain = read([node("BatchNormalization", ["x", *"sbmv"], ["y"])], {"x": X}, {"y": None}, weights)
    outputs: dict[str, Shape] = {"y": None, "rm": None, "rv": None}
    nodes = [node("BatchNormalization", ["x", *"sbmv"], ["y", "rm", "rv"], training_mode=1)]
    trained = read(nodes, {"x": X}, outputs, weights)
    theirs = hwcost.trace(nn.BatchNorm2d(8).train(), (torch.empty(X),), training=True)
    assert plain.cost.flops == 2 * 2 * 8 * 36  # a scale and a shift
    assert trained.cost.flops == max(op.cost.flops for op in theirs.ops if "batch_norm" in op.spec.kind)


def test_sizes_are_no_views_and_hold_no_memory_of_what_is_measured(read: Callable[..., Graph]) -> None:
    nodes = [node("NonZero", ["x"], ["n"]), node("Size", ["n"], ["y"])]
    with pytest.raises(OnnxError, match="NonZero n: the shape of n does not follow from the inputs"):
        read(nodes, {"x": (4,)}, {"y": None}, dtypes={"y": kinds.INT64})
    constants = [
        node("Constant", [], ["shape"], value_ints=[2, -1]), node("Constant", [], ["two"], value_float=2.0),
        node("Reshape", ["x", "shape"], ["v"]), node("Mul", ["v", "two"], ["y"]),
    ]  # fmt: skip
    graph = read(constants, {"x": (4, 6)}, {"y": None})
    assert graph.ops[-1].spec.outputs[0].shape == (2, 12)
    assert (graph.params, graph.weight_bytes) == (0, 4)


PACKED = {kinds.FLOAT8E4M3FN: 15, kinds.FLOAT8E5M2: 15, kinds.FLOAT16: 30, kinds.DOUBLE: 120, kinds.INT4: 8,
          kinds.UINT4: 8, kinds.FLOAT4E2M1: 8}  # fmt: skip


@pytest.mark.parametrize("dtype", PACKED)
def test_bytes_are_those_of_the_dtype(dtype: int, read: Callable[..., Graph]) -> None:
    """Of 15 numbers; two of four bits share a byte."""
    graph = read([node("Cast", ["x"], ["y"], to=dtype)], {"x": (3, 5)}, {"y": None}, opset=23, dtypes={"y": dtype})
    assert (graph.cost.bytes_activations, graph.cost.bytes_written) == (60, PACKED[dtype])


def test_text_is_refused(read: Callable[..., Graph]) -> None:
    with pytest.raises(OnnxError, match="input x holds text, and only tensors of numbers are counted"):
        read([node("Identity", ["x"], ["y"])], {"x": (2,)}, {"y": None}, dtypes={"x": kinds.STRING, "y": kinds.STRING})


def test_quantised_products(read: Callable[..., Graph]) -> None:
    scale, zero = np.float32(0.1), np.uint8(0)
    weights = {"xs": scale, "xz": zero, "ws": scale, "wz": zero, "ys": scale, "yz": zero, "b": np.ones(4, np.int32),
               "w": np.ones((4, 8, 3, 3), np.uint8), "m": np.ones((8, 5), np.uint8)}  # fmt: skip
    whole = {"x": kinds.UINT8, "y": kinds.UINT8}
    conv = node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"])
    graph = read([conv], {"x": X}, {"y": None}, weights, dtypes=whole)
    assert (graph.cost.macs, graph.cost.bytes_activations) == (2 * 4 * 16 * 72, 2 * 8 * 36)
    sums = {"x": kinds.UINT8, "y": kinds.INT32}
    graph = read([node("ConvInteger", ["x", "w", "xz", "wz"], ["y"])], {"x": X}, {"y": None}, weights, dtypes=sums)
    assert (graph.cost.macs, graph.cost.bytes_written) == (2 * 4 * 16 * 72, 2 * 4 * 16 * 4)
    product = node("MatMulInteger", ["x", "m", "xz", "wz"], ["y"])
    graph = read([product], {"x": (2, 8)}, {"y": None}, weights, dtypes=sums)
    assert (graph.cost.macs, graph.cost.bytes_written) == (2 * 8 * 5, 2 * 5 * 4)


def test_weights_of_four_bits_are_half_a_byte_each(read: Callable[..., Graph]) -> None:
    packed = onnx.helper.make_tensor("w", kinds.INT4, (5, 4), [1] * 20)
    nodes = [node("DequantizeLinear", ["w", "s"], ["wf"]), node("MatMul", ["x", "wf"], ["y"])]
    graph = read(nodes, {"x": (2, 5)}, {"y": None}, {"w": packed, "s": np.float32(1)}, opset=21)
    assert (graph.cost.macs, graph.weight_bytes) == (2 * 5 * 4, 10 + 4)


TOKENS = (2, 6, 8)
LINE = dict.fromkeys(("w", "b"), random(8))
FUSED: dict[str, tuple[Any, dict[str, Shape], dict[str, Any], int, int]] = {  # with its macs and other flop
    "convolution and activation": (
        node("FusedConv", ["x", "w", "b"], ["y"], activation="Relu", **MICROSOFT), {"x": X},
        {"w": random(4, 8, 3, 3), "b": random(4)}, 2 * 4 * 16 * 72, 2 * (2 * 4 * 16)),
    "convolution, sum and activation": (
        node("FusedConv", ["x", "w", "b", "z"], ["y"], activation="Relu", **MICROSOFT),
        {"x": X, "z": (2, 4, 4, 4)}, {"w": random(4, 8, 3, 3), "b": random(4)}, 2 * 4 * 16 * 72, 3 * (2 * 4 * 16)),
    "linear and activation": (
        node("FusedGemm", ["x", "w", "b"], ["y"], activation="Relu", transB=1, **MICROSOFT), {"x": (3, 8)},
        {"w": random(4, 8), "b": random(4)}, 3 * 8 * 4, 2 * 12),
    "product of a turned operand": (
        node("FusedMatMul", ["x", "k"], ["y"], transB=1, **MICROSOFT), {"x": TOKENS, "k": (2, 9, 8)}, {},
        2 * 6 * 8 * 9, 0),
    "bias and gelu": (node("BiasGelu", ["x", "w"], ["y"], **MICROSOFT), {"x": TOKENS}, LINE, 0, 96 * (1 + 5)),
    "sum and norm": (
        node("SkipLayerNormalization", ["x", "z", "w", "b"], ["y"], **MICROSOFT), {"x": TOKENS, "z": TOKENS}, LINE,
        0, 96 * (1 + 8)),
    "attention with its projection": (
        node("Attention", ["x", "w", "b"], ["y"], num_heads=2, **MICROSOFT), {"x": TOKENS},
        {"w": random(8, 24), "b": random(24)}, 12 * 8 * 24 + 2 * (2 * 2 * 6 * 6 * 4), 12 * 24 + 6 * (2 * 2 * 6 * 6)),
    "attention of several heads": (
        node("MultiHeadAttention", ["x", "k", "k"], ["y"], num_heads=2, **MICROSOFT),
        {"x": TOKENS, "k": (2, 9, 8)}, {}, 2 * (2 * 2 * 6 * 9 * 4), 6 * (2 * 2 * 6 * 9)),
    "weights packed to four bits": (
        node("MatMulNBits", ["x", "w", "s"], ["y"], K=32, N=16, bits=4, block_size=32, **MICROSOFT), {"x": (3, 32)},
        {"w": np.zeros((16, 1, 16), np.uint8), "s": random(16)}, 3 * 32 * 16, 3 * 16),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_nodes_that_only_onnx_runtime_has(name: str, read: Callable[..., Graph]) -> None:
    made, inputs, weights, macs, other = FUSED[name]
    graph = read([made], inputs, {"y": None}, weights)
    assert graph.status == "complete"
    assert (graph.cost.macs, graph.cost.other_flops) == (macs, other)


@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
def test_a_file_that_onnx_runtime_optimised_has_the_macs_of_the_original(level: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    weights = {"w": random(16, 16, 3, 3), "b": random(16), "f": random(4, 16), "g": random(4)}
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["r"]), node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["v"]), node("Gemm", ["v", "f", "g"], ["m"], transB=1), node("Relu", ["m"], ["y"]),
    ]  # fmt: skip
    path = written(tmp_path / "net.onnx", nodes, {"x": (1, 16, 8, 8)}, {"y": (1, 4)}, weights)
    options = runtime.SessionOptions()
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "fast.onnx"), 3
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    before, after = onnx_graph(path), onnx_graph(tmp_path / "fast.onnx")
    assert {op.name for op in after.ops} & {"onnx.FusedConv", "onnx.ReorderOutput"}
    assert (after.cost.macs, after.cost.other_flops) == (before.cost.macs, before.cost.other_flops)
    assert before.cost.macs == 16 * 36 * 16 * 9 + 16 * 4
