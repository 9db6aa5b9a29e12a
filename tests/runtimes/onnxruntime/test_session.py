"""Events of a profile of ONNX Runtime: cutting off their arguments before parsing gives what a JSON parser gives."""

import json
from typing import Any

import numpy as np
import pytest

from hwcost.runtimes.base import RuntimeUnavailable

runtime = pytest.importorskip("hwcost.runtimes.onnxruntime.session", exc_type=RuntimeUnavailable)


def profile_of(name: str, folder: Any) -> str:
    """A profile, as the installed ONNX Runtime writes it, of a graph of one node."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    make = onnx.helper
    ends = [make.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [4]) for end in "xy"]
    graph = make.make_graph([make.make_node("Relu", ["x"], ["y"], name=name)], "graph", ends[:1], ends[1:])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros(4, np.float32)})
    with open(session.end_profiling(), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("name", ["/stages/0/Relu", 'a "name" with a \\', '","args" :{', "nœud", "two\u2028lines"])
def test_events_are_those_of_a_json_parser_but_for_their_arguments(name: str, tmp_path: Any) -> None:
    profile = profile_of(name, tmp_path)
    whole = json.loads(profile)
    assert f"{name}_kernel_time" in {event["name"] for event in whole}
    assert any(event["args"] for event in whole)
    without = [{key: value for key, value in event.items() if key != "args"} for event in whole]
    assert runtime.without_arguments(profile) == without
