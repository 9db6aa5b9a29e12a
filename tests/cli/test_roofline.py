"""Tests of the verb roofline."""

from __future__ import annotations

import json
import re

import pytest


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
