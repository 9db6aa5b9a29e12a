"""Tests of the verb table."""

from __future__ import annotations

import pytest

from hwcost.table.schema import TableError
from hwcost.table.table import LatencyTable

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
