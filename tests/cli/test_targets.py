"""Tests of hwcost.cli.targets: how the command line names networks and inputs."""

from __future__ import annotations

import numpy as np
import pytest

from hwcost.cli.errors import UsageError
from hwcost.cli.targets import graph_of, parse_inputs, parse_kwargs
from hwcost.measure.targets import InputSpec
from hwcost.tracing.trace import TraceError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        ("7", InputSpec((7,))),
        (" 2x16:int64 ", InputSpec((2, 16), "int64")),
        ("2x16:bfloat16", InputSpec((2, 16), "bfloat16")),
    ],
)
def test_input(text, spec):
    assert parse_inputs([text]) == (spec,)
    assert parse_inputs([str(spec)]) == (spec,)  # printed as it is read


def test_inputs_keep_their_order():
    assert [s.shape for s in parse_inputs(["1x2", "3"])] == [(1, 2), (3,)]


@pytest.mark.parametrize("text", ["", "x", "1x", "1x0x3", "-1x3", "1,3", "1x3x", "1.5", "1x3:", "1x3:int64:int8"])
def test_input_that_is_no_shape(text):
    with pytest.raises(UsageError, match=r"^--input must be sizes above 0 joined by x"):
        parse_inputs([text])


def test_input_of_an_unknown_dtype():
    with pytest.raises(UsageError, match=r"dtype must be one of .*float32.*'float33'"):
        parse_inputs(["1x3:float33"])


def test_no_input_at_all():
    with pytest.raises(UsageError, match="--input 1x3x224x224"):
        parse_inputs([])


def test_kwargs():
    assert parse_kwargs("") == {}
    assert parse_kwargs('{"width": 8, "deep": true}') == {"width": 8, "deep": True}


@pytest.mark.parametrize("text", ["{", "[1]", "width=8", "7", "null"])
def test_kwargs_that_are_no_object(text):
    with pytest.raises(UsageError, match="must be a JSON object"):
        parse_kwargs(text)


NETWORK = """
import torch
from torch import nn
class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(100, 4), nn.Linear(4, 3, bias=False)
    def forward(self, ids, mask, scale=None):
        x = self.table(ids)[mask.bool()]
        x = x if scale is None or scale.sum() > 0 else x.repeat(2, 1)
        return self.head(x.view(int(mask.sum()), -1))
"""


@pytest.fixture
def packs(tmp_path, monkeypatch):
    (tmp_path / "packs.py").write_text(NETWORK)
    np.savez(tmp_path / "both.npz", ids=np.arange(16).reshape(1, 16) % 100, mask=np.arange(16).reshape(1, 16) < 5)
    np.save(tmp_path / "mask.npy", np.arange(16).reshape(1, 16) < 7)
    monkeypatch.chdir(tmp_path)
    return "packs.py:Packs"


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        (["1x16:int64=0..100", "1x16:int64=ones"], 16),
        (["1x16:int64=arange", "1x16:bool=" + ",".join(["1", "1", "0"] + ["0"] * 13)], 2),
        (["1x16:int64=7", "1x16=1", "1x3=random"], 16),
        (["both.npz"], 5),
        (["both.npz:ids", "mask.npy"], 7),
        (["1x16:int64", "mask.npy"], 7),
    ],
)
def test_inputs_with_values_reach_the_trace(packs, inputs, rows):
    assert graph_of(packs, inputs).cost.macs == rows * 4 * 3


def test_a_network_that_reads_values_says_how_to_give_them(packs):
    with pytest.raises(TraceError, match=r"give module and inputs with data .*--input 1x16:int64=0\.\.100"):
        graph_of(packs, ["1x16:int64", "1x16", "1x3"])


def test_an_onnx_file_takes_shapes_alone():
    with pytest.raises(UsageError, match=r"from shapes alone; give the shape in place of --input 1x16:int64=ones"):
        graph_of("network.onnx", ["1x16:int64=ones"])


@pytest.mark.parametrize("text", ["4=what", "4=0..9", "nowhere.npz", "4:int64=1,2"])
def test_values_that_cannot_be_read_are_told_in_one_line(text):
    with pytest.raises(UsageError, match=r"^--input ") as error:
        parse_inputs([text])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("verb", ["estimate", "measure", "evaluate", "roofline", "advise"])
def test_every_verb_with_inputs_tells_how_to_give_values(verb):
    from typer.main import get_command

    from hwcost.cli.app import app

    command = get_command(app).commands[verb]
    (option,) = (p for p in command.params if "--input" in p.opts)
    assert "=0..100" in option.help
    assert "file.npz" in option.help


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"width": NaN}', "NaN is no number of JSON"),
        ('{"width": 1e999}', "too large a number"),
        ('{"width": ' + "9" * 5000 + "}", "--kwargs must be a JSON object"),
        ("\ufeff{}", "--kwargs must be a JSON object"),
    ],
)
def test_kwargs_that_are_no_json_cost_one_line(refused, nets, toy_device, kwargs, said):
    refused(["estimate", f"{nets}:build", "-i", "1x3x8x8", "-d", str(toy_device), "--kwargs", kwargs], said)
