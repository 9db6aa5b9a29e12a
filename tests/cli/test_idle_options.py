"""Options that would do nothing are refused, and the others do what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwcost.cli.errors import UsageError
from hwcost.cli.options import refuse

Run = Callable[..., Any]

SPACE = """
from functools import partial
from torch import nn
from hwcost.search.spaces import Block, Decision, Site, Space


class Plain(Space):
    name = "plain"

    def __init__(self):
        self.decisions = (Decision("width", (8, 16, 24)),)
        self.sites = (Site("body", ("width",), self.body),)

    def body(self, p):
        return Block("body", f"conv {p['width']}", partial(nn.Conv2d, 3, p["width"], 3), self.input_shape(p))

    def input_shape(self, params):
        return (1, 3, 8, 8)
"""


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """[2, 3] @ [3, 5]: 30 multiply-adds."""
    onnx = pytest.importorskip("onnx", reason="writes an ONNX file")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = helper.make_tensor("w", kind, [3, 5], [0.5] * 15)
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", [2, 3]), ("y", [2, 5]))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_what_was_not_given_is_not_refused() -> None:
    refuse({"--seed": None, "--kwargs": "", "--input": []}, "for others")
    with pytest.raises(UsageError, match=r"--seed is for others; leave it out"):
        refuse({"--seed": 0, "--kwargs": ""}, "for others")
    with pytest.raises(UsageError, match=r"--seed and --input are for others; leave them out"):
        refuse({"--seed": 1, "--input": ["1x3"]}, "for others")


# -- dtypes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["estimate", "advise", "roofline"])
@pytest.mark.parametrize(
    ("dtype", "match"),
    [
        ("banana", "dtype must be one of .*, but got 'banana'"),
        ("int8", "--dtype must be one of floating-point numbers"),
    ],
)
def test_a_dtype_that_a_network_cannot_run_in_is_refused(
    refused: Callable[..., str], nets: Path, toy_device: Path, tmp_path: Path, verb: str, dtype: str, match: str
) -> None:
    output = ["-o", str(tmp_path / "p.html")] if verb == "roofline" else []
    argv = [verb, f"{nets}:build", "-i", "1x3x8x8", "--device", str(toy_device), "--dtype", dtype, *output]
    refused(argv, match)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("priced", ["device", "model"])
def test_a_dtype_is_what_the_network_runs_in(
    run: Run, nets: Path, toy_device: Path, made: Path, dtype: str, priced: str
) -> None:
    """As many multiply-adds, and half or twice the bytes; a model that measured float32 alone supports none of it."""
    by = ["--device", str(toy_device)] if priced == "device" else ["--model", f"{made}/m.hwcost"]
    argv = ["estimate", f"{nets}:build", "-i", "1x3x8x8", *by, "--json"]
    plain, found = run(*argv).json, run(*argv, "--dtype", dtype).json
    assert found["macs"] == plain["macs"]
    assert found["bytes"] == plain["bytes"] * (0.5 if dtype == "bfloat16" else 2)
    if priced == "model":
        assert found["support"] == 0
        assert found["high_s"] / found["latency_s"] > 3


# -- ONNX files --------------------------------------------------------------------------------------


def test_an_onnx_file_is_priced_on_a_runtime_that_runs_it(run: Run, onnx_file: Path, toy_device: Path) -> None:
    found = run("estimate", str(onnx_file), "--device", str(toy_device), "--json").json
    assert (found["runtime"], found["macs"]) == ("onnxruntime", 30)
    other = run("estimate", str(onnx_file), "--device", str(toy_device), "--runtime", "openvino", "--json").json
    assert other["runtime"] == "openvino"
    shipped = run("estimate", str(onnx_file), "--model", "default", "--json")
    assert shipped.json["runtime"] == "onnxruntime"


@pytest.mark.parametrize("verb", ["estimate", "advise"])
@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            ["--device", "{toy}", "--runtime", "torch-eager"],
            "torch-eager runs modules .* --runtime onnxruntime or openv",
        ),
        (["--model", "default", "--runtime", "torch-compile"], "torch-compile runs modules of torch and no ONNX files"),
        (["--model", "{made}/m.hwcost"], "torch-eager runs modules of torch and no ONNX files"),
        (["--device", "{toy}", "--kwargs", '{"width": 3}'], "--kwargs is for a module"),
        (["--device", "{toy}", "--dtype", "float16"], "--dtype is for a module"),
    ],
)
def test_what_an_onnx_file_does_not_take_is_refused(
    refused: Callable[..., str],
    onnx_file: Path,
    toy_device: Path,
    made: Path,
    verb: str,
    options: list[str],
    match: str,
) -> None:
    given = [o.replace("{toy}", str(toy_device)).replace("{made}", str(made)) for o in options]
    refused([verb, str(onnx_file), *given], match)


# -- evaluate, measure, table ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["--store", "{made}/m.db", "--input", "1x3x8x8"], "--input is for TARGETs"),
        (["--store", "{made}/m.db", "--kwargs", '{"a": 1}', "-i", "1"], "--input and --kwargs are for TARGETs"),
        (["{nets}:build", "-i", "1x3x8x8", "--environment", "ab"], "--environment is for a --store"),
    ],
)
def test_evaluate_refuses_what_it_would_not_use(
    refused: Callable[..., str], made: Path, nets: Path, argv: list[str], match: str
) -> None:
    given = [a.replace("{made}", str(made)).replace("{nets}", str(nets)) for a in argv]
    refused(["evaluate", f"{made}/m.hwcost", *given], match)


def test_a_table_is_of_its_runtime_and_threads(
    refused: Callable[..., str], run: Run, made: Path, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    argv = ["--space", "tiny-cnn", "--store", f"{made}/m.db", "-o", str(path)]
    assert run("table", *argv).code == 0
    asked = ["evaluate", str(path), "--store", f"{made}/m.db"]
    refused([*asked, "--runtime", "onnxruntime"], "of runtime torch-eager, but --runtime onnxruntime was asked")
    refused([*asked, "--threads", "3"], "of threads 1, but --threads 3 was asked")
    assert run(*asked, "--threads", "1", "--runtime", "torch-eager").code == 0
    refused(["table", *argv, "--jobs", "2"], "--jobs is for a table that a --model prices")
    priced = ["table", "--space", "tiny-cnn", "--model", f"{made}/m.hwcost", "-o", str(path)]
    refused([*priced, "--environment", "ab"], "--environment is for a --store")
    refused([*priced, "--dask", "tcp://x:1", "--jobs", "2"], "--jobs is for this machine")


def test_a_seed_is_for_what_is_drawn(refused: Callable[..., str], nets: Path, tmp_path: Path) -> None:
    argv = ["measure", f"{nets}:build", "-i", "1x3x8x8", "--store", str(tmp_path / "m.db"), "--seed", "0"]
    refused(argv, "--seed is for a --space")


def test_networks_of_a_space_in_a_file_are_found_by_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(SPACE)
    space = f"{tmp_path}/plain.py:Plain"
    argv = ["measure", "--space", space, "--samples", "2", "--rounds", "2", "--store", str(tmp_path / "m.db")]
    result = run(*argv, "--json")
    assert result.code == 0, result.err
    assert len(result.json["networks"]) == 2
    assert run(*argv).code == 0  # they are there already


def test_evaluate_says_where_it_knows_more_than_an_estimate(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store's networks are lowered as they ran. Where that differs from what an estimate foresees, it is said."""
    from hwcost.model.lowering import Lowering
    from hwcost.runtimes.base import Network

    argv = ["evaluate", f"{made}/m.hwcost", "--store", f"{made}/m.db"]
    assert "foresees" not in run(*argv).err
    usual = Lowering.kernels

    def without_the_last(self: Lowering, graph: Any, *, part: bool = False) -> Network:
        found = usual(self, graph, part=part)
        return Network(found.kernels[:-1], found.calls, found.runtime)

    monkeypatch.setattr(Lowering, "kernels", without_the_last)
    assert "11 of 11 networks ran other kernels than `hwcost estimate` foresees" in run(*argv).err
