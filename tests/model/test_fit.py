"""Tests of hwcost.model.fit and hwcost.model.errors: overhead and errors, on numbers whose law is written out here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost import CostModel
from hwcost.device.device import Device
from hwcost.measure.statistics import DRIFT
from hwcost.measure.types import Measurement, Measurements, Timing
from hwcost.model.errors import calibrated, errors_by_kind, parts_of_error, with_drift
from hwcost.model.features import Target, columns
from hwcost.model.overhead import Overhead, _fit_overhead, fit_overhead
from hwcost.model.rows import folds_of


def test_overhead_is_what_timing_added_and_what_no_kernel_explains() -> None:
    """Two kernels of 10 and 4 us: 1.1 * 10 - 2 = 9 us, 1.1 * 4 - 2 = 2.4 us; 3 calls of 1 us and 5 us besides."""
    overhead = Overhead(scale=1.1, per_call=1e-6, fixed=5e-6, per_kernel=-2e-6)
    assert overhead.kernels(np.array([10e-6, 4e-6])) == pytest.approx([9e-6, 2.4e-6])
    assert overhead.beside(np.array([3.0])) == pytest.approx([8e-6])


def test_a_kernel_keeps_a_tenth_of_its_time() -> None:
    assert Overhead(per_kernel=-5e-6).kernels(np.array([5e-6])) == pytest.approx([0.5e-6])


def test_a_target_on_which_everything_is_slower() -> None:
    slower = Overhead(1.1, 1e-6, 5e-6, -2e-6).slower(2.0)
    assert slower.kernels(np.array([10e-6])) == pytest.approx([18e-6])
    assert slower.beside(np.array([3.0])) == pytest.approx([16e-6])


def test_overhead_is_found_where_calls_and_kernels_differ() -> None:
    """Networks that bear 1.5 us a call and 20 us besides, of kernels that timing made 2 us longer."""
    rng = np.random.default_rng(0)
    kernels = rng.integers(5, 100, 200).astype(float)
    calls = kernels + rng.integers(0, 60, 200)
    sums = kernels * rng.uniform(20e-6, 200e-6, 200)
    found = _fit_overhead(
        sums, calls, kernels, 1.02 * sums - 2e-6 * kernels + 1.5e-6 * calls + 20e-6, np.ones(len(sums))
    )
    assert found.scale == pytest.approx(1.02, abs=1e-3)
    assert (found.per_kernel, found.per_call, found.fixed) == pytest.approx((-2e-6, 1.5e-6, 20e-6), rel=0.15)


def test_overhead_is_found_where_timing_takes_longer_than_many_kernels() -> None:
    """Kernels of 1 to 100 us, half of them shorter than the 4 us that timing adds: these keep a tenth of their time."""
    rng = np.random.default_rng(0)
    network = np.repeat(np.arange(200), rng.integers(5, 100, 200))
    times = 10.0 ** rng.uniform(-6, -4, len(network)) * np.where(rng.random(len(network)) < 0.5, 0.1, 1.0)
    real = Overhead(scale=1.02, fixed=20e-6, per_kernel=-4e-6)
    total = np.bincount(network, real.kernels(times)) + real.fixed
    found = fit_overhead(times, network, np.zeros(200), total, np.ones(200, dtype=bool))
    assert (found.scale, found.fixed, found.per_kernel) == pytest.approx((1.02, 20e-6, -4e-6), rel=0.02)


def test_where_every_call_is_a_kernel_the_time_is_the_calls() -> None:
    rng = np.random.default_rng(0)
    kernels = rng.integers(5, 100, 200).astype(float)
    sums = kernels * rng.uniform(20e-6, 200e-6, 200)
    found = _fit_overhead(sums, kernels, kernels, sums + 3e-6 * kernels, np.ones(len(sums)))
    assert found.per_call == pytest.approx(3e-6, rel=0.02)
    assert found.per_kernel == pytest.approx(0.0, abs=1e-7)


def test_errors_of_measured_and_of_other_kernels_are_told_apart() -> None:
    """Networks of measured kernels err by 2 %; the others by 10 % of their share in other kernels besides."""
    rng = np.random.default_rng(0)
    unknown = np.where(np.arange(4000) % 2 == 0, 0.0, rng.uniform(0.5, 1.0, 4000))
    error = 0.02 * rng.standard_normal(4000) + 0.10 * unknown * rng.standard_normal(4000)
    common, _, shared = parts_of_error(error, np.zeros(4000), unknown)
    assert common == pytest.approx(0.02, rel=0.1)
    assert shared == pytest.approx(0.10, rel=0.1)


def test_networks_of_measured_kernels_and_others_are_inside_as_often() -> None:
    """Errors of the former are normal, of the latter of heavy tails: one z for both states too much of the former."""
    rng = np.random.default_rng(0)
    unknown = np.where(np.arange(4000) % 2 == 0, 0.0, rng.uniform(0.5, 1.0, 4000))
    error = 0.02 * rng.standard_normal(4000) + 0.05 * unknown * rng.standard_t(2, 4000)
    known = np.full(4000, 0.02)
    z, shared = calibrated(error, known, unknown, 0.05)
    inside = np.abs(error) <= z * np.hypot(known, shared * unknown)
    assert inside[::2].mean() == pytest.approx(0.9, abs=0.002)
    assert inside[1::2].mean() == pytest.approx(0.9, abs=0.002)
    assert z == pytest.approx(1.645, rel=0.05)


def test_what_a_few_networks_do_not_tell_is_kept() -> None:
    """Ten networks of unmeasured kernels: one factor for all, and their share as it was found."""
    rng = np.random.default_rng(0)
    unknown = np.r_[np.zeros(390), np.ones(10)]
    z, shared = calibrated(0.02 * rng.standard_normal(400), np.full(400, 0.01), unknown, 0.03)
    assert shared == 0.03
    assert z == pytest.approx(2 * 1.645, rel=0.1)


def test_what_networks_bear_of_their_kernels_errors() -> None:
    """Kernels err by 4 to 20 % and networks by 2 % and a third of that: charged to one kernel, the rest is missing in
    another."""
    rng = np.random.default_rng(0)
    own = rng.uniform(0.04, 0.2, 4000)
    error = 0.02 * rng.standard_normal(4000) + own / 3 * rng.standard_normal(4000)
    common, borne, _ = parts_of_error(error, own, np.zeros(4000))
    assert common == pytest.approx(0.02, rel=0.3)
    assert borne == pytest.approx(1 / 3, rel=0.15)


def test_twelve_networks_are_not_believed_that_kernels_do_not_err() -> None:
    """All twelve are right to 0.1 %, though their kernels err by 5 %."""
    common, borne, _ = parts_of_error(np.full(12, 1e-3), np.full(12, 0.05), np.zeros(12))
    assert 0.1 < borne < 1
    assert common < 0.01


def test_a_kinds_error_is_that_of_the_kernels_which_take_the_time() -> None:
    """Networks of nine kernels of 1 us, predicted to 50 %, and one of 1 ms, predicted to 3 %."""
    rng = np.random.default_rng(0)
    latency = np.tile([1e-6] * 9 + [1e-3], 300)
    network = np.repeat(np.arange(300), 10)
    rows = SimpleNamespace(
        data=SimpleNamespace(kinds=["conv"]), kernel=np.zeros(3000, dtype=int), network=network, latency=latency,
        total=np.bincount(network, latency),
    )  # fmt: skip
    off = rng.standard_normal(3000) * np.where(latency < 1e-4, 0.5, 0.03)
    found = errors_by_kind(rows, latency * np.exp(off), np.zeros(3000, dtype=bool))  # type: ignore[arg-type]
    assert found["conv"] == pytest.approx(0.03, rel=0.2)


def test_few_networks_of_measured_kernels_say_nothing_of_their_own() -> None:
    rng = np.random.default_rng(0)
    unknown = np.r_[np.zeros(5), np.ones(395)]
    common, _, shared = parts_of_error(0.1 * rng.standard_normal(400), np.zeros(400), unknown)
    assert common == pytest.approx(0.1, rel=0.2)
    assert shared == 0.0


def test_a_network_that_repeats_badly_says_little_of_its_kernels(
    measurements: Measurements, model: CostModel, device: Device
) -> None:
    """The same networks once more, half as slow again, on a machine that repeats to 50 % instead of 2 %: with equal
    weights kernels would come out by the root of 1.5, 22 %, slower."""

    def slow(timing: Timing) -> Timing:
        return replace(timing, latency=1.5 * timing.latency, spread=0.5)

    again = [
        replace(
            n,
            name=f"{n.name} again",
            timing=slow(n.timing),
            kernels=tuple(replace(k, timing=slow(k.timing)) for k in n.kernels),
        )
        for n in measurements.networks
    ]
    both = CostModel.fit(replace(measurements, networks=(*measurements.networks, *again)), device=device)
    kernels = columns([(k.kernel, k.distance) for n in measurements.networks for k in n.kernels], Target(device, 1))
    alone, beside = (m.fitted.residual.predict(kernels).latency for m in (model, both))
    assert np.median(beside / alone) == pytest.approx(1.0, abs=0.01)


def test_kernels_are_taken_at_their_share_of_a_whole_run(
    measurements: Measurements, model: CostModel, device: Device
) -> None:
    """Every other network was profiled while everything took 1.2 times as long; its whole runs were not."""

    def profiled(kernel: Measurement) -> Measurement:
        return replace(kernel, timing=replace(kernel.timing, latency=1.2 * kernel.timing.latency))

    slowed = [
        replace(n, kernels=tuple(map(profiled, n.kernels))) if number % 2 else n
        for number, n in enumerate(measurements.networks)
    ]
    found = CostModel.fit(replace(measurements, networks=tuple(slowed)), device=device)
    then, now = (
        np.array([e.latency for e in m.estimate_many(list(m.lower_measured(measurements)))]) for m in (model, found)
    )
    assert np.abs(now / then - 1).max() < 0.02


def test_a_network_that_was_measured_twice_is_left_out_as_one() -> None:
    folds = folds_of(["a", "b", "c", "d", "e", "f", "a", "c"], seed=0)
    assert folds[0] == folds[6]
    assert folds[2] == folds[7]
    assert sorted(folds[:6].tolist()) == [0, 0, 1, 2, 3, 4]


def test_measuring_the_same_networks_again_does_not_flatter_the_fit(measurements: Measurements, device: Device) -> None:
    once = CostModel.fit(measurements, device=device)
    twice = once.merge(measurements)
    assert once.held_out is not None
    assert twice.held_out is not None
    assert twice.held_out.mape == pytest.approx(once.held_out.mape, rel=0.25)


def test_what_nobody_measured_is_not_below_its_roofline_whatever_the_overhead() -> None:
    """Timing that added half takes half away, but not from a bound."""
    halved = Overhead(scale=0.5, per_kernel=-1e-6)
    assert halved.kernels(np.array([10e-6, 10e-6]), np.array([0.0, 8e-6])) == pytest.approx([4e-6, 8e-6])


@given(st.floats(0.0, 0.5), st.floats(0.1, 10.0))
def test_an_interval_holds_what_another_hour_differs_by(common: float, z: float) -> None:
    """Folds are of one campaign: however well their networks are met, another one drifts, and no more than that."""
    half = z * with_drift(common, z)
    assert max(z * common, DRIFT) * (1 - 1e-9) <= half <= (z * common + DRIFT) * (1 + 1e-9)


def test_intervals_of_a_clock_that_never_errs_hold_the_drift(
    simulate_networks: Callable[..., Measurements], device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(simulate_networks.__globals__, "CLOCK", 1e-5)
    exact = simulate_networks(80, seed=0, widths=(64, 128))
    model = CostModel.fit(exact, device=device)
    assert model.held_out is not None
    assert model.held_out.mape < DRIFT / 5  # so that nothing else would make intervals as wide
    assert all(n.high >= n.predicted * (1 + DRIFT) for n in model.held_out.networks)
