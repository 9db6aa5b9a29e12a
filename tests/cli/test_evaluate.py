"""Tests of the verb evaluate, on a store that is measured here with the smallest effort."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest


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


def test_targets_baselines_table_and_plot_come_from_one_run(run, made, nets, tmp_path, monkeypatch):
    """The same two networks, measured once: a line for each, and one for each predictor."""
    monkeypatch.chdir(nets.parent)  # a long path would be cut in the table
    targets = (f"{nets.name}:build", f"{nets.name}:ready")
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


def test_a_truncated_model_is_refused(refused, made, tmp_path):
    half = Path(shutil.copy(f"{made}/m.hwcost", tmp_path / "half.hwcost"))
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    refused(["evaluate", str(half), "--store", f"{made}/m.db"], "half.hwcost")
