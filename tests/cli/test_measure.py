"""Tests of the verb measure: what it measures and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwcost.measure.store.store import Store

Run = Callable[..., Any]


@pytest.mark.parametrize("quantile", ["low", "tail"])
def test_networks_of_a_file_are_measured_and_a_quantile_means_what_it_says(
    run: Run, nets: Path, tmp_path: Path, quantile: str
) -> None:
    argv = ["measure", f"{nets}:build", "-i", "1x3x8x8", "--store", str(tmp_path / "m.db"), "--rounds", "2"]
    (network,) = run(*argv, "--quantile", quantile, "--json").json["networks"]
    assert network["target"] == f"{nets}:build"
    low = run(*argv, "--json").json["networks"][0]["latency_s"]
    assert network["latency_s"] == {"low": low, "tail": network["p95_s"]}[quantile]
    assert 0 < low <= network["median_s"] <= network["p95_s"]
    assert network["rounds"] >= 2
    assert network["spread"] >= 0.01


def test_a_process_that_finds_every_network_taken_says_so(run: Run, nets: Path, tmp_path: Path) -> None:
    argv = ["measure", f"{nets}:build", "-i", "1x3x8x8", "--rounds", "2"]
    name = run(*argv, "--store", str(tmp_path / "a.db"), "--json").json["networks"][0]["name"]
    here = Store.open(tmp_path / "a.db").measurements().environment
    taken = Store.open(tmp_path / "b.db", create=True)
    taken.claim(taken.environment_id(here), [name], "another host:1", seconds=60)
    said = run(*argv, "--store", str(tmp_path / "b.db"))
    assert (said.code, "left to another process, which measures them now: 1" in " ".join(said.out.split())) == (0, True)


def test_what_does_not_belong_together_is_refused(refused: Callable[..., str], nets: Path, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "m.db")]
    target = [f"{nets}:build", "-i", "1x3x8x8"]
    refused(["measure", *target, "--samples", "3", *store], "--samples is for a --space")
    drawn = ["--samples", "1", *store]
    refused(["measure", "--space", "tiny-cnn", "-i", "1x3x8x8", *drawn], "a --space has its own inputs")
    refused(["measure", "--space", "nothing", *drawn], "or `designed`")


def test_a_network_that_is_named_twice_is_measured_once(run: Run, nets: Path, tmp_path: Path) -> None:
    target = [f"{nets}:build", f"{nets}:build", "-i", "1x3x8x8"]
    found = run("measure", *target, "--rounds", "2", "--store", str(tmp_path / "m.db"), "--json")
    assert (found.code, len(found.json["networks"])) == (0, 1)
