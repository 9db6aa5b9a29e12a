"""Tests of hwcost.table.table: composition, look-up against a naive loop, files, and refusals."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import nn

import hwcost
from hwcost import CostModel, Device, LatencyTable
from hwcost.measure.types import Measurements
from hwcost.spaces.base import Block, Decision, Params, Site, Space
from hwcost.table.file import write
from hwcost.table.schema import Head, TableError


class Layers(Space):
    """Two or three fully connected layers on 64 rows; the third only where depth says so."""

    name = "layers"
    decisions = (
        Decision("depth", (2, 3)),
        Decision("first", (64, 128, 256)),
        Decision("second", (64, 128)),
        Decision("third", (64, 256), ("depth", (3,))),
    )

    def __init__(self) -> None:
        self.sites = (
            Site("a", ("first",), lambda p: _linear("a", 128, p["first"])),
            Site("b", ("first", "second"), lambda p: _linear("b", p["first"], p["second"])),
            Site("c", ("depth", "second", "third"), self._third),
        )

    def _third(self, p: Params) -> Block | None:
        return _linear("c", p["second"], p["third"]) if p["depth"] == 3 else None

    def input_shape(self, params: Params) -> tuple[int, ...]:
        return (64, 128)


def _linear(name: str, k: int, n: int) -> Block:
    return Block(name, f"linear 64x{k} {n}", partial(nn.Linear, k, n, bias=False), (64, k))


SPACE = Layers()


@pytest.fixture(scope="module")
def model(measurements: Measurements, device: Device) -> CostModel:
    return CostModel.fit(measurements, device=device)


@pytest.fixture(scope="module")
def table(model: CostModel) -> LatencyTable:
    return LatencyTable.build(SPACE, model)


def test_a_row_for_every_distinct_block(table: LatencyTable) -> None:
    # a: 128 -> {64, 128, 256}; b: {64, 128, 256} -> {64, 128}; c: {64, 128} -> {64, 256}. The layers
    # 128 -> 64, 128 -> 128 and 128 -> 256 stand at several places, 64 -> 64 too: the distinct ones are
    # {64, 128, 256} x {64, 128} and {64, 128} -> 256, which is 8.
    assert len(table) == 8
    assert table.choices == (2, 3, 2, 2)
    row = table.frame.set_index("block").loc["linear 64x128 256"]
    assert row["macs"] == 64 * 128 * 256
    assert row["params"] == 128 * 256
    assert row["bytes"] == 4 * (64 * 128 + 128 * 256 + 64 * 256)
    assert row["low_s"] < row["latency_s"] < row["high_s"]


def test_the_sum_of_the_blocks_is_the_estimate_of_the_built_network(table: LatencyTable, model: CostModel) -> None:
    for params in SPACE:
        built = model.estimate(SPACE.build(params), SPACE.inputs(params))
        assert table.estimate(params).latency == pytest.approx(built.latency, rel=1e-9)
        assert table.latency(SPACE.choices(params))[0] == pytest.approx(built.latency, rel=1e-9)


def test_the_other_quantities_are_those_of_the_built_network_too(table: LatencyTable, model: CostModel) -> None:
    for params in SPACE:
        graph, found = hwcost.trace(SPACE.build(params), SPACE.inputs(params)), table.estimate(params)
        assert (found.macs, found.flops, found.bytes, found.params) == (
            graph.cost.macs, graph.cost.flops, graph.cost.bytes, graph.params,
        )  # fmt: skip
        assert found.peak_memory == graph.peak_memory
        blocks = model.estimate(graph).blocks
        assert list(found.blocks) == list(blocks)
        for name, block in found.blocks.items():
            assert block.latency < blocks[name].latency  # a block of the network bears its part of the fixed overhead


def test_intervals_are_close_to_those_of_the_built_network(table: LatencyTable, model: CostModel) -> None:
    for params in SPACE:
        built, looked_up = model.estimate(SPACE.build(params), SPACE.inputs(params)), table.estimate(params)
        # the table knows errors by block, not by kernel, and in the mean over how far its networks reach: equal
        # kernels of different blocks err apart, and what was measured at one reach only counts as partly known
        assert looked_up.high / looked_up.latency == pytest.approx(built.high / built.latency, rel=0.02)


def test_look_up_against_a_naive_loop(table: LatencyTable) -> None:
    rng = np.random.default_rng(0)
    choices = np.column_stack([rng.integers(0, n, 200_000) for n in table.choices])
    latency = table.latency(choices)
    for i in rng.integers(0, len(choices), 50):
        assert latency[i] == pytest.approx(table.estimate(choices[i]).latency)


def test_choices_of_inactive_decisions_do_not_matter(table: LatencyTable) -> None:
    two_layers = table.latency([[0, 1, 1, 0], [0, 1, 1, 1]])
    assert two_layers[0] == two_layers[1]


def test_saving_and_loading_gives_the_same_table(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "t.parquet")
    again = LatencyTable.load(tmp_path / "t.parquet")
    everything = np.array([SPACE.choices(p) for p in SPACE])
    assert (again.latency(everything) == table.latency(everything)).all()
    assert again.meta == table.meta
    assert again.meta["source"].startswith("fitted on 80 networks (80 simulated) measured on simulated, torch-eager")
    assert again.meta["target"] == {"device": "simulated", "runtime": "torch-eager", "threads": 1, "dtype": "float32"}


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ([[0, 0, 0]], r"must be integers of the shape \[n, 4\]"),
        ([[0, 3, 0, 0]], r"'first' must lie in 0..2, but row 0 has 3"),
        ([0, 0, 2, 0], r"'second' must lie in 0..1, but row 0 has 2"),
        ([0, 0, 0, -1], r"'third' must lie in 0..1, but row 0 has -1"),
        ([0.0, 0.0, 0.0, 0.0], r"must be integers of the shape \[n, 4\], but got float64 of \(4,\)"),
        ([[0, 0, 0, 0], [0, 0, -1, 0]], r"'second' must lie in 0..1, but row 1 has -1"),
    ],
)
def test_choices_that_do_not_exist_are_refused(table: LatencyTable, choices: list[Any], said: str) -> None:
    with pytest.raises(TableError, match=said):
        table.latency(choices)


def test_another_space_is_refused(table: LatencyTable) -> None:
    with pytest.raises(TableError, match="space layers, which has no decision 'kernel'"):
        table.estimate({"kernel": 3})
    with pytest.raises(TableError, match=r"'first' must be one of \[64, 128, 256\], but got 65"):
        table.estimate({"depth": 2, "first": 65, "second": 64})
    with pytest.raises(TableError, match=r"'second' must be given, one of \[64, 128\], but got none"):
        table.estimate({"depth": 2, "first": 64})
    with pytest.raises(TableError, match="'third' must be given"):  # it is active where the depth is 3
        table.estimate({"depth": 3, "first": 64, "second": 64})


@pytest.mark.parametrize("column", ["latency_s", "reach_2_s"])
@pytest.mark.parametrize("value", [math.nan, -1e-3, 0.0])
def test_a_row_that_breaks_a_rule_is_refused(table: LatencyTable, column: str, value: float) -> None:
    frame = table.frame.copy()
    frame.loc[3, column] = value
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    with pytest.raises(TableError, match=f"a latency must be above 0 s, but row 3 has {value} in {column}"):
        LatencyTable(rows, table.places, table.meta)


def test_files_that_are_no_table_are_refused(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no latency table .*missing.parquet"):
        LatencyTable.load(tmp_path / "missing.parquet")
    table.save(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TableError, match="truncated"):
        LatencyTable.load(tmp_path / "cut.parquet")
    pq.write_table(pq.read_table(tmp_path / "t.parquet").replace_schema_metadata({}), tmp_path / "bare.parquet")
    with pytest.raises(TableError, match="no latency table of hwcost"):
        LatencyTable.load(tmp_path / "bare.parquet")


def test_a_table_that_cannot_be_written_says_so(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be written"):
        table.save(tmp_path / "no" / "such" / "folder" / "t.parquet")


def test_blocks_cost_no_memory(model: CostModel) -> None:
    """Blocks are built on meta, so a space of huge layers can be priced."""

    class Huge(Layers):
        def __init__(self) -> None:
            self.sites = (Site("a", ("first",), lambda p: _linear("a", 10**6, 10**6)),)

    table = LatencyTable.build(Huge(), model)
    assert table.frame["params"][0] == 10**12


FRESH = """
import sys
import hwcost
table = hwcost.LatencyTable.load(sys.argv[1])
print(table.latency([0, 2, 1, 0])[0], table.estimate({"depth": 2, "first": 256, "second": 128}).latency)
print(*sys.modules)
"""


def test_reading_and_asking_needs_no_library_of_models(table: LatencyTable, tmp_path: Path) -> None:
    """In a fresh process, which gives the same numbers."""
    table.save(tmp_path / "t.parquet")
    argv = [sys.executable, "-c", FRESH, str(tmp_path / "t.parquet")]
    found, modules = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [float(seconds) for seconds in found.split()] == [
        table.latency([0, 2, 1, 0])[0],
        table.estimate({"depth": 2, "first": 256, "second": 128}).latency,
    ]
    assert not {"torch", "sklearn", "scipy", "joblib", "pandas", "optuna"} & set(modules.split())


def test_the_frame_is_a_copy_of_the_rows(table: LatencyTable) -> None:
    assert list(table.frame.columns) == table.rows.column_names
    assert table.frame["latency_s"].tolist() == table.rows["latency_s"].to_pylist()


def test_columns_that_should_be_numbers_are_refused(table: LatencyTable, tmp_path: Path) -> None:
    number = table.rows.column_names.index("latency_s")
    words = table.rows.set_column(number, "latency_s", pa.array(["short"] * len(table)))
    path = tmp_path / "t.parquet"
    write(words, Head(table.places, table.meta), path)
    with pytest.raises(TableError, match=r"t\.parquet must have numbers in the columns \['latency_s'\]; make it again"):
        LatencyTable.load(path)
