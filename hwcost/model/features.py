"""Kernels as arrays: their work and traffic, their roofline, and the features that the residual learns from.

`NAMES` is the order of the feature columns, made from the tables that hold a function for each name. All code finds a
column by its name; only the trees of a model file refer to columns by position. Models must therefore be fitted anew
where a column is added, taken away or moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwcost.device.device import Device
from hwcost.kernel import Kernel, label
from hwcost.model.shape_features import ALIGNMENT, EXTENT, FUSION, LAYOUT, WINDOW, shapes_of
from hwcost.model.windows import share_on_input
from hwcost.roofline import level_time

Array = NDArray[np.float64]

_CEILING_ERROR = 0.2  # by which a measured ceiling may be too low, as where the clock rate was lower than it can be
_L2, _L3 = 1e6, 32e6  # byte, of a device that does not state its caches


@dataclass(frozen=True, slots=True)
class Target:
    """What kernels run on: a device, whose ceilings bound their times, threads, dtype and runtime."""

    device: Device
    threads: int
    dtype: str = "float32"
    runtime: str = "torch-eager"


# -- features of work, traffic and target -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """What kernels do and how long the ceilings make it take: arrays of length n."""

    flops: Array
    macs: Array
    weights: Array  # byte
    read: Array  # byte, of activations
    written: Array  # byte, of activations
    distance: Array  # byte moved since the activation that is read was written; -1 where none is read
    reach: Array  # of the network that holds the kernel, see `reach_of`
    compute_time: Array  # s, flops / peak
    memory_time: Array  # s, each part of the traffic at the bandwidth of the cache level that holds it
    threads: int


def _log(size: Array) -> Array:
    """log2(1 + size), which is defined at 0: many kernels have no weights or no multiply-adds."""
    return np.log2(1.0 + size)


LoadFeatures = Mapping[str, Callable[[Load], ArrayLike]]  # by name, in the order of their columns

KIND: LoadFeatures = {"kind": lambda k: 0.0}  # the residual numbers the kinds that it knows and fills this column in
WORK: LoadFeatures = {
    "compute_time": lambda k: _log(k.compute_time * 1e9),  # log2(1 + ns)
    "memory_time": lambda k: _log(k.memory_time * 1e9),  # log2(1 + ns)
    "bound": lambda k: _log(k.compute_time * 1e9) - _log(k.memory_time * 1e9),  # above 0 where compute-bound
    "flops": lambda k: _log(k.flops),
    "macs": lambda k: _log(k.macs),
    "weights": lambda k: _log(k.weights),
    "read": lambda k: _log(k.read),
    "written": lambda k: _log(k.written),
    "distance": lambda k: np.round(_log(np.maximum(k.distance, 0))),
    "working_set": lambda k: _log(k.weights + k.read + k.written),
    "reach": lambda k: k.reach,
}
THREADS: LoadFeatures = {"parallel": lambda k: math.log2(k.threads)}

# -- columns ------------------------------------------------------------------------------------------

NAMES = (*KIND, *FUSION, *WORK, *EXTENT, *WINDOW, *ALIGNMENT, *LAYOUT, *THREADS)
# Functions by column
_OF_LOAD = {NAMES.index(name): of for name, of in {**KIND, **WORK, **THREADS}.items()}
_OF_SHAPES = {NAMES.index(name): of for name, of in {**FUSION, **EXTENT, **WINDOW, **ALIGNMENT, **LAYOUT}.items()}
# A kernel counts as measured where a measured one of its kind is near it in these.
SUPPORT = (
    "flops", "read", "written", "weights", "depth_k", "channels_out", "channels_in", "rows", "window", "itemsize",
)  # fmt: skip


def support_columns() -> list[int]:
    """Columns of the features of `SUPPORT`."""
    return [NAMES.index(name) for name in SUPPORT]


@dataclass(frozen=True, slots=True)
class Columns:
    """Kernels as arrays, all of length n.

    The necessary work (flop) below is `flops` without a convolution's products with its padding, which published
    counts include and a runtime need not compute.
    """

    flops: Array
    compute_time: Array  # s, flops / peak
    at_best: Array  # s, necessary work / ceiling of the kernel's kind, or peak where the kind has none
    memory_time: Array  # s, each part of the traffic at the bandwidth of the cache level that holds it
    floor: Array  # s, the longer of necessary work / the higher of both ceilings and all traffic / bandwidth of L2
    streams: Array  # s, [n, 3]: weights, activations read, activations written, all at the bandwidth of DRAM
    features: Array  # [n, len(NAMES)]; column "kind" is 0 until the residual fills it in
    kinds: tuple[str, ...]

    @property
    def roofline(self) -> Array:
        """max(W / P, Q / B) (s), with W the necessary work, and P the ceiling of the kernel's kind."""
        return np.maximum(self.at_best, self.memory_time)

    def least(self, supported: NDArray[np.bool_]) -> Array:
        """Shortest time (s) that may be predicted for each kernel.

        Args:
            supported: [n], whether a kernel is near to measured ones.

        A kernel that is not supported takes at least its roofline. For a supported one this bound may be too high,
        since the roofline assumes which cache level serves the kernel and how close its kind comes to the peak, and
        measurements may show that it does better. It takes at least its `floor`, with all traffic served by L2, less
        the error of a measured ceiling. Measurements alone are no bound: one that was rounded to whole microseconds
        may be below what the hardware can do.
        """
        return np.where(supported, self.floor / (1 + _CEILING_ERROR), self.roofline)

    @property
    def compute_bound(self) -> NDArray[np.bool_]:
        """True where W / P > Q / B."""
        return self.at_best > self.memory_time


def columns(kernels: Sequence[tuple[Kernel, int]], target: Target, reach: ArrayLike = 2) -> Columns:
    """Describe kernels, in the order given.

    Args:
        kernels: each with the reuse distance (byte) of the activation that it reads, -1 where it reads none.
        target: what they run on.
        reach: `reach_of` of the networks that hold them, one for all or [n].
    """
    device, threads = target.device, target.threads
    work = np.array([_work(kernel) for kernel, _ in kernels], dtype=float).reshape(-1, 5)
    flops, macs, weights, read, written = work.T
    distance = np.array([d for _, d in kernels], dtype=float)
    kinds = tuple(label(kernel) for kernel, _ in kernels)
    dtypes = [kernel.dtype for kernel, _ in kernels]

    peaks = {dtype: device.peak(dtype, threads) for dtype in set(dtypes)}
    peak = np.array([peaks[dtype] for dtype in dtypes])
    kind_peak = _kind_peaks(kinds, dtypes, target) if device.kinds else peak
    necessary = flops * np.array([share_on_input(kernel) for kernel, _ in kernels])
    traffic = weights + read + written
    compute_time = flops / peak
    memory_time = level_time(weights, read, written, distance, device, threads)
    near = device.bandwidth("L2", threads) if device.cache_size("L2") else math.inf
    load = Load(
        flops=flops,
        macs=macs,
        weights=weights,
        read=read,
        written=written,
        distance=distance,
        reach=np.broadcast_to(np.asarray(reach, dtype=float), len(kernels)),
        compute_time=compute_time,
        memory_time=memory_time,
        threads=threads,
    )
    return Columns(
        flops=flops,
        compute_time=compute_time,
        at_best=necessary / kind_peak,
        memory_time=memory_time,
        floor=np.maximum(necessary / np.maximum(peak, kind_peak), traffic / near),
        streams=np.column_stack([weights, read, written]) / device.bandwidth("DRAM", threads),
        features=_features([kernel for kernel, _ in kernels], load),
        kinds=kinds,
    )


def _features(kernels: Sequence[Kernel], load: Load) -> Array:
    """[n, len(NAMES)]."""
    features = np.empty((len(kernels), len(NAMES)))
    for column, of_load in _OF_LOAD.items():
        features[:, column] = of_load(load)
    of_shapes = np.array([_shape_features(kernel) for kernel in kernels], dtype=float)
    features[:, list(_OF_SHAPES)] = of_shapes.reshape(len(kernels), len(_OF_SHAPES))
    return features


@lru_cache(maxsize=1 << 16)
def _shape_features(kernel: Kernel) -> tuple[float, ...]:
    """Features of a kernel that no target changes, in the order of `_OF_SHAPES`."""
    shapes = shapes_of(kernel)
    return tuple([float(of(shapes)) for of in _OF_SHAPES.values()])


def _kind_peaks(kinds: Sequence[str], dtypes: Sequence[str], target: Target) -> Array:
    """Ceiling (flop/s) of each kernel's kind."""
    pairs = list(zip(kinds, dtypes, strict=True))
    peaks = {
        (kind, dtype): target.device.kind_peak(kind, target.runtime, dtype, target.threads)
        for kind, dtype in set(pairs)
    }
    return np.array([peaks[pair] for pair in pairs])


@lru_cache(maxsize=1 << 17)
def _work(kernel: Kernel) -> tuple[int, int, int, int, int]:
    """Flops, multiply-adds, and bytes of weights, of activations read and of activations written."""
    cost = kernel.cost
    return cost.flops, cost.macs, cost.bytes_weights, cost.bytes_activations, cost.bytes_written


def traffic_of(kernel: Kernel) -> int:
    """Compulsory traffic (byte) of a kernel: what `Kernel.cost` says, remembered for kernels that `columns` saw."""
    return sum(_work(kernel)[2:])


# -- contexts -----------------------------------------------------------------------------------------


def reach_of(traffic: float, device: Device) -> int:
    """Class of a network by its traffic (byte) in one run, compared with the device's caches.

    0 up to half of an L2 cache, then one more for each doubling; the last class is that of more than four times the
    L3 cache. A network's weights were last used one run ago, so its traffic tells from which cache level they come,
    and likewise the runtime's own code and tables. L2 and L3 are taken to be 1 MB and 32 MB where the device does
    not state them.
    """
    edges = _reach_edges(device.cache_size("L2") or _L2, device.cache_size("L3") or _L3)
    return sum(traffic > edge for edge in edges)


@lru_cache(maxsize=64)
def _reach_edges(near: float, far: float) -> tuple[float, ...]:
    """Largest traffic (byte) of each class but the last: from near / 2 to 4 far by doubling."""
    doublings = round(math.log2(8 * max(far / near, 1)))
    return tuple(near / 2 * 2.0**step for step in range(doublings + 1))


def buckets(distance: NDArray[np.int64]) -> NDArray[np.int64]:
    """`hwcost.kernel.bucket` of many reuse distances (byte): the number of the power of two, 0 and -1 kept."""
    return np.where(distance > 0, np.frexp(distance.astype(float))[1], np.minimum(distance, 0)).astype(np.int64)
