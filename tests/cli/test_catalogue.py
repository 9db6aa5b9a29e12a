"""Tests of the verbs devices and roofline."""

from __future__ import annotations

import json
import re

import pytest


def test_devices_lists_the_catalogue(run):
    result = run("devices")
    assert result.code == 0
    assert "intel-i9-10980xe" in result.out


def test_devices_json_is_in_si(run):
    devices = {d["name"]: d for d in run("devices", "--json").json["devices"]}
    article = devices["intel-i9-10980xe"]  # measured under AVX-512 load: 2.86 TFLOP/s and 74 GB/s, ridge 38.6
    assert article["peak_flop_per_s"] == 2.86e12
    assert article["bandwidth_byte_per_s"] == 74e9
    assert article["ridge_flop_per_byte"] == pytest.approx(38.6, abs=0.05)


def test_one_device_with_its_sources(run, toy_device):
    result = run("devices", str(toy_device))
    assert "80 GFLOP/s" in result.out
    assert "100 GFLOP/s" in result.out
    assert "made up" in result.out
    assert "ridge point 8 FLOP/B" in result.out


def test_one_device_json(run, toy_device):
    document = run("devices", str(toy_device), "--json").json
    assert (
        document["compute"][0] | {"measured": 80e9, "paper": 100e9, "paper_source": "made up"} == document["compute"][0]
    )
    assert document["memory"][0]["measured"] == 10e9


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("no-such-device", "no-such-device"),
        ("missing.toml", "missing.toml"),
        ("bad.toml", "bad.toml.*bandwidth|bad.toml"),
    ],
)
def test_a_device_that_cannot_be_had(refused, tmp_path, monkeypatch, name, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text('name = "x"\n[[compute]]\nmeasured = "3 GB/s"\n')
    refused(["devices", name], match)


# -- roofline -------------------------------------------------------------------------------------------


@pytest.fixture
def argv(nets, toy_device, tmp_path):
    """A good command line, as a dict of its parts to replace."""
    parts = {
        "target": f"{nets}:build",
        "input": "1x3x8x8",
        "device": str(toy_device),
        "output": str(tmp_path / "p.html"),
    }

    def make(**changes):
        p = parts | changes
        return ["roofline", p["target"], "--input", p["input"], "--device", p["device"], "-o", p["output"]]

    return make


def test_roofline_writes_a_page_with_the_kernels(run, argv, tmp_path):
    result = run(*argv())
    assert result.code == 0, result.err
    page = (tmp_path / "p.html").read_text()
    data = re.search(r'application/json">(.*?)</script>', page, re.DOTALL)
    names = [t.get("name") or "" for t in json.loads(data[1])["data"]]
    assert any(name.startswith("conv2d") for name in names)


def test_roofline_json(run, argv):
    document = run(*argv(), "--json").json
    (network,) = document["networks"]
    assert document["device"] == "toy"
    assert network["kernels"] == 4  # conv2d, relu, mean, linear
    assert 0 <= network["memory_share"] <= 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"target": "nowhere.models:x"}, "nowhere"),
        ({"target": "resnet18"}, "must be package.module:callable"),
        ({"input": "1x3x"}, "--input must be sizes"),
        ({"input": "1x5x8x8"}, "5"),  # the network takes 3 channels
        ({"input": "1x3x8x8:int64"}, "int64"),
        ({"device": "none"}, "none"),
        ({"output": "/nowhere/p.html"}, "no folder /nowhere"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(refused, argv, tmp_path, changes, match):
    before = set(tmp_path.iterdir())
    refused(argv(**changes), match)
    assert {p for p in tmp_path.iterdir() if p.name != "__pycache__"} == before


def test_kwargs_reach_the_callable(run, refused, argv):
    wide = run(*argv(), "--json", "--kwargs", '{"width": 64}').json["networks"][0]
    narrow = run(*argv(), "--json").json["networks"][0]
    assert wide["intensity"] > narrow["intensity"]
    refused([*argv(), "--kwargs", "{"], "--kwargs must be a JSON object")
