"""The residual: what a kernel takes over its roofline time, learned from measurements.

    t = (t0 + launch) * exp(r(x))                                          (1)

and, where measurements of another machine are given as prior knowledge, its residual comes first:
t = (t0 + launch) * exp(r_prior(x)) * exp(r(x)). t0 is the roofline time with memory levels, `launch`
the time of a kernel that does next to nothing on this runtime, r gradient-boosted trees on the
kernel's description x, normalised by the device.

Trees do not extrapolate. A kernel counts as measured where a measured kernel of its kind lies within a
factor of 1.7 of it in every dimension (work, traffic, channels, rows, window); outside, the trees'
answer fades into the median of the kind (or, for a kind never seen, of everything measured),

    r = f * r_trees + (1 - f) * r_median,    f = 2 ** -(doublings beyond that),    (2)

while the error that is stated grows to the spread of that median.

Every feature is read from shapes, parameters and cost alone, the same way for every op: this module
knows no op by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from hwcost.device import Device
from hwcost.graph import ITEMSIZE, OpSpec, Param, TensorSpec
from hwcost.kernel import Kernel
from hwcost.roofline import level_time

Array = NDArray[np.float64]

NAMES = (
    "kind", "ops", "epilogue",
    "compute_time", "memory_time", "bound", "flops", "macs", "weights", "read", "written", "distance", "working_set",
    "depth_k", "channels_out", "channels_in", "rows", "height", "width", "batch", "dims",
    "window", "stride", "dilation", "groups", "padding", "align_out", "align_in", "strided", "itemsize", "inputs",
    "parallel",
)  # fmt: skip
_SUPPORT = ("flops", "read", "written", "weights", "depth_k", "channels_out", "channels_in", "rows", "window")
_REACH = 0.75  # doublings: how near the nearest measured kernel must be in every dimension, 2 ** 0.75 = 1.7
_MINIMUM_OF_KIND = 5
_PARALLEL_FROM = 20_000  # rows
UNSEEN_SIGMA = 1.0  # log error stated for a kind that was never measured: a factor of e


@dataclass(frozen=True, slots=True)
class Target:
    """What a kernel runs on: the ceilings that normalise it."""

    device: Device
    threads: int
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Columns:
    """Distinct kernels as arrays, all of length n."""

    flops: Array
    compute_time: Array  # s
    memory_time: Array  # s, each part of the traffic at the level it fits in
    features: Array  # [n, len(NAMES)]; the kind's column is filled by the residual
    kinds: tuple[str, ...]

    @property
    def roofline(self) -> Array:
        """max(W / P, Q / B) (s)."""
        return np.maximum(self.compute_time, self.memory_time)


def columns(kernels: Sequence[tuple[Kernel, int]], target: Target) -> Columns:
    """Arrays of kernels, each with its reuse distance (byte, -1 where it reads no activation)."""
    shapes = np.array([_shape_features(kernel) for kernel, _ in kernels], dtype=float).reshape(len(kernels), -1)
    traffic = np.array([_traffic(kernel) for kernel, _ in kernels], dtype=float).reshape(-1, 5)
    distance = np.array([d for _, d in kernels], dtype=float)
    flops, macs, weights, read, written = traffic.T
    peak = np.array([target.device.peak(kernel.dtype, target.threads) for kernel, _ in kernels])
    compute = flops / peak
    memory = level_time(weights, read, written, distance, target.device, target.threads)
    timed = np.column_stack([
        _log(compute * 1e9), _log(memory * 1e9), _log(compute * 1e9) - _log(memory * 1e9),
        _log(flops), _log(macs), _log(weights), _log(read), _log(written), np.round(_log(np.maximum(distance, 0))),
        _log(weights + read + written),
    ])  # fmt: skip
    parallel = np.full((len(kernels), 1), math.log2(target.threads))
    features = np.hstack([np.zeros((len(kernels), 1)), shapes[:, :2], timed, shapes[:, 2:], parallel])
    assert features.shape[1] == len(NAMES), (features.shape, len(NAMES))
    return Columns(flops, compute, memory, features, tuple(_label(kernel) for kernel, _ in kernels))


def _log(x: Array) -> Array:
    """log2(1 + x): defined at 0, where many kernels have no weights or no macs."""
    return np.log2(1.0 + x)


@lru_cache(maxsize=20_000)
def _traffic(kernel: Kernel) -> tuple[int, int, int, int, int]:
    cost = kernel.cost
    return cost.flops, cost.macs, cost.bytes_weights, cost.bytes_activations, cost.bytes_written


@lru_cache(maxsize=20_000)
def _shape_features(kernel: Kernel) -> tuple[float, ...]:
    """Geometry of a kernel, read alike from every op: the main op's tensors and parameters."""
    op = _main(kernel)
    out = op.outputs[0] if op.outputs else op.inputs[0]
    first = op.inputs[0] if op.inputs else out
    second = op.inputs[1] if len(op.inputs) > 1 else None
    channels_out, rows = _channels(out)
    channels_in, _ = _channels(first)
    height, width = (out.shape[-2], out.shape[-1]) if len(out.shape) >= 4 else (1, 1)
    macs = _traffic(Kernel((op,)))[1]
    window = (
        math.prod(second.shape[2:]) if second is not None and second.weight and len(second.shape) > 2 else _window(op)
    )
    tensors = [t for o in kernel.ops for t in o.inputs]
    return (
        len(kernel.ops), float(len({o.kind for o in kernel.ops[1:]})),
        *(math.log2(1 + v) for v in (macs / max(out.numel, 1), channels_out, channels_in, rows, height, width)),
        float(out.shape[0] if out.shape else 1), float(len(out.shape)), math.log2(1 + window),
        *(math.log2(_scalar(op.param(name, 1))) for name in ("stride", "dilation", "groups")),
        _scalar(op.param("padding", 0), low=0.0), _alignment(channels_out), _alignment(channels_in),
        float(sum(t.layout != "contiguous" for t in tensors)), float(ITEMSIZE[first.dtype]), float(len(tensors)),
    )  # fmt: skip


@lru_cache(maxsize=20_000)
def _label(kernel: Kernel) -> str:
    """The kind, told apart by what changes how an op is computed: groups."""
    return kernel.kind + "/grouped" * (_scalar(_main(kernel).param("groups", 1)) > 1)


def _main(kernel: Kernel) -> OpSpec:
    kind = kernel.kind
    return next(op for op in kernel.ops if op.kind == kind)


def _channels(t: TensorSpec) -> tuple[int, int]:
    """(channels, everything else) of a feature map [b, c, *] or of a matrix [*, c]."""
    if not t.shape:
        return 1, 1
    channels = t.shape[1] if len(t.shape) >= 4 else t.shape[-1]
    return channels, t.numel // max(channels, 1)


def _window(op: OpSpec) -> float:
    size = op.param("kernel_size", 1)
    return math.prod(_scalar(s) for s in size) if isinstance(size, tuple) else _scalar(size) ** 2


def _scalar(value: Param, low: float = 1.0) -> float:
    first = value[0] if isinstance(value, tuple) and value else value
    return max(float(first), low) if isinstance(first, (int, float)) else low


def _alignment(channels: int) -> float:
    """log2 of the largest power of two up to 64 that divides the channels."""
    return float(min((channels & -channels).bit_length() - 1, 6)) if channels else 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Arrays of length n."""

    latency: Array  # s
    sigma: Array  # standard error of log latency
    supported: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the trees are grown. Chosen by cross-validation on the training side."""

    iterations: int = 300
    learning_rate: float = 0.06
    leaves: int = 24
    minimum_leaf: int = 8
    l2: float = 1.0
    seed: int = 0


class Residual:
    """Gradient boosting on log(t / (t0 + launch)), eq. (1)."""

    def __init__(self, settings: Settings | None = None, prior: Residual | None = None) -> None:
        self.settings = settings or Settings()
        self.prior = prior
        self.launch = 0.0
        self._vocabulary: dict[str, int] = {}
        self._medians: dict[str, float] = {}
        self._sigmas: dict[str, float] = {}
        self._measured: dict[str, cKDTree] = {}
        self._median, self._sigma_all = 0.0, UNSEEN_SIGMA
        self._trees: HistGradientBoostingRegressor | None = None

    def fit(self, data: Columns, latency: Array, weight: Array) -> Residual:
        """Fit on measured kernels; `latency` in seconds, `weight` their importance."""
        self.launch = _launch_time(data.roofline, latency)
        target = np.log(latency) - self._base(data)
        kinds, counts = np.unique(data.kinds, return_counts=True)
        self._vocabulary = {str(k): i for i, k in enumerate(kinds)}
        for kind, count in zip(kinds, counts, strict=True):
            self._learn_kind(str(kind), int(count), data, target)
        self._median = float(np.median(target))
        self._sigma_all = max(float(np.std(target)), 0.3)
        s = self.settings
        self._trees = HistGradientBoostingRegressor(
            max_iter=s.iterations,
            learning_rate=s.learning_rate,
            max_leaf_nodes=s.leaves,
            min_samples_leaf=s.minimum_leaf,
            l2_regularization=s.l2,
            early_stopping=False,
            random_state=s.seed,
            categorical_features=[0],
        )
        with _threads(len(target)):
            self._trees.fit(self._coded(data), target, sample_weight=weight)
        return self

    def _learn_kind(self, kind: str, count: int, data: Columns, target: Array) -> None:
        rows = np.array(data.kinds) == kind
        self._medians[kind] = float(np.median(target[rows]))
        self._sigmas[kind] = max(float(np.std(target[rows])), 0.2)
        if count >= _MINIMUM_OF_KIND:
            self._measured[kind] = cKDTree(data.features[rows][:, _support_columns()])

    def predict(self, data: Columns, sigma: Mapping[str, float] | None = None) -> Prediction:
        """Latency of kernels; `sigma` gives the error of each kind where it was measured."""
        n = len(data.kinds)
        if self._trees is None or not n:
            return Prediction(data.roofline.copy(), np.full(n, UNSEEN_SIGMA), np.zeros(n, dtype=bool))
        outside = self._outside(data)
        if self.prior is not None:
            outside = np.minimum(outside, self.prior._outside(data))
        inside = np.array([(sigma or {}).get(k, self._sigmas.get(k, UNSEEN_SIGMA)) for k in data.kinds])
        far = np.array([self._sigmas.get(k, max(self._sigma_all, UNSEEN_SIGMA)) for k in data.kinds])
        error = np.where(outside == 0, inside, np.maximum(inside, far))
        return Prediction(np.exp(self._base(data) + self._correction(data)), error, outside == 0)

    def _base(self, data: Columns) -> Array:
        """Log of what is known before these measurements: roofline, launch, and the prior's residual."""
        base = np.log(data.roofline + self.launch)
        if self.prior is not None:
            base = base + self.prior._correction(data)
        return np.asarray(base)

    def _correction(self, data: Columns) -> Array:
        """r(x) of eq. (2)."""
        median = np.array([self._medians.get(k, self._median) for k in data.kinds])
        if self._trees is None:
            return median
        with _threads(len(data.kinds)):
            trees = self._trees.predict(self._coded(data))
        fade = np.exp2(-self._outside(data))
        return np.asarray(fade * trees + (1 - fade) * median)

    def _coded(self, data: Columns) -> Array:
        features = data.features.copy()
        features[:, 0] = [self._vocabulary.get(k, np.nan) for k in data.kinds]
        return features

    def _outside(self, data: Columns) -> Array:
        """Doublings from each kernel to where the measured ones of its kind reach; infinite for a kind
        that was not measured."""
        x = data.features[:, _support_columns()]
        outside = np.full(len(data.kinds), np.inf)
        kinds = np.array(data.kinds)
        for kind, measured in self._measured.items():
            rows = kinds == kind
            if rows.any():
                nearest, _ = measured.query(x[rows], p=np.inf)
                outside[rows] = np.maximum(nearest - _REACH, 0.0)
        return outside


def _threads(rows: int) -> AbstractContextManager[object]:
    """One thread for small data: waking the others costs more than they bring, most of all on a
    machine that is busy with something else."""
    return threadpool_limits(1, user_api="openmp") if rows < _PARALLEL_FROM else nullcontext()


def _support_columns() -> list[int]:
    return [NAMES.index(name) for name in _SUPPORT]


def _launch_time(roofline: Array, latency: Array) -> float:
    """Time (s) of a kernel that does next to nothing: a low quantile over the smallest kernels."""
    small = latency[roofline <= np.quantile(roofline, 0.1)]
    return float(np.quantile(small, 0.1))
