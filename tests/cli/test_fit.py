"""Tests of the verb fit, on a store that is measured here with the smallest effort."""

from __future__ import annotations

import pytest

from hwcost.cli import fit
from hwcost.measure.store.store import Store
from hwcost.model.cost_model import CostModel


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
    monkeypatch.setattr(fit, "_WIDEST", 0.999 * widest)
    few = run(*argv)
    assert (few.json["networks"], few.json["left_out"]) == (11, 0)  # ten would be too few
    monkeypatch.setattr(fit, "_ENOUGH", 10)
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
