"""Tests of the verbs fit, evaluate and table, over a store that is measured here with the smallest effort."""

from __future__ import annotations

import math
import shutil
from itertools import islice
from pathlib import Path

import pytest

from hwcost.cli import modelling
from hwcost.measure.campaign import measure
from hwcost.measure.items import sampled_items
from hwcost.measure.store.store import Store
from hwcost.model.cost_model import CostModel
from hwcost.search.spaces import get_space
from hwcost.table.file import TableError
from hwcost.table.table import LatencyTable

SMALL_DEVICE = """
name = "here"
[[compute]]
threads = 1
measured = "100 GFLOP/s"
measured_source = "made up"
[[memory]]
threads = 1
measured = "10 GB/s"
measured_source = "made up"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a device, a store of 11 networks, and a model."""
    from hwcost.cli import main

    folder = tmp_path_factory.mktemp("made")
    (folder / "here.toml").write_text(SMALL_DEVICE)
    store = Store.open(folder / "m.db", create=True)
    measure(islice(sampled_items(get_space("tiny-cnn")), 11), store=store, rounds=2)
    store.close()
    argv = ["fit", "--store", f"{folder}/m.db", "--device", f"{folder}/here.toml", "-o", f"{folder}/m.hwcost", "--json"]
    assert main(argv) == 0
    return folder


# -- fit ------------------------------------------------------------------------------------------------


def test_fit_prints_held_out_accuracy_beside_the_clock(run, made, tmp_path):
    argv = ["fit", "--store", f"{made}/m.db", "--device", f"{made}/here.toml", "-o", f"{tmp_path}/m.hwcost"]
    result = run(*argv)
    assert result.code == 0, result.err
    assert "11 networks held out of the fit: mean error" in result.out
    assert "The clock itself repeats to ±" in result.out
    assert (tmp_path / "m.hwcost").stat().st_size > 0


def test_fit_json(run, made, tmp_path):
    argv = ["fit", "--store", f"{made}/m.db", "--device", f"{made}/here.toml", "-o", f"{tmp_path}/m.hwcost", "--json"]
    document = run(*argv).json
    assert (document["networks"], document["device"], document["runtime"]) == (11, "here", "torch-eager")
    assert set(document["held_out"]) >= {"within_5", "within_10", "mape", "spearman", "coverage_of_interval", "clock"}


def test_fit_leaves_out_what_the_clock_hardly_knows_where_that_leaves_enough(run, made, tmp_path, monkeypatch):
    store = Store.open(made / "m.db")
    widest = max(n.timing.spread for n in store.measurements().networks)
    store.close()
    argv = ["fit", "--store", f"{made}/m.db", "--device", f"{made}/here.toml", "-o", f"{tmp_path}/m.hwcost", "--json"]
    monkeypatch.setattr(modelling, "_TELLING", 0.999 * widest)
    few = run(*argv)
    assert (few.json["networks"], few.json["left_out"]) == (11, 0)  # ten would be too few
    monkeypatch.setattr(modelling, "_ENOUGH", 10)
    result = run(*argv)
    assert (result.json["networks"], result.json["left_out"]) == (10, 1)
    assert "left out 1 of 11 networks, which the clock knows to worse than" in result.err


def test_fit_on_top_of_a_prior(run, made, tmp_path):
    argv = ["fit", "--store", f"{made}/m.db", "--device", f"{made}/here.toml", "--prior", f"{made}/m.hwcost"]
    document = run(*argv, "-o", f"{tmp_path}/both.hwcost", "--json").json
    assert document["networks"] == 11  # of the store; the prior's own are not counted as measured here
    assert CostModel.load(tmp_path / "both.hwcost").prior is not None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"--store": "{tmp}/none.db"}, "none.db"),
        ({"--store": "{made}/here.toml"}, "here.toml"),
        ({"--device": "{tmp}/none.toml"}, "none.toml"),
        ({"--runtime": "onnxruntime"}, "onnxruntime"),
        ({"--threads": "7"}, "7"),
        ({"--prior": "{tmp}/none.hwcost"}, "none.hwcost"),
        ({"--prior": "{made}/m.db"}, "m.db"),
        ({"-o": "{tmp}/none/m.hwcost"}, "no folder"),
    ],
)
def test_fit_refuses(refused, made, tmp_path, changes, match):
    options = {"--store": "{made}/m.db", "--device": "{made}/here.toml", "-o": "{tmp}/m.hwcost"} | changes
    refused(["fit", *(part.format(made=made, tmp=tmp_path) for pair in options.items() for part in pair)], match)
    assert list(tmp_path.iterdir()) == []


# -- evaluate -------------------------------------------------------------------------------------------


def test_evaluate_measures_targets_now(run, made, nets):
    argv = ["evaluate", f"{made}/m.hwcost", f"{nets}:build", f"{nets}:ready", "--input", "1x3x32x32", "--json"]
    document = run(*argv).json
    assert [n["target"] for n in document["networks"]] == [f"{nets}:build", f"{nets}:ready"]
    for n in document["networks"]:
        assert 0 < n["low_s"] <= n["predicted_s"] <= n["high_s"]
        assert n["measured_s"] > 0
    for key in ("within_5", "within_10", "mape", "coverage_of_interval"):
        assert document[key] >= 0
    assert math.isfinite(document["shift"])
    assert document["spearman"] is None  # two networks have no rank correlation


def test_evaluate_on_a_store_says_what_the_fit_has_seen(run, made):
    result = run("evaluate", f"{made}/m.hwcost", "--store", f"{made}/m.db", "--json")
    assert len(result.json["networks"]) == 11
    assert "11 of 11 networks were in the fit" in result.err


def test_evaluate_shows_the_baselines_beside_the_model_and_draws_both(run, made, tmp_path):
    argv = ["evaluate", f"{made}/m.hwcost", "--store", f"{made}/m.db", "--baselines", "--plot", f"{tmp_path}/p.html"]
    document = run(*argv, "--json").json
    names = [b["name"] for b in document["baselines"]]
    assert names == ["flops", "flops + bytes", "roofline", "no roofline", "look-up", "forests"]
    # a roofline is a bound: here of made-up ceilings far above the machine's, so nothing is near it
    assert {b["name"]: b["mape"] for b in document["baselines"]}["roofline"] > document["mape"]
    page = (tmp_path / "p.html").read_text()
    assert "11 networks" in page
    assert "look-up" in page


def test_targets_baselines_table_and_plot_come_from_one_run(run, made, nets, tmp_path):
    """The same two networks, measured once: a line for each, and one for each predictor."""
    targets = (f"{nets}:build", f"{nets}:ready")
    argv = ["evaluate", f"{made}/m.hwcost", *targets, "--input", "1x3x32x32", "--baselines"]
    result = run(*argv, "--plot", f"{tmp_path}/p.html")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    for name in (*(t[-12:] for t in targets), "this model", "flops + bytes", "no roofline", "look-up", "forests"):
        assert sum(name in line for line in lines) == 1, (name, result.out)
    assert "2 networks" in (tmp_path / "p.html").read_text()


def test_evaluate_holds_the_tail_to_the_tail(run, made):
    low, tail = (
        run("evaluate", f"{made}/m.hwcost", "--store", f"{made}/m.db", "--quantile", q, "--json").json["networks"]
        for q in ("low", "tail")
    )
    for what in ("measured_s", "predicted_s"):
        assert all(t[what] > n[what] for n, t in zip(low, tail, strict=True))


def test_evaluate_prints_a_table(run, made):
    result = run("evaluate", f"{made}/m.hwcost", "--store", f"{made}/m.db")
    assert "11 networks: mean error" in result.out


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["{made}/m.hwcost"], "either TARGETs with --input, or --store"),
        (["{made}/m.hwcost", "{nets}:build", "--store", "{made}/m.db"], "either TARGETs"),
        (["{made}/m.hwcost", "{nets}:build"], "needs --input"),
        (["{made}/m.hwcost", "{nets}:raises", "--input", "1x3x8x8"], "no weights"),
        (["{made}/m.hwcost", "{nets}:build", "--input", "1x7x8x8"], "7"),
        (["{made}/m.hwcost", "{nets}:build", "--input", "1x3x8x8", "--threads", "2"], "of threads 1, but threads 2"),
        (["{made}/m.hwcost", "--store", "{nets}"], "nets.py"),
        (["{made}/m.hwcost", "--store", "{made}/m.db", "--quantile", "best"], "a quantile must be one of low, typical"),
        (["{made}/m.hwcost", "--store", "{made}/m.db", "--quantile", "tail", "--baselines"], "baselines say the unl"),
        (["{made}/m.hwcost", "--store", "{made}/m.db", "--plot", "{made}"], "is a folder"),
        (["{made}/here.toml", "--store", "{made}/m.db"], "here.toml"),
        (["none.hwcost", "--store", "{made}/m.db"], "none.hwcost"),
        (["none.csv", "--store", "{made}/m.db"], "a table is read from Parquet, but none.csv ends in .csv"),
    ],
)
def test_evaluate_refuses(refused, made, nets, argv, match):
    refused(["evaluate", *(part.format(made=made, nets=nets) for part in argv)], match)


# -- table ----------------------------------------------------------------------------------------------


SPACE = """
from functools import partial
from torch import nn
from hwcost.search.spaces import Block, Decision, Params, Site, Space


class Plain(Space):
    name = "plain"

    def __init__(self):
        self.decisions = (Decision("width", (8, 16, 24)), Decision("kernel", (3, 5)))
        self.sites = (Site("body", ("width", "kernel"), self.body),)

    def body(self, p: Params) -> Block:
        width, k = p["width"], p["kernel"]
        return Block("body", f"conv {width} {k}", partial(nn.Conv2d, 3, width, k), self.input_shape(p))

    def input_shape(self, params: Params):
        return (1, 3, 32, 32)
"""


def test_table_is_written_and_read_again(run, made, tmp_path):
    """Three widths and two kernel sizes at one place are six blocks."""
    (tmp_path / "plain.py").write_text(SPACE)
    path = tmp_path / "t.parquet"
    argv = ["table", "--space", f"{tmp_path}/plain.py:Plain", "--model", f"{made}/m.hwcost", "-o", str(path), "--json"]
    result = run(*argv)
    assert result.code == 0, result.err
    assert result.json | {"path": str(path), "rows": 6} == result.json
    assert result.json["seconds"] > 0
    table = LatencyTable.load(path)
    assert table.choices == (3, 2)
    assert run(*argv, "--quantile", "tail").code == 0
    tail = LatencyTable.load(path)
    assert (tail.frame["latency_s"] > table.frame["latency_s"]).all()
    with pytest.raises(TableError, match="the same target"):
        table.merge(tail)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"--space": "no-such-space"}, "no-such-space"),
        ({"--model": "none.hwcost"}, "none.hwcost"),
        ({"--runtime": "onnxruntime"}, "of runtime torch-eager, but runtime onnxruntime was asked"),
        ({"--quantile": "0.99"}, "a quantile must be one of low, typical"),
        ({"-o": "/nowhere/t.parquet"}, "no folder /nowhere"),
        ({"--model": "none.hwcost", "-o": "t.json"}, "must end in one of .parquet, .csv"),  # before a model is read
    ],
)
def test_table_refuses(refused, made, tmp_path, changes, match):
    options = {"--space": "tiny-cnn", "--model": f"{made}/m.hwcost", "-o": str(tmp_path / "t.parquet")} | changes
    refused(["table", *(part for pair in options.items() for part in pair)], match)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_model_is_refused(refused, made, tmp_path):
    half = Path(shutil.copy(f"{made}/m.hwcost", tmp_path / "half.hwcost"))
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    refused(["evaluate", str(half), "--store", f"{made}/m.db"], "half.hwcost")
