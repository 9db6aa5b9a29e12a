"""ONNX files as networks: the same counts as the torch module they were exported from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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


# -- graphs inside nodes, sizes of inputs, weights in another file -------------------------------------------------


def model_of(nodes: list[Any], inputs: dict[str, Any], output: Any, weights: dict[str, Tensor], **more: Any) -> Any:
    """A model with these inputs, by shape or None; a boolean one is named "c"."""
    helper, kinds = onnx.helper, onnx.TensorProto
    ins = [helper.make_tensor_value_info(n, kinds.BOOL if n == "c" else kinds.FLOAT, s) for n, s in inputs.items()]
    given = [onnx.numpy_helper.from_array(t.numpy(), n) for n, t in weights.items()]
    ends = [helper.make_tensor_value_info("y", kinds.FLOAT, output)]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    graph = helper.make_graph(nodes, "net", ins, ends, given)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)


def branching() -> Any:
    """y = relu(x) or x @ w, then exp(y)."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("r", real, None)]
    weight = onnx.numpy_helper.from_array(torch.rand(6, 6).numpy(), "w")
    cheap = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "cheap", [], outputs)
    dear = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["r"])], "dear", [], outputs, [weight])
    made = helper.make_node("If", ["c"], ["z"], name="choice", then_branch=cheap, else_branch=dear)
    return [made, helper.make_node("Exp", ["z"], ["y"])]


@pytest.mark.parametrize(("condition", "macs"), [(None, 4 * 6 * 6), (True, 0), (False, 4 * 6 * 6)])
def test_of_two_branches_the_dearer_one_is_counted_unless_the_file_decides(
    condition: bool | None, macs: int, tmp_path: Path
) -> None:
    known = {} if condition is None else {"c": torch.tensor(condition)}
    inputs = {"x": (4, 6)} | ({"c": ()} if condition is None else {})
    onnx.save(model_of(branching(), inputs, None, known), str(tmp_path / "net.onnx"))
    graph = onnx_graph(tmp_path / "net.onnx")
    assert (graph.cost.macs, graph.params) == (macs, 36 if macs else 0)
    assert [op.spec.kind for op in graph.ops] == ["matmul" if macs else "relu", "exp"]
    assert any("If choice runs one of two branches" in note for note in graph.notes) == (condition is None)


def test_what_cannot_be_counted_is_refused_in_one_line(tmp_path: Path) -> None:
    helper, kinds, path = onnx.helper, onnx.TensorProto, tmp_path / "net.onnx"
    carried = [helper.make_tensor_value_info(n, k, s) for n, k, s in (("i", kinds.INT64, ()), ("go", kinds.BOOL, ()))]
    state, after = (helper.make_tensor_value_info(n, kinds.FLOAT, (4,)) for n in ("s", "t"))
    nodes = [helper.make_node("Relu", ["s"], ["t"]), helper.make_node("Identity", ["go"], ["on"])]
    more = helper.make_tensor_value_info("on", kinds.BOOL, ())
    body = helper.make_graph(nodes, "body", [*carried, state], [more, after])
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], name="steps", body=body)
    onnx.save(model_of([loop], {"x": (4,)}, None, {"n": torch.tensor(3)}), str(path))
    with pytest.raises(OnnxError, match=r"^Loop steps: loops are not counted, .*; export the network .*unrolled$"):
        onnx_graph(path)
    parts = [helper.make_node("SplitToSequence", ["x"], ["s"]), helper.make_node("SequenceAt", ["s", "n"], ["y"])]
    onnx.save(model_of(parts, {"x": (4,)}, None, {"n": torch.tensor(0)}), str(path))
    with pytest.raises(OnnxError, match="s is a sequence, and only tensors are counted"):
        onnx_graph(path)


def test_functions_of_a_file_are_counted_by_their_nodes_and_nodes_of_others_are_reported(tmp_path: Path) -> None:
    helper, path = onnx.helper, tmp_path / "net.onnx"
    nodes = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Exp", ["t"], ["b"])]
    function = helper.make_function("own", "Block", ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])
    call = helper.make_node("Block", ["x"], ["y"], domain="own")
    onnx.save(model_of([call], {"x": (4,)}, None, {}, functions=[function]), str(path))
    assert [op.spec.kind for op in onnx_graph(path).ops] == ["relu", "exp"]
    alike = helper.make_node("Relu", ["x"], ["y"], domain="own")  # only its name is that of an ONNX operator
    onnx.save(model_of([alike], {"x": (4,)}, (4,), {}), str(path))
    assert onnx_graph(path).status == "partial"


def test_open_sizes_have_one_value_and_fixed_ones_stay(tmp_path: Path) -> None:
    path, add = tmp_path / "net.onnx", [onnx.helper.make_node("Add", ["x", "z"], ["y"])]
    onnx.save(model_of(add, {"x": ("batch", 8), "z": ("batch", 8)}, ("batch", 8), {}), str(path))
    assert onnx_graph(path, [(4, 8), (4, 8)]).cost.flops == 32
    with pytest.raises(OnnxError, match="size batch of input z must be 4 as in another input, not 2"):
        onnx_graph(path, [(4, 8), (2, 8)])
    with pytest.raises(OnnxError, match="input x has size 8 along axis 1, which the file fixes, but 9 was given"):
        onnx_graph(path, [(4, 9), (4, 9)])
    for shape in (None, (-1, 8)):  # no shape at all, and an open size as some exporters write it
        onnx.save(model_of(add, {"x": shape, "z": shape}, shape, {}), str(path))
        with pytest.raises(OnnxError, match="input x leaves a size open"):
            onnx_graph(path)
        assert onnx_graph(path, [(4, 8), (4, 8)]).cost.flops == 32


def test_a_file_is_counted_without_the_file_of_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    conv = [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    model = model_of(conv, {"x": (1, 3, 8, 8)}, None, {"w": torch.zeros(4, 3, 3, 3), "b": torch.zeros(4)})
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    graph = onnx_graph(path)
    assert (graph.cost.macs, graph.params) == (36 * 4 * 27, 4 * 27 + 4)
    sizes = [onnx.helper.make_node("Reshape", ["x", "s"], ["y"])]
    model = model_of(sizes, {"x": (2, 6)}, None, {"s": torch.tensor([3, 4])})
    onnx.save(model, str(path), save_as_external_data=True, location="sizes.bin", size_threshold=0)
    assert onnx_graph(path).ops[0].spec.outputs[0].shape == (3, 4)
    (tmp_path / "sizes.bin").unlink()
    with pytest.raises(OnnxError, match=r"s may hold sizes and lies in sizes\.bin, which cannot be read"):
        onnx_graph(path)


def _asks_for(op: str, value: list[int], folder: Path) -> Path:
    """A network that adds to its input what a node makes of a constant: as many numbers as the constant says."""
    import onnx
    from onnx import TensorProto, helper

    constant = onnx.numpy_helper.from_array(np.array(value, np.int64), "much")
    more = [] if op == "ConstantOfShape" else [onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")]
    nodes = [
        helper.make_node(op, ["much"] if not more else ["one", "much"], ["large"]),
        helper.make_node("Add", ["x", "large"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1]), ("y", None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [constant, *more])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(folder / "m.onnx"))
    return folder / "m.onnx"


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile"])
def test_a_constant_larger_than_the_memory_is_not_made(op: str, tmp_path: Path) -> None:
    """Four terabytes of floats: their shape is all that is needed, and no number of them is written."""
    size = 10**12
    graph = onnx_graph(_asks_for(op, [size], tmp_path))
    assert graph.cost.bytes_written >= 4 * size  # the result of the addition


def test_data_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    """A file may say that a weight lies anywhere: in a parent folder, or behind a link."""
    import onnx
    from onnx import TensorProto, helper

    (tmp_path / "secret").write_bytes(np.array([1, 64], np.int64).tobytes())
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    for place in ("../secret", str(tmp_path / "secret"), "link"):
        shape = onnx.TensorProto(name="to", dims=[2], data_type=TensorProto.INT64)
        shape.data_location = onnx.TensorProto.EXTERNAL
        shape.external_data.add(key="location", value=place)
        node = helper.make_node("Reshape", ["x", "to"], ["y"])
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [8, 8]), ("y", None))]
        graph = helper.make_graph([node], "g", ends[:1], ends[1:], [shape])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        (inside / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(OnnxError, match="cannot be read; put it beside") as caught:
            onnx_graph(inside / "m.onnx")
        assert "\n" not in str(caught.value)
