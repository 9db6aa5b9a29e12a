"""Tests of hwcost.model.residual: features that say the same of equal kernels, and a fit that is repeatable."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from hwcost.device.device import Device
from hwcost.measure.types import Measurements
from hwcost.model.features import NAMES, Columns, Target, columns
from hwcost.model.learned import Bins, _identities
from hwcost.model.residual import Residual, known_as
from hwcost.model.trees import Settings

NO_TREES = Settings(iterations=1, learning_rate=1e-9)


def _data(measurements: Measurements, device: Device):  # type: ignore[no-untyped-def]
    rows = [m for n in measurements.networks for m in n.kernels]
    return columns([(m.kernel, m.distance) for m in rows], Target(device, 1)), np.array(
        [m.timing.latency for m in rows]
    )


def _rows(data: Columns, rows: np.ndarray) -> Columns:
    """Some of the kernels."""
    arrays = (data.flops, data.compute_time, data.at_best, data.memory_time, data.floor, data.streams, data.features)
    return Columns(*(a[rows] for a in arrays), tuple(data.kinds[i] for i in rows))


def test_a_column_for_every_name(measurements: Measurements, device: Device) -> None:
    data, latency = _data(measurements, device)
    assert data.features.shape == (len(latency), len(NAMES))
    assert np.isfinite(data.features).all()


def test_no_time_below_the_ceilings(measurements: Measurements, device: Device) -> None:
    """The simulated machine never beats its ceilings, so the predictions must not either, by more
    than the trees' own error (5 %)."""
    data, latency = _data(measurements, device)
    predicted = Residual.fit(data, latency, np.ones_like(latency)).predict(data)
    assert (predicted.latency >= 0.95 * data.roofline).all()


def test_without_trees_a_machine_without_overlap_is_found_exactly(measurements: Measurements, device: Device) -> None:
    """One that computes at half its peak, reads activations at a third of the bandwidth, writes at the whole of it,
    keeps weights where they cost nothing, and takes 4 us to launch."""
    data, _ = _data(measurements, device)
    latency = 2 * data.compute_time + 3 * data.streams[:, 1] + data.streams[:, 2] + 4e-6
    few = Residual.fit(data, latency, np.ones_like(latency), settings=NO_TREES)
    assert few.predict(data).latency == pytest.approx(latency, rel=1e-6)


def test_what_a_kinds_kernels_do_not_tell_is_as_with_all_kinds(measurements: Measurements, device: Device) -> None:
    """Where weights cost twice what DRAM takes, they do so in a kind of which nobody has seen one with weights."""
    data, _ = _data(measurements, device)
    latency = data.compute_time + 2 * data.streams[:, 0] + data.streams[:, 1] + data.streams[:, 2] + 4e-6
    few = Residual.fit(data, latency, np.ones_like(latency), settings=NO_TREES)
    plain = next(k for k in set(data.kinds) if not data.streams[np.array(data.kinds) == k, 0].any())
    (row, *_) = np.flatnonzero(np.array(data.kinds) == plain)
    (before,) = few.predict(_rows(data, np.array([row]))).latency
    data.streams[row, 0] = 1e-3
    (after,) = few.predict(_rows(data, np.array([row]))).latency
    assert after - before == pytest.approx(2e-3, rel=1e-6)


def test_the_same_data_give_the_same_fit_in_another_process() -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests'); import conftest as c; from hwcost import CostModel, Device;"
        "m = CostModel.fit(c.simulate(20, 0), device=Device.from_toml(c.DEVICE));"
        "print(m.digest, repr(m.held_out.mape))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_a_kernel_that_was_measured_is_known_and_any_other_is_not(measurements: Measurements, device: Device) -> None:
    data, latency = _data(measurements, device)
    distinct = np.unique(data.features, axis=0, return_index=True)[1]
    first, rest = distinct[::2], distinct[1::2]
    fitted = Residual.fit(_rows(data, first), latency[first], np.ones(len(first)))
    assert fitted.predict(_rows(data, first)).known.all()
    assert not fitted.predict(_rows(data, rest)).known.any()


@pytest.mark.parametrize(("networks", "share"), [(1, 1 / 2), (3, 3 / 4), (99, 0.99)])
def test_a_kernel_is_believed_by_how_many_networks_held_it(
    measurements: Measurements, device: Device, networks: int, share: float
) -> None:
    """Half of what the trees leave where one did, as with one observation of a value whose prior weighs one."""
    data, latency = _data(measurements, device)
    distinct = np.unique(data.features, axis=0, return_index=True)[1]
    data, latency = _rows(data, distinct), latency[distinct]
    few, ones = Settings(iterations=1), np.ones_like(latency)
    without = Residual.fit(data, latency, ones, 0 * ones, settings=few).predict(data).latency
    found = Residual.fit(data, latency, ones, networks * ones, settings=few).predict(data).latency
    assert np.log(found / without) == pytest.approx(share * np.log(latency / without), abs=1e-9)


@pytest.mark.parametrize("towards", [-np.inf, np.inf])
def test_a_cpu_whose_logarithms_differ_in_the_last_bit_knows_the_measured_kernels(
    measurements: Measurements, device: Device, towards: float
) -> None:
    data, latency = _data(measurements, device)
    fitted = Residual.fit(data, latency, np.ones_like(latency))
    there = dataclasses.replace(data, features=np.nextafter(data.features, towards))
    assert fitted.predict(there).known.all()
    assert fitted.predict(there).latency == pytest.approx(fitted.predict(data).latency, rel=1e-12)


@pytest.mark.parametrize("distinct", [200, 2000], ids=["few values", "many values"])
def test_a_cpu_whose_logarithms_differ_in_the_last_bit_finds_the_same_bins(distinct: int) -> None:
    column = np.log2(1.0 + np.random.default_rng(0).permutation(distinct))
    bins = Bins.of(np.column_stack([np.zeros(distinct), column]), np.ones(distinct))
    here, above, below = (
        bins(np.column_stack([np.zeros(distinct), x]))
        for x in (column, np.nextafter(column, np.inf), np.nextafter(column, -np.inf))
    )
    assert np.array_equal(here, above)
    assert np.array_equal(here, below)
    assert len(np.unique(here[:, 1])) == min(distinct, 255)


def test_more_kinds_than_the_trees_tell_apart_are_refused(measurements: Measurements, device: Device) -> None:
    data, latency = _data(measurements, device)
    rows = np.resize(np.arange(len(latency)), 300)
    many = dataclasses.replace(_rows(data, rows), kinds=tuple(f"kind {n}" for n in range(300)))
    with pytest.raises(ValueError, match="at most 255 kinds of kernel apart, but got 300"):
        Residual.fit(many, latency[rows], np.ones(300))


def test_errors_of_measured_kernels_are_kept_apart(measurements: Measurements, device: Device) -> None:
    data, latency = _data(measurements, device)
    one, errors = _rows(data, np.array([0])), {data.kinds[0]: 0.3, known_as(data.kinds[0]): 0.02}
    others = np.flatnonzero((data.features != data.features[0]).any(axis=1))
    everything, less = (
        Residual.fit(_rows(data, rows), latency[rows], np.ones(len(rows))).predict(one, errors)
        for rows in (np.arange(len(latency)), others)
    )
    assert (everything.sigma, less.sigma) == ([0.02], [0.3])


def test_rows_of_small_numbers_have_one_identity_each_and_equal_rows_the_same() -> None:
    """Few bits of such numbers are set, and columns that change places are another kernel."""
    rows = np.unique(np.random.default_rng(0).integers(0, 4, (20_000, 8)).astype(float) / 2, axis=0)
    found = _identities(rows)
    assert len(np.unique(found)) == len(rows)
    np.testing.assert_array_equal(_identities(rows[::-1].copy()), found[::-1])
    assert len(np.intersect1d(_identities(rows[:, ::-1].copy()), found)) == len(
        {tuple(r) for r in rows[:, ::-1].tolist()} & {tuple(r) for r in rows.tolist()}
    )
