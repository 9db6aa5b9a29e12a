"""Tests of hwcost.measure.exchange: what is exported comes back, and damage is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hwcost.graph import OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.measure.exchange import card, export, load, load_period
from hwcost.measure.store.store import Store
from hwcost.measure.store.summaries import rounded
from hwcost.measure.tables import from_tables, to_tables
from hwcost.measure.types import Environment, Measurement, MeasurementError, Measurements, NetworkMeasurement, Timing


def timing(latency: float, *flags: str) -> Timing:
    return Timing(latency=latency, median=2 * latency, p95=3 * latency, spread=0.0625, rounds=8, flags=flags)


def network(name: str, latency: float, *flags: str) -> NetworkMeasurement:
    kernel = Kernel((OpSpec("relu", (TensorSpec("self", (8,)),), (TensorSpec("out", (8,)),)),))
    inside = Measurement(kernel=kernel, timing=timing(latency / 2), module="a.b", distance=32)
    return NetworkMeasurement(
        name=name, family="toy", spec={"n": [1, 2]}, timing=timing(latency, *flags), kernels=(inside, inside), calls=3
    )


here = Environment(cpu="A", cores=2, runtime="torch-eager", threads=1, versions={"torch": "2.13"})
measured = Measurements(environment=here, networks=(network("one", 0.001), network("two", 0.5, "unstable")))


def test_what_is_exported_comes_back(tmp_path: Path) -> None:
    assert load(export(measured, tmp_path / "new" / "folder")) == measured


def test_an_export_goes_back_into_a_store_and_comes_out_the_same(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "m.db", create=True)
    assert store.add_measurements(load(export(measured, tmp_path / "one")), taken=5.0) == 2
    assert store.measurements("torch-eager", 1) == measured
    assert store.add_measurements(measured) == 0  # what is there stays
    assert store.period() == (5.0, 5.0)
    again = export(store.measurements(), tmp_path / "two")
    for name in ("networks", "kernels", "times"):
        assert (again / f"{name}.parquet").read_bytes() == (tmp_path / "one" / f"{name}.parquet").read_bytes()


def test_an_export_knows_when_it_was_taken(tmp_path: Path) -> None:
    folder = export(measured, tmp_path, period=(0.0, 86_400.0))
    assert load_period(folder) == (0.0, 86_400.0)
    assert "1970-01-01 00:00 UTC to 1970-01-02 00:00 UTC" in (folder / "README.md").read_text()
    assert load_period(export(measured, tmp_path)) is None


def test_kernels_take_about_eight_bytes_each(tmp_path: Path) -> None:
    """1,000 networks of 100 kernels must fit below a megabyte; these times are as noisy as measured ones."""
    rng = np.random.default_rng(0)

    def noisy(kernel: Kernel) -> Measurement:
        latency = float(rng.lognormal(-9, 1.5))
        median, p95 = latency * rng.uniform(1, 1.2), latency * rng.uniform(1.2, 2)
        timing = Timing(latency=latency, median=median, p95=p95, spread=float(rng.uniform(0.01, 0.1)), rounds=12)
        distance = int(rng.integers(20)) << 16
        return Measurement(kernel=kernel, timing=rounded(timing), module=f"body.{rng.integers(50)}", distance=distance)

    kernels = [Kernel((OpSpec("relu", (TensorSpec("self", (n,)),), (TensorSpec("out", (n,)),)),)) for n in range(300)]
    networks = tuple(
        replace(network(str(i), 0.01), kernels=tuple(noisy(kernels[k]) for k in rng.integers(300, size=100)))
        for i in range(100)
    )
    folder = export(Measurements(environment=here, networks=networks), tmp_path)
    assert (folder / "times.parquet").stat().st_size < 9.5 * 100 * 100


def test_the_card_says_what_where_and_how_repeatable() -> None:
    text = card(measured, command="hwcost measure")
    for said in ("2 networks of toy (2)", "1 ms to 500 ms", "4 kernels in context, 1 distinct", "torch 2.13",
                 "torch-eager on 1 thread", "6.2% in the median", "1 flagged unstable",
                 "`hwcost measure`"):  # fmt: skip
        assert said in text


def test_nothing_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no measured network"):
        export(Measurements(environment=here, networks=()), tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (export(measured, tmp_path) / "kernels.parquet").unlink()
    with pytest.raises(MeasurementError, match=r"must have kernels\.parquet"):
        load(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (export(measured, tmp_path) / "times.parquet").write_bytes(b"no parquet")
    with pytest.raises(MeasurementError, match=r"times\.parquet is no Parquet file"):
        load(tmp_path)


@pytest.mark.parametrize("spec", [None, "{", "7x"])
def test_a_specification_that_is_no_json_is_refused_in_one_line(spec: str | None) -> None:
    tables = to_tables(measured)
    networks = tables["networks"]
    column = networks.schema.get_field_index("spec")
    tables["networks"] = networks.set_column(column, "spec", pa.array([spec] * len(networks), pa.string()))
    with pytest.raises(MeasurementError, match="measurements that cannot be read") as caught:
        from_tables(tables)
    assert "\n" not in str(caught.value)
