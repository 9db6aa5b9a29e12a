"""Measured kernels as the rows that a fit learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwcost.measure.arrays import Flat
from hwcost.measure.statistics import DRIFT
from hwcost.model.features import Columns, Target, buckets, columns, reach_of, traffic_of

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Rows:
    """One row for each measured kernel in each network.

    Equal kernels in the same context (see `rows_of`) are described once, by one entry of `data`.
    """

    data: Columns  # [distinct kernels in context]
    kernel: Ints  # [rows] entry of `data`
    network: Ints  # [rows]
    latency: Array  # [rows] measured time of the kernel (s)
    total: Array  # [networks] measured latency (s)
    calls: Array  # [networks], operator calls; 0 of a lone kernel
    spread: Array  # [networks] of the measured latency, from `DRIFT` to 1; 1 where it is not known
    lone: NDArray[np.bool_]  # [networks] kernels measured by themselves: they say nothing of overhead


def rows_of(flat: Flat, target: Target) -> Rows:
    """The rows of measurements; distinct kernels stand in the order in which they are met first.

    The context of a kernel is the power of two that its reuse distance falls into (`hwcost.kernel.bucket`), and the
    reach of its network (`hwcost.model.features.reach_of`). A context is described by its largest distance.
    """
    moved = np.array([traffic_of(kernel) for kernel in flat.kernels], dtype=float)
    traffic = np.bincount(flat.network, moved[flat.kernel], len(flat))
    reaches = np.array([reach_of(t, target.device) for t in traffic], dtype=np.int64)
    bucket, reach = buckets(flat.distance), reaches[flat.network]
    context = (
        flat.kernel * 128 + bucket + 1
    ) * 128 + reach  # one number for each; buckets are at most 63, reaches fewer
    _, first, which = np.unique(context, return_index=True, return_inverse=True)
    order = np.argsort(first)
    met = first[order]
    farthest = [(1 << b) - 1 if b > 0 else b for b in bucket[met].tolist()]
    pairs = [(flat.kernels[k], d) for k, d in zip(flat.kernel[met].tolist(), farthest, strict=True)]
    return Rows(
        data=columns(pairs, target, reach[met]),
        kernel=np.argsort(order)[which],
        network=flat.network,
        latency=np.maximum(flat.time, 1e-9),
        total=flat.latency,
        calls=flat.calls,
        spread=np.clip(np.nan_to_num(flat.spread, nan=1.0), DRIFT, 1.0),
        lone=flat.lone,
    )


def folds_of(names: Sequence[str], seed: int) -> Ints:
    """The cross-validation fold of each network, [networks]; networks of one name are in one fold."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    folds = np.arange(len(numbers)) % FOLDS
    np.random.default_rng(seed).shuffle(folds)
    return folds[[numbers[name] for name in names]]


def take(data: Columns, index: Ints) -> Columns:
    """Some of the kernels, in the order of `index`."""
    return replace(
        data,
        flops=data.flops[index],
        compute_time=data.compute_time[index],
        at_best=data.at_best[index],
        memory_time=data.memory_time[index],
        floor=data.floor[index],
        streams=data.streams[index],
        features=data.features[index],
        kinds=tuple(data.kinds[i] for i in index),
    )
