"""Tests of hwcost.runtimes.registry: one file defines a runtime, in the package's folder or elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwcost.extensions import VARIABLE, ExtensionError
from hwcost.runtimes import registry
from hwcost.runtimes.base import Network, Runtime
from hwcost.runtimes.registry import get_runtime, register_runtime, runtime_names

TOY = '''
"""A runtime that fuses each activation into the op before it; it is measured on the phones that have it."""

import hwcost
from hwcost.runtimes.base import Network, Runtime
from hwcost.runtimes.groups import Group, network_of


class Toy(Runtime):
    """Chains of an op and the activations that follow it."""

    name = "toy"

    def lower(self, graph, *, part=False, lanes=None):
        graph = graph.by_parts or graph  # it has no kernel for a whole attention layer of torch
        groups = []
        for number, op in enumerate(graph.ops):
            if op.spec.kind == "relu" and groups:
                groups[-1].ops.append(number)
            elif op.state != "free":
                groups.append(Group([number]))
        return network_of(groups, graph, self.name)


hwcost.register_runtime(Toy())
'''

USE = """
import sys, torch, hwcost
from torch import nn
from hwcost.runtimes.base import RuntimeUnavailable
from hwcost.runtimes.registry import get_runtime

net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
found = hwcost.CostModel.analytic("intel-i9-10980xe", sys.argv[1]).estimate(net, (torch.empty(1, 3, 16, 16),))
print([k.name for k in found.kernels], found.latency > 0)
try:
    get_runtime(sys.argv[1]).prepare(net, (), threads=1)
except RuntimeUnavailable as error:
    print(error)
"""


def run(code: str, *arguments: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_those_that_come_with_hwcost_are_found() -> None:
    assert {"onnxruntime", "openvino", "torch-compile", "torch-eager"} <= set(runtime_names())
    for name in runtime_names():
        assert get_runtime(name).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"runtime must be one of onnxruntime, .*torch-eager.*, but got 'tensorrt'"):
        get_runtime("tensorrt")


def test_finding_them_imports_no_runtime() -> None:
    code = "import sys; from hwcost.runtimes.registry import runtime_names; runtime_names(); print(*sys.modules)"
    loaded = set(run(code).split())
    assert not loaded & {"torch", "onnx", "onnxruntime", "openvino"}


def test_a_runtime_of_ones_own_is_one_file(tmp_path: Path) -> None:
    file = tmp_path / "toy_runtime.py"
    file.write_text(TOY)
    kernels, reason = run(USE, "toy", **{VARIABLE: str(file)}).splitlines()
    assert kernels == "['conv2d+relu', 'conv2d+relu'] True"
    assert reason.startswith("runtime toy is only lowered here, so it runs no network: ")


def test_a_path_in_place_of_a_name_is_the_runtime_of_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_runtimes", {name: get_runtime(name) for name in runtime_names()})
    file = tmp_path / "toy_runtime.py"
    file.write_text(TOY)
    assert get_runtime(str(file)).name == "toy"
    assert get_runtime("toy") is get_runtime(str(file))


def test_its_contract_is_tested_like_that_of_the_others(tmp_path: Path) -> None:
    """Its lowering is tested; what needs the runtime installed is skipped, with the reason."""
    file, tests = tmp_path / "toy_runtime.py", Path(__file__).with_name("test_contract.py")
    file.write_text(TOY)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-k",
        "toy and not convolutional",
        "-p",
        "no:cacheprovider",
        str(tests),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, VARIABLE: str(file)})
    assert done.returncode == 0, done.stdout
    assert "runtime toy is only lowered here" in done.stdout
    assert " passed" in done.stdout


class Named(Runtime):
    """A runtime whose name another has already."""

    name = "torch-eager"

    def lower(self, *_: object, **__: object) -> Network:
        raise NotImplementedError


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'torch-eager' is registered already"):
        register_runtime(Named())
    assert get_runtime("torch-eager").one_kernel_an_op


def test_a_taken_name_is_refused_before_anything_is_loaded() -> None:
    code = """
import hwcost
from hwcost.runtimes.base import Network, Runtime
class Named(Runtime):
    name = "openvino"
    def lower(self, graph, *, part=False, lanes=None): ...
try:
    hwcost.register_runtime(Named())
except ValueError as error:
    print(error)
"""
    assert "'openvino' is registered already" in run(code)


def test_what_is_no_runtime_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be a hwcost\.runtimes\.base\.Runtime"):
        register_runtime("toy")  # type: ignore[type-var]


def test_a_file_that_registers_nothing_says_so(tmp_path: Path) -> None:
    empty = tmp_path / "empty_runtime.py"
    empty.write_text("")
    with pytest.raises(ValueError, match="must define and register one runtime, but registers 0"):
        get_runtime(str(empty))
    with pytest.raises(ExtensionError, match="no Python file"):
        get_runtime(str(tmp_path / "missing.py"))
