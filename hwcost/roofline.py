"""Roofline time of kernels, arrays in, arrays out.

A kernel that does W flop and moves Q byte on a device with peak P flop/s and bandwidth B byte/s
takes at least

    t0 = max(W / P, Q / B)    seconds.                                     (1)

Its arithmetic intensity is W / Q (flop/byte), also called operational intensity. The ridge point
is P / B: below it a kernel is memory-bound, above it compute-bound. (1) is written in times, so it
holds for kernels that do no arithmetic. It assumes that arithmetic and transfers overlap fully.

S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwcost.device.device import Device

Array = NDArray[np.float64]


def compute_time(flops: ArrayLike, peak: float) -> Array:
    """W / P (s); `peak` in flop/s."""
    return np.asarray(flops, dtype=float) / _positive(peak, "peak", "flop/s")


def memory_time(traffic: ArrayLike, bandwidth: float) -> Array:
    """Q / B (s); `bandwidth` in byte/s."""
    return np.asarray(traffic, dtype=float) / _positive(bandwidth, "bandwidth", "byte/s")


def roofline_time(flops: ArrayLike, traffic: ArrayLike, *, peak: float, bandwidth: float) -> Array:
    """Least time (s) of each kernel, eq. (1).

    Args:
        flops: work (flop), any shape.
        traffic: bytes moved, of the same shape.
        peak: flop/s.
        bandwidth: byte/s.

    Raises:
        ValueError: a ceiling is not positive.
    """
    return np.maximum(compute_time(flops, peak), memory_time(traffic, bandwidth))


def is_compute_bound(flops: ArrayLike, traffic: ArrayLike, *, peak: float, bandwidth: float) -> NDArray[np.bool_]:
    """True where W / P > Q / B; on the ridge a kernel is called memory-bound."""
    return compute_time(flops, peak) > memory_time(traffic, bandwidth)


def ridge_point(peak: float, bandwidth: float) -> float:
    """Arithmetic intensity (flop/byte) at which the two ceilings meet."""
    return _positive(peak, "peak", "flop/s") / _positive(bandwidth, "bandwidth", "byte/s")


def _positive(value: float, name: str, unit: str) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be above 0 {unit}, but got {value}")
    return value


def level_time(weights: Array, read: Array, written: Array, distance: Array, device: Device, threads: int) -> Array:
    """Memory time (s) of n kernels, each part of their traffic at the bandwidth of the cache level that it fits in.

    Args:
        weights, read, written: bytes of weights, activations read and activations written, [n].
        distance: bytes moved since the activation was written, [n]; -1 where no activation is read.
        device: gives the sizes and bandwidths of its caches; one without caches has DRAM alone.
        threads: number of threads whose common bandwidth counts.

    An activation is read from the smallest level that holds it together with all bytes moved since it was written.
    Weights are read from L3 if they take at most half of it, since the rest of the network needs space there too, and
    else from DRAM. What is written goes to the smallest level that holds it.
    """
    shared = 2.0 * weights
    return (
        weights / _level_bandwidth(shared, device, threads, smallest="L3")
        + read / _level_bandwidth(read + np.maximum(distance, 0.0), device, threads)
        + written / _level_bandwidth(written, device, threads)
    )


def _level_bandwidth(size: Array, device: Device, threads: int, smallest: str = "L2") -> Array:
    """Bandwidth (byte/s) of the smallest level that holds `size` bytes: L2 (unless `smallest` is L3), L3 or DRAM."""
    bandwidth = np.full(np.shape(size), device.bandwidth("DRAM", threads))
    for level in ("L3", "L2")[: 1 if smallest == "L3" else 2]:
        capacity = device.cache_size(level)
        if capacity:
            bandwidth = np.where(size <= capacity, device.bandwidth(level, threads), bandwidth)
    return bandwidth
