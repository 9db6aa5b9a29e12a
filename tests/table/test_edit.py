"""Tests of tables without a model: what was measured, what is missing, and rows of two tables together."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import nn

from hwcost import CostModel, Device, LatencyTable, trace
from hwcost.measure.types import Environment, Measurement, Measurements, NetworkMeasurement, Timing
from hwcost.runtimes.registry import get_runtime
from hwcost.spaces.base import Block, BlockList, Decision, Params, Site, Space
from hwcost.table.misses import nearest
from hwcost.table.schema import TableError


class Two(Space):
    """Two layers on four rows, three widths each: 3 and 9 blocks."""

    name = "two"
    decisions = (Decision("first", (8, 16, 32)), Decision("second", (8, 16, 64)))

    def __init__(self) -> None:
        self.sites = (
            Site("a", ("first",), lambda p: _linear("a", 4, p["first"])),
            Site("b", ("first", "second"), lambda p: _linear("b", p["first"], p["second"])),
        )

    def input_shape(self, params: Params) -> tuple[int, ...]:
        return (4, 4)


def _linear(name: str, k: int, n: int) -> Block:
    return Block(name, f"linear 4x{k} {n}", partial(nn.Linear, k, n, bias=False), (4, k))


SPACE = Two()
ARCHITECTURES = [{"first": 8, "second": 8}, {"first": 16, "second": 8}, {"first": 32, "second": 64}]


def timing(seconds: float) -> Timing:
    return Timing(latency=seconds, median=seconds, p95=seconds, spread=0.01, rounds=5)


def measured(architectures: list[Params], slower: float = 1.0, runtime: str = "torch-eager") -> Measurements:
    """Layer k -> n takes k * n us; a network its layers and 5 us."""
    networks = []
    for number, params in enumerate(architectures):
        module = SPACE.build(params)
        placed = get_runtime("torch-eager").lower(trace(module, SPACE.inputs(params))).kernels
        times = [slower * 1e-6 * p.kernel.cost.macs / 4 for p in placed]
        kernels = tuple(
            Measurement(kernel=p.kernel, timing=timing(t), module=p.module, distance=p.distance)
            for p, t in zip(placed, times, strict=True)
        )
        networks.append(
            NetworkMeasurement(
                name=f"two/{number}", family="two", spec={"space": "two", "params": params},
                timing=timing(sum(times) + 5e-6), kernels=kernels, calls=2,
            )
        )  # fmt: skip
    environment = Environment(cpu="simulated", cores=1, runtime=runtime, threads=1)
    return Measurements(environment=environment, networks=tuple(networks))


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return LatencyTable.measured(SPACE, measured(ARCHITECTURES))


def test_rows_straight_from_measurements(table: LatencyTable) -> None:
    rows = table.frame.set_index("block")
    # a: 4 -> 8, 4 -> 16, 4 -> 32; b: 8 -> 8, 16 -> 8, 32 -> 64; k * n us each
    expected = {(4, 8): 32, (4, 16): 64, (4, 32): 128, (8, 8): 64, (16, 8): 128, (32, 64): 2048}
    assert len(table) == len(expected)
    for (k, n), microseconds in expected.items():
        row = rows.loc[f"linear 4x{k} {n}"]
        assert row["latency_s"] == pytest.approx(microseconds * 1e-6)
        assert (row["count"], row["coverage"], row["macs"]) == (1, "measured", 4 * k * n)
    assert table.meta["fixed_s"] == pytest.approx(5e-6)
    assert table.estimate({"first": 16, "second": 8}).latency == pytest.approx(197e-6)


def test_a_miss_names_the_nearest_rows(table: LatencyTable) -> None:
    """16 -> 16 was never measured; 16 -> 8, one doubling away, is nearest."""
    with pytest.raises(TableError, match="no row for block 'linear 4x16 16'; the nearest are 'linear 4x16 8'"):
        table.estimate({"first": 16, "second": 16})
    with pytest.raises(TableError, match="no row for block 'linear 4x16 16'"):
        table.latency([[0, 0], [1, 1]])
    assert table.latency([[0, 0], [1, 0]]).shape == (2,)


def test_nearest_prefers_the_same_kind() -> None:
    rows = ["conv 8x8 k3", "conv 64x64 k3", "conv 9x9 k5", "pool 8x8 k3"]
    assert nearest("conv 16x16 k3", rows, 2) == ["conv 8x8 k3", "conv 9x9 k5"]
    assert nearest("convolution 8x8 k3", rows, 1) == ["conv 8x8 k3"]


def test_a_report_of_hits_and_misses(table: LatencyTable) -> None:
    report = table.hits([[0, 0], [1, 1], [1, 1], [2, 2]])
    assert (report.hits, report.misses) == (6, 2)
    assert report.share == 0.75
    assert report.missing == {"linear 4x16 16": 2}


def test_a_model_prices_what_is_missing(table: LatencyTable, device: Device, measurements: Measurements) -> None:
    model = CostModel.analytic(device)
    some = table.complete(SPACE, model, [[1, 1]])
    assert len(some) == 7
    assert some.estimate({"first": 16, "second": 8}).latency == table.estimate({"first": 16, "second": 8}).latency
    all_of_them = some.complete(SPACE, model)
    assert len(all_of_them) == 3 + 9
    every = np.array([[i, j] for i in range(3) for j in range(3)])
    assert (all_of_them.latency(every) > 0).all()
    fitted = table.complete(SPACE, CostModel.fit(measurements, device=device))
    assert set(fitted.frame) == set(table.frame)  # what was measured has no time at every reach
    assert (fitted.latency(every) > 0).all()
    with pytest.raises(TableError, match="completed for its own target"):
        table.complete(SPACE, CostModel.analytic(device, runtime="onnxruntime"))


def test_a_table_with_misses_is_saved_and_read(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "t.parquet")
    again = LatencyTable.load(tmp_path / "t.parquet")
    assert again.missing == table.missing
    assert again.hits([[1, 1]]) == table.hits([[1, 1]])


def test_merging_weighs_by_how_often_rows_were_measured(table: LatencyTable) -> None:
    """4 -> 8 once at 32 us and twice at 64 us is 53.3 us; what only one has stays."""
    more = LatencyTable.measured(SPACE, measured([{"first": 8, "second": 8}, {"first": 8, "second": 16}], slower=2.0))
    both = table.merge(more)
    rows = both.frame.set_index("block")
    assert rows.loc["linear 4x4 8"]["latency_s"] == pytest.approx((32 + 2 * 64) / 3 * 1e-6, rel=1e-6)
    assert rows.loc["linear 4x4 8"]["count"] == 3
    assert rows.loc["linear 4x8 16"]["latency_s"] == pytest.approx(256e-6, rel=1e-6)
    assert both.estimate({"first": 8, "second": 16}).latency > 0
    with pytest.raises(TableError, match="same target"):
        table.merge(LatencyTable.measured(SPACE, measured(ARCHITECTURES, runtime="onnxruntime")))


def test_the_difference_of_two_devices(table: LatencyTable) -> None:
    slower = LatencyTable.measured(SPACE, measured(ARCHITECTURES[:2], slower=3.0))
    found = table.diff(slower)
    assert len(found) == 4
    assert found["ratio"].tolist() == pytest.approx([3.0] * 4)


def test_evaluation_on_measured_networks(table: LatencyTable) -> None:
    accuracy = table.evaluate(measured(ARCHITECTURES, slower=1.1))
    assert len(accuracy.networks) == 3
    assert accuracy.mape == pytest.approx(1 - 1 / 1.1, abs=0.01)
    with pytest.raises(TableError, match="of runtime torch-eager, but the measurements are of onnxruntime"):
        table.evaluate(measured(ARCHITECTURES, runtime="onnxruntime"))


def test_a_space_that_was_not_measured_is_refused() -> None:
    with pytest.raises(TableError, match="no network of space list was measured"):
        LatencyTable.measured(BlockList("list", [_linear("a", 4, 8)]), measured(ARCHITECTURES))


def test_blocks_of_ones_own(device: Device) -> None:
    blocks = [_linear("one", 8, 8), _linear("two", 8, 16)]
    table = LatencyTable.build(BlockList("own", blocks), CostModel.analytic(device))
    assert table.frame["block"].tolist() == ["linear 4x8 8", "linear 4x8 16"]
    assert table.estimate({"block": "linear 4x8 16"}).latency == table.frame["latency_s"][1]


@pytest.mark.parametrize(
    ("column", "value"), [("latency_s", float("nan")), ("latency_s", -1.0), ("latency_s", float("inf"))]
)
def test_a_file_with_a_row_that_breaks_a_rule(table: LatencyTable, tmp_path: Path, column: str, value: float) -> None:
    table.save(tmp_path / "t.parquet")
    rows = pq.read_table(tmp_path / "t.parquet")
    values = rows[column].to_pylist()
    values[2] = value
    changed = rows.set_column(rows.column_names.index(column), column, pa.array(values))
    pq.write_table(changed, tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"t.parquet: a latency must be above 0 s, but row 2 has"):
        LatencyTable.load(tmp_path / "t.parquet")


def test_a_newer_format_is_refused(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    monkeypatch.setattr("hwcost.table.file.FORMAT", 4)
    table.save(tmp_path / "t.parquet")
    monkeypatch.undo()
    with pytest.raises(TableError, match="has table format 4, but this version reads up to 3; update hwcost"):
        LatencyTable.load(tmp_path / "t.parquet")


def test_a_block_without_kernels_takes_the_time_of_its_calls_whatever_stands_beside_it(
    device: Device, model: CostModel
) -> None:
    """A view is free, and is called all the same: priced alone or with others, its row is one row."""
    view = Block("view", "view 4x8", nn.Flatten, (4, 8))
    alone = LatencyTable.build(BlockList("own", [view]), model)
    beside = LatencyTable.build(BlockList("own", [view, _linear("one", 8, 8)]), model)
    assert alone.frame["latency_s"][0] == beside.frame["latency_s"][0]
    assert alone.frame["kernels"].tolist() == [0]
