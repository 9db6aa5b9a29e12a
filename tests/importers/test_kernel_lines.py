"""Tests of hwcost.importers.kernel_lines: kernels written by any program; bad lines are named."""

import json
from pathlib import Path

import pytest

from hwcost.importers.registry import FormatError, read

RELU = '{"kind": "relu", "in": [{"name": "self", "shape": [8]}], "out": [{"name": "out", "shape": [8]}]}'
PLACE = '{"environment": {"cpu": "A72", "cores": 4, "runtime": "torch-eager", "threads": 1}}'


def test_kernels_by_description(tmp_path: Path) -> None:
    rows = [{"kernel": [json.loads(RELU)], "latency_s": 1.5e-6, "spread": 0.02, "rounds": 9, "distance": 64}]
    (tmp_path / "pi.jsonl").write_text("\n".join([PLACE, *map(json.dumps, rows), ""]))
    (found,) = read("kernels", tmp_path / "pi.jsonl").measurements
    assert (found.environment.cpu, found.environment.cores) == ("A72", 4)
    (measured,) = found.networks[0].kernels
    assert measured.kernel.name == "relu"
    assert (measured.timing.latency, measured.timing.rounds, measured.distance) == (1.5e-6, 9, 64)
    assert found.networks[0].is_lone


def linear(**marked: bool) -> str:
    weight = {"name": "weight", "shape": [4, 8], **marked}
    op = {
        "kind": "linear",
        "in": [{"name": "input", "shape": [2, 8]}, weight],
        "out": [{"name": "out", "shape": [2, 4]}],
    }
    return json.dumps(op)


@pytest.mark.parametrize("weight", [True, False])
def test_weights_that_are_marked_as_what_they_are(tmp_path: Path, weight: bool) -> None:
    """[4, 8] numbers of 4 byte: of the layer, or computed by the network."""
    (tmp_path / "k.jsonl").write_text(f'{PLACE}\n{{"kernel": [{linear(weight=weight)}], "latency_s": 1}}')
    (found,) = read("kernels", tmp_path / "k.jsonl").measurements
    cost = found.networks[0].kernels[0].kernel.cost
    assert (cost.bytes_weights, cost.bytes_activations) == ((128, 64) if weight else (0, 192))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], r":1: the first line must be \{\"environment\""),
        ([PLACE, "{"], r":2: every line must be a JSON document"),
        ([PLACE, "[1]"], r":2: every line must be a JSON object"),
        ([PLACE, f'{{"kernel": [{RELU}]}}'], r":2: a kernel must have kernel and latency_s"),
        ([PLACE, f'{{"kernel": [{RELU}], "latency_s": -1}}'], r":2: latency_s must be a number above 0, but got -1"),
        ([PLACE, '{"kernel": [{"kind": 1}], "latency_s": 1}'], r":2: a kernel is a JSON list of ops"),
        (
            [PLACE, f'{{"kernel": [{RELU.replace("relu", "reluu")}], "latency_s": 1}}'],
            r":2: kind must be one that a rule counts, but got 'reluu'; did you mean 'relu'\?",
        ),
        ([PLACE, f'{{"kernel": [{linear()}], "latency_s": 1}}'], r':2: a linear must have .* marked "weight": true'),
        (['{"environment": {"cpus": 1}}'], r":1: an environment that cannot be read"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: list[str], said: str) -> None:
    (tmp_path / "k.jsonl").write_text("\n".join(lines))
    with pytest.raises(FormatError, match=said):
        read("kernels", tmp_path / "k.jsonl")


LINE = {"kernel": [json.loads(RELU)], "latency_s": 1e-6}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rounds": "many"}, "rounds must be a whole number from 1 on, but got 'many'"),
        ({"rounds": 2.5}, "rounds must be a whole number"),
        ({"rounds": 0}, "rounds must be a whole number from 1 on"),
        ({"distance": None}, "distance must be a whole number from -1 on, but got None"),
        ({"distance": 1 << 80}, "distance must be a whole number"),
        ({"latency_s": "1_0"}, "latency_s must be a number above 0"),
        ({"latency_s": True}, "latency_s must be a number above 0"),
        ({"kernel": [{"kind": "conv2d", "in": [], "out": []}]}, "the work of kernel conv2d cannot be counted"),
        (
            {"kernel": [{"kind": "relu", "in": [{"name": "x", "shape": [1 << 63]}], "out": []}]},
            "whole numbers from 0 to",
        ),
        ({"kernel": [{"kind": "relu", "in": [{"name": 1, "shape": [2]}], "out": []}]}, "must be text"),
        ({"kernel": [{"kind": "relu", "in": [{"name": "x", "shape": [2], "layout": {}}], "out": []}]}, "must be text"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    (tmp_path / "k.jsonl").write_text("\n".join([PLACE, json.dumps(LINE | change)]))
    with pytest.raises(FormatError, match=said) as caught:
        read("kernels", tmp_path / "k.jsonl")
    assert "k.jsonl:2: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ['{"latency_s": NaN}', '{"a": 1e999}', "[" * 100_000, "\x00"])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "k.jsonl").write_text("\n".join([PLACE, line]))
    with pytest.raises(FormatError, match=r":2: every line must be a JSON"):
        read("kernels", tmp_path / "k.jsonl")


@pytest.mark.parametrize(
    "change", [{"cpu": 1}, {"cores": "4"}, {"threads": 0}, {"threads": True}, {"versions": {"torch": 2}}, {"pinned": 1}]
)
def test_an_environment_has_its_types(tmp_path: Path, change: dict[str, object]) -> None:
    place = json.loads(PLACE)["environment"] | change
    (tmp_path / "k.jsonl").write_text(json.dumps({"environment": place}))
    with pytest.raises(FormatError, match=r":1: an environment that cannot be read"):
        read("kernels", tmp_path / "k.jsonl")
