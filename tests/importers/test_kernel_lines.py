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


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], r":1: the first line must be \{\"environment\""),
        ([PLACE, "{"], r":2: every line must be a JSON document"),
        ([PLACE, "[1]"], r":2: every line must be a JSON object"),
        ([PLACE, f'{{"kernel": [{RELU}]}}'], r":2: a kernel must have kernel and latency_s"),
        ([PLACE, f'{{"kernel": [{RELU}], "latency_s": -1}}'], r":2: latency_s must be a number above 0, but got -1"),
        ([PLACE, '{"kernel": [{"kind": 1}], "latency_s": 1}'], r":2: a kernel is a JSON list of ops"),
        (['{"environment": {"cpus": 1}}'], r":1: an environment that cannot be read"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: list[str], said: str) -> None:
    (tmp_path / "k.jsonl").write_text("\n".join(lines))
    with pytest.raises(FormatError, match=said):
        read("kernels", tmp_path / "k.jsonl")
