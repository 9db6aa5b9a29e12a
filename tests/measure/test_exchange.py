"""Tests of hwcost.measure.exchange: what is exported comes back, and damage is named."""

from pathlib import Path

import pytest

from hwcost.graph import OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.measure import Environment, Measurement, MeasurementError, Measurements, NetworkMeasurement, Timing
from hwcost.measure.exchange import card, export, load


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
