"""One answer: every command, the table, the objective and Python give one number for the same network.

The model is the one that ships for torch eager, which has not measured torch's fused attention layers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import nn

import hwcost
from hwcost import CostModel
from hwcost.advise.advise import advise
from hwcost.cli.app import main
from hwcost.graph import FUSED_ATTENTION
from hwcost.model.files import shipped_path
from hwcost.runtimes.registry import get_runtime
from hwcost.search import LatencyObjective
from hwcost.search.spaces import get_space

NETWORKS = '''
"""One network of each sort, with the input it takes."""
import torch
from torch import nn
from hwcost.search.spaces import Block

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(32, 64, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]

def encoder():
    return nn.TransformerEncoderLayer(192, 4, 384, batch_first=True)

def attention():
    return Attention()

def recurrent():
    return Recurrent()

def convolutional():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16))

SHAPES = {
    "encoder": (1, 16, 192), "attention": (1, 32, 64), "recurrent": (1, 20, 32), "convolutional": (1, 3, 32, 32),
}
MAKERS = {"encoder": encoder, "attention": attention, "recurrent": recurrent, "convolutional": convolutional}
blocks = [Block(name, name, make, SHAPES[name]) for name, make in MAKERS.items()]
'''
NAMES = ("encoder", "attention", "recurrent", "convolutional")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    (folder / "networks.py").write_text(NETWORKS)
    return folder


@pytest.fixture(scope="module")
def made(place: Path) -> dict[str, Any]:
    """What the file defines."""
    found: dict[str, Any] = {}
    exec(compile((place / "networks.py").read_text(), "networks.py", "exec"), found)
    return found


@pytest.fixture(scope="module")
def model() -> CostModel:
    return CostModel.load(shipped_path("torch-eager", 1))


@pytest.fixture(scope="module")
def measured(place: Path) -> str:
    """A store with each of the networks."""
    store = str(place / "store.db")
    for name in NAMES:
        command("measure", *target(place, name), "--rounds", "2", "--store", store, "--json")
    return store


def command(*words: str) -> Any:
    """The JSON document that a command prints."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    assert code == 0, err.getvalue()
    return json.loads(out.getvalue())


def target(place: Path, name: str) -> tuple[str, str, str]:
    found: dict[str, Any] = {}
    exec(NETWORKS, found)
    return f"{place}/networks.py:{name}", "--input", "x".join(map(str, found["SHAPES"][name]))


def network(made: dict[str, Any], name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    with torch.device("meta"):
        return made["MAKERS"][name]().eval(), (torch.empty(made["SHAPES"][name]),)


def in_python(model: CostModel, made: dict[str, Any], name: str) -> Iterator[tuple[str, float]]:
    """(who was asked, answer) of everything that is a call."""
    module, inputs = network(made, name)
    graph = hwcost.trace(module, inputs)
    yield "estimate of a graph", model.estimate(graph).latency
    yield "estimate of a lowered network", model.estimate(model.lower(module, inputs)).latency
    yield "estimate_many", model.estimate_many([(module, inputs), graph])[1].latency
    yield from (("advise", advice.before) for advice in advise(module, inputs, model=model)[:1])
    study = optuna.create_study(direction="maximize")
    objective = LatencyObjective(lambda _: module, lambda *_: 1.0, model=model, inputs=inputs, budget="1 s")
    study.optimize(objective, n_trials=1)
    yield "objective", study.trials[0].user_attrs["hwcost"]["latency"]


@pytest.mark.parametrize("name", NAMES)
def test_python_gives_one_number(model: CostModel, made: dict[str, Any], name: str) -> None:
    expected = model.estimate(*network(made, name)).latency
    answers = dict(in_python(model, made, name))
    assert answers == pytest.approx(dict.fromkeys(answers, expected), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_commands_give_the_number_of_python(
    model: CostModel, made: dict[str, Any], place: Path, measured: str, name: str
) -> None:
    expected = model.estimate(*network(made, name)).latency
    shipped, words = str(shipped_path("torch-eager", 1)), target(place, name)
    answers = {
        "estimate": command("estimate", *words, "--model", shipped, "--json")["latency_s"],
        "evaluate": command("evaluate", shipped, *words, "--json")["networks"][0]["predicted_s"],
        "advise": command("advise", *words, "--model", shipped, "--json")["latency_s"],
    }
    every = command("evaluate", shipped, "--store", measured, "--json")["networks"]
    answers["evaluate --store"] = next(n["predicted_s"] for n in every if f":{name}" in n["target"])
    assert answers == pytest.approx(dict.fromkeys(answers, expected), rel=1e-12)


def test_a_table_gives_the_number_of_python(model: CostModel, made: dict[str, Any], place: Path) -> None:
    """A list of blocks is a space of one decision; a search reads the same table."""
    space = get_space(f"{place}/networks.py:blocks")
    table = hwcost.LatencyTable.build(space, model)
    for name in NAMES:
        expected = model.estimate(*network(made, name)).latency
        assert table.estimate({"block": name}).latency == pytest.approx(expected, rel=1e-12)
        assert table.latency([space.choices({"block": name})])[0] == pytest.approx(expected, rel=1e-12)
        assert model.estimate_many([{"block": name}], space=space)[0].latency == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("runtime", ["torch-eager", "torch-compile", "onnxruntime", "openvino"])
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_and_its_module_are_one_network_to_every_runtime(made: dict[str, Any], runtime: str, name: str) -> None:
    model = CostModel.analytic("intel-i9-10980xe", runtime)
    module, inputs = network(made, name)
    found = model.estimate(hwcost.trace(module, inputs))
    assert found == model.estimate(module, inputs)
    fused = get_runtime(runtime).runs_fused_attention
    assert fused or not {k.kind for k in found.kernels} & FUSED_ATTENTION


def test_an_onnx_file_gives_one_number(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs the extra hwcost[onnx]")
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(module, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False)
    from hwcost.tracing.onnx_file import onnx_graph

    shipped = shipped_path("onnxruntime", 1)
    model = CostModel.load(shipped)
    expected = model.estimate(onnx_graph(path)).latency
    answers = {
        "estimate": command("estimate", str(path), "--model", str(shipped), "--json")["latency_s"],
        "advise": command("advise", str(path), "--model", str(shipped), "--json")["latency_s"],
    }
    assert answers == pytest.approx(dict.fromkeys(answers, expected), rel=1e-12)
