"""Lowering needs nothing but hwcost: without the packages of the runtimes the kernels are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # A module that is None there cannot be imported, as where it is not installed.
    sys.modules.update(dict.fromkeys(sys.argv[1:]))

import pytest
import torch
from torch import nn

from hwcost import CostModel, trace
from hwcost.runtimes.base import RuntimeUnavailable
from hwcost.runtimes.registry import get_runtime

BLOCKED = ("onnxruntime", "onnx", "openvino", "torch._inductor", "torch._dynamo")
REASONS = {  # how the message of each runtime begins where it can run no network
    "onnxruntime": "runtime onnxruntime needs the package onnx",
    "openvino": "runtime openvino needs the package openvino",
    "torch-compile": "runtime torch-compile needs a C++ compiler",
}


def lowered() -> dict[str, Any]:
    """By runtime: the kernels of a network, its latency by the roofline, and why the runtime cannot run it here."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Hardswish(),
        nn.MaxPool2d(2), nn.Conv2d(16, 32, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip
    graph, found = trace(net, (torch.empty(1, 3, 32, 32),)), {}
    for name in REASONS:
        model = CostModel.analytic("intel-i9-10980xe", name)
        kernels = [[p.kernel.digest, p.module, p.distance] for p in model.lower(graph).kernels]
        try:
            get_runtime(name).environment()
            reason = ""
        except RuntimeUnavailable as error:
            reason = str(error)
        found[name] = {"kernels": kernels, "latency": model.estimate(graph).latency, "reason": reason}
    return found


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`lowered`, in a process in which importing the packages fails, and which finds no compiler."""
    command = [sys.executable, __file__, *BLOCKED]
    empty = {"PATH": str(tmp_path_factory.mktemp("bin")), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **empty}, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("runtime", REASONS)
def test_lowering_and_estimating_need_no_runtime(runtime: str, without: dict[str, Any]) -> None:
    here = lowered()[runtime]
    assert without[runtime]["kernels"] == here["kernels"]
    assert without[runtime]["latency"] == here["latency"]
    assert without[runtime]["reason"].startswith(REASONS[runtime])


def test_the_lowerings_themselves_import_no_torch() -> None:
    code = """
import sys
from hwcost.runtimes.registry import get_runtime, runtime_names
from hwcost.graph import Graph
for name in runtime_names():
    graph = Graph(ops=(), inputs=(), input_values=(), output_values=(), params=0, weight_bytes=0, lives=())
    assert get_runtime(name).lower(graph).kernels == ()
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not set(done.stdout.split()) & {"torch", "onnx", "onnxruntime", "openvino"}
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    print(json.dumps(lowered()))
