"""ONNX files as networks: the same counts as the torch module they were exported from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import hwcost

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from hwcost.tracing.onnx_file import OnnxError, onnx_graph  # noqa: E402 - after the check for onnx


def write(path: Path, size: int | str = 8, op: str = "Relu") -> Path:
    """Convolution 3 -> 4, an elementwise op, a flatten and a Gemm to 5 features."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "f": (5, 256), "g": (5,)}
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"], ["c"], name="/stem/conv/Conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        ),
        helper.make_node(op, ["c"], ["r"], name="/stem/act/Act"),
        helper.make_node("Flatten", ["r"], ["v"]),
        helper.make_node("Gemm", ["v", "f", "g"], ["y"], name="/head/Gemm", transB=1),
    ]
    weights = [onnx.numpy_helper.from_array(torch.zeros(s).numpy(), n) for n, s in shapes.items()]
    inputs = [helper.make_tensor_value_info("x", real, (1, 3, size, size))]
    outputs = [helper.make_tensor_value_info("y", real, (1, 5))]
    model = helper.make_model(helper.make_graph(nodes, "net", inputs, outputs, weights))
    onnx.save(model, str(path))
    return path


def test_counts_of_the_same_network_in_torch(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    ours, theirs = onnx_graph(write(tmp_path / "net.onnx")), hwcost.trace(module, torch.zeros(1, 3, 8, 8))
    assert ours.cost == theirs.cost
    assert (ours.params, ours.peak_memory) == (theirs.params, theirs.peak_memory)
    assert list(ours.blocks(2)) == ["stem.conv", "stem.act", "", "head"]


def test_an_open_size_is_given_by_the_caller(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", size="side")
    with pytest.raises(OnnxError, match="input x leaves a size open; give it with --input"):
        onnx_graph(path)
    assert onnx_graph(path, [(1, 3, 8, 8)]).cost.macs == 8 * 8 * 4 * 27 + 256 * 5
    with pytest.raises(OnnxError, match=r"input x has 4 axes, but \(3, 8\) was given"):
        onnx_graph(path, [(3, 8)])


def test_a_node_without_a_rule_is_reported(tmp_path: Path) -> None:
    graph = onnx_graph(write(tmp_path / "net.onnx", op="ThresholdedRelu"))
    assert graph.status == "partial"
    assert graph.uncounted == (("onnx.ThresholdedRelu", 1, "stem.act"),)


def test_sizes_that_the_file_computes_are_followed(tmp_path: Path) -> None:
    """As an exporter writes view(x.shape[0], x.shape[1] - x.shape[1] % 4, -1): inference alone gives up at Mod."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    constants = {"four": [4], "from": [1], "to": [2], "start": [0], "one": [1], "rest": [-1]}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["tokens"]),
        helper.make_node("Mod", ["tokens", "four"], ["over"]),
        helper.make_node("Sub", ["tokens", "over"], ["kept"]),
        helper.make_node("Slice", ["x", "start", "kept", "one"], ["cut"]),
        helper.make_node("MatMul", ["cut", "w"], ["y"]),
    ]
    weights = [onnx.numpy_helper.from_array(torch.tensor(v).numpy(), n) for n, v in constants.items()]
    weights.append(onnx.numpy_helper.from_array(torch.zeros(6, 5).numpy(), "w"))
    x, y = (helper.make_tensor_value_info(n, real, s) for n, s in (("x", (2, 10, 6)), ("y", (2, "kept", 5))))
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", [x], [y], weights)), str(tmp_path / "net.onnx"))
    graph = onnx_graph(tmp_path / "net.onnx")
    assert graph.cost.macs == 2 * 8 * 6 * 5  # 8 of 10 tokens
    assert (graph.status, graph.params, len(graph.ops)) == ("complete", 30, 2)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(onnx.ModelProto().SerializeToString())
    with pytest.raises(OnnxError, match="but holds no node"):
        onnx_graph(tmp_path / "empty.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(OnnxError, match="must be an ONNX model"):
        onnx_graph(tmp_path / "broken.onnx")
    with pytest.raises(OnnxError, match="does not exist"):
        onnx_graph(tmp_path / "missing.onnx")
