"""Tests of hwcost.roofline: worked numbers, laws, and what a cache changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.roofline import compute_time, is_compute_bound, level_time, memory_time, ridge_point, roofline_time

TOY = {"peak": 100.0, "bandwidth": 10.0}  # ridge at 10 flop/byte
work = st.integers(0, 10**15)  # counts
ceiling = st.floats(1e6, 1e15)


@pytest.mark.parametrize(
    ("flops", "traffic", "seconds", "compute_bound"),
    [
        (1000, 10, 10.0, True),  # 100 flop/byte: 1000 / 100
        (100, 100, 10.0, False),  # 1 flop/byte: 100 / 10
        (100, 10, 1.0, False),  # on the ridge both ceilings agree
        (0, 50, 5.0, False),  # a copy does no arithmetic and still takes time
        (0, 0, 0.0, False),
    ],
)
def test_worked_numbers(flops: float, traffic: float, seconds: float, compute_bound: bool) -> None:
    assert roofline_time(flops, traffic, **TOY) == seconds
    assert is_compute_bound(flops, traffic, **TOY) == compute_bound


def test_the_depthwise_convolution_of_the_article() -> None:
    # Tian Zichen's OP4: a 3x3 depthwise convolution on a 20x20 map, with bias. Per channel 19 flop
    # for each of 400 outputs; 400 values in, 400 out, 9 weights and a bias, 4 byte each:
    # 19 * 400 / (4 * 810) = 2.346 flop/byte. On paper the CPU has 4.608 TFLOP/s and 96 GB/s, and
    # the article finds 4.9 % of the peak.
    channels = 64
    flops, traffic = 19 * 400 * channels, 4 * 810 * channels
    assert flops / traffic == pytest.approx(2.346, abs=0.0005)
    ceilings = {"peak": 4.608e12, "bandwidth": 96e9}
    assert not is_compute_bound(flops, traffic, **ceilings)
    rate = flops / roofline_time(flops, traffic, **ceilings)
    assert rate / ceilings["peak"] == pytest.approx(0.049, abs=0.0005)


def test_arrays_in_arrays_out() -> None:
    flops, traffic = np.array([[1000, 100], [100, 0]]), np.array([[10, 100], [10, 50]])
    assert roofline_time(flops, traffic, **TOY).tolist() == [[10.0, 10.0], [1.0, 5.0]]
    assert is_compute_bound(flops, traffic, **TOY).tolist() == [[True, False], [False, False]]
    assert roofline_time([], [], **TOY).shape == (0,)


@given(work, work, ceiling, ceiling)
def test_the_bound_is_both_bounds_at_once(flops: int, traffic: float, peak: float, bandwidth: float) -> None:
    time = roofline_time(flops, traffic, peak=peak, bandwidth=bandwidth)
    assert time >= compute_time(flops, peak)
    assert time >= memory_time(traffic, bandwidth)
    assert time * peak >= flops * (1 - 1e-12)  # nothing runs faster than the peak
    assert time * bandwidth >= traffic * (1 - 1e-12)


@given(work, work, work, work)
def test_one_fused_kernel_is_never_slower_than_two(f: int, g: int, q: int, r: int) -> None:
    fused = roofline_time(f + g, q + r, **TOY)
    assert fused <= (roofline_time(f, q, **TOY) + roofline_time(g, r, **TOY)) * (1 + 1e-12)


@given(work, st.floats(1, 1e12), ceiling, ceiling)
def test_the_ridge_parts_the_two_bounds(flops: int, traffic: float, peak: float, bandwidth: float) -> None:
    ridge = ridge_point(peak, bandwidth)
    intensity = flops / traffic
    if abs(intensity / ridge - 1) > 1e-9:
        assert is_compute_bound(flops, traffic, peak=peak, bandwidth=bandwidth) == (intensity > ridge)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_ceiling_must_be_positive(value: float) -> None:
    with pytest.raises(ValueError, match="peak must be above 0 flop/s, but got"):
        roofline_time(1, 1, peak=value, bandwidth=1)
    with pytest.raises(ValueError, match="bandwidth must be above 0 byte/s, but got"):
        ridge_point(1, value)


# -- memory levels ----------------------------------------------------------------------------


def cached(*levels: tuple[str, float, float]) -> Device:
    """A device whose DRAM moves 10 GB/s, with caches (level, size, bandwidth) besides."""
    dram = MemoryCeiling(measured=10e9, measured_source="a run")
    caches = [MemoryCeiling(level=n, size=s, measured=b, measured_source="a run") for n, s, b in levels]  # type: ignore[arg-type]
    return Device(name="toy", compute=(ComputeCeiling(measured=1e9, measured_source="a run"),), memory=(dram, *caches))


BOTH = cached(("L2", 1e6, 100e9), ("L3", 32e6, 50e9))


def times(weights: float, read: float, written: float, distance: float, device: Device) -> float:
    arrays = (np.array([float(v)]) for v in (weights, read, written, distance))
    (seconds,) = level_time(*arrays, device, threads=1)
    return float(seconds)


@pytest.mark.parametrize(
    ("weights", "read", "written", "distance", "seconds"),
    [
        (0, 0.5e6, 0, 0, 0.5e6 / 100e9),  # just written and small: still in L2
        (0, 0.5e6, 0, 0.6e6, 0.5e6 / 50e9),  # 1.1 MB were moved since it was written: L3
        (0, 0.5e6, 0, 32e6, 0.5e6 / 10e9),  # out of L3 too
        (0, 0.5e6, 0, -1, 0.5e6 / 100e9),  # no activation before it
        (0, 0, 0.5e6, 0, 0.5e6 / 100e9),
        (0, 0, 2e6, 0, 2e6 / 50e9),
        (0, 0, 64e6, 0, 64e6 / 10e9),
        (1e6, 0, 0, 0, 1e6 / 50e9),  # weights are looked for in L3, not in L2
        (16e6, 0, 0, 0, 16e6 / 50e9),  # half of it
        (17e6, 0, 0, 0, 17e6 / 10e9),
        (17e6, 0.5e6, 2e6, 0, 17e6 / 10e9 + 0.5e6 / 100e9 + 2e6 / 50e9),
    ],
)
def test_each_part_comes_from_the_level_that_holds_it(
    weights: float, read: float, written: float, distance: float, seconds: float
) -> None:
    assert times(weights, read, written, distance, BOTH) == pytest.approx(seconds)


amounts = st.floats(0, 1e9)


@given(amounts, amounts, amounts, amounts)
def test_caches_that_are_faster_never_cost_time(weights: float, read: float, written: float, distance: float) -> None:
    without = times(weights, read, written, distance, cached())
    assert without == pytest.approx((weights + read + written) / 10e9)
    assert times(weights, read, written, distance, BOTH) <= without * (1 + 1e-12)
