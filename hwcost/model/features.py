"""A kernel as numbers: what the residual learns from.

Every feature is read from shapes, parameters and cost alone, the same way for every op: this module
knows no op by name. Sizes are logarithms to base 2. Where an op works along one dimension (the channels
of a convolution, the features of a linear layer, what a norm or a softmax runs over), that dimension is
found from the weights' shape or the op's parameters, since [n, h, w, c] and [n, c, h, w] look alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwcost.device.device import Device
from hwcost.graph import ITEMSIZE, OpSpec, Param, TensorSpec
from hwcost.kernel import Kernel, label
from hwcost.roofline import level_time
from hwcost.rules.registry import cost_of

Array = NDArray[np.float64]

_COST = (
    "compute_time",
    "memory_time",
    "bound",
    "flops",
    "macs",
    "weights",
    "read",
    "written",
    "distance",
    "working_set",
    "reach",
)
_EXTENT = (
    "depth_k",
    "channels_out",
    "channels_in",
    "rows",
    "height",
    "width",
    "batch",
    "dims",
    "last_in",
    "last_out",
    "input",
)
_WINDOW = ("window", "stride", "dilation", "groups", "padding", "window_width", "group_in", "group_out")
_ALIGNMENT = (
    "align_out",
    "align_in",
    "waste_8_out",
    "waste_8_in",
    "waste_16_out",
    "waste_32_out",
    "waste_4_last",
    "waste_8_last",
)
_LAYOUT = ("strided", "layout_in", "layout_out", "run", "moved", "itemsize", "inputs", "in_place")
_BROADCASTS = frozenset({"add", "sub", "mul", "div", "maximum", "minimum"})
_CEILINGS_ERR = 0.2  # by which a measured ceiling may be too low, as where the clock is higher than it was
_LAYOUTS = {"contiguous": 0.0, "strided": 2.0}  # 1: channels innermost, or in blocks
NAMES = ("kind", "ops", "epilogue", *_COST, *_EXTENT, *_WINDOW, *_ALIGNMENT, *_LAYOUT, "parallel")
SUPPORT = (
    "flops", "read", "written", "weights", "depth_k", "channels_out", "channels_in", "rows", "window", "itemsize",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What a kernel runs on: the ceilings that normalise it."""

    device: Device
    threads: int
    dtype: str = "float32"
    runtime: str = "torch-eager"


@dataclass(frozen=True, slots=True)
class Columns:
    """Distinct kernels as arrays, all of length n."""

    flops: Array
    compute_time: Array  # s, W / P
    at_best: Array  # s, of the work that cannot be left out over the ceiling of the kind, or P where it has none
    memory_time: Array  # s, each part of the traffic at the level it fits in
    floor: Array  # s, that work at the higher of both ceilings or all traffic at L2's, whichever takes longer
    streams: Array  # s, [n, 3]: weights, activations read, activations written, all of it from DRAM
    features: Array  # [n, len(NAMES)]; the kind's column is filled by the residual
    kinds: tuple[str, ...]

    @property
    def roofline(self) -> Array:
        """max(W / P, Q / B) (s), with W the work that cannot be left out and P that of the kind."""
        return np.maximum(self.at_best, self.memory_time)

    def least(self, supported: NDArray[np.bool_]) -> Array:
        """What no answer is below (s): the roofline, and of kernels that were measured what L2 and the quickest
        products allow. Which level serves them, and how near their kind's probes they come, is the roofline's guess,
        but a clock that counts whole microseconds knows less than a ceiling."""
        return np.where(supported, self.floor / (1 + _CEILINGS_ERR), self.roofline)

    @property
    def compute_bound(self) -> NDArray[np.bool_]:
        """True where W / P > Q / B."""
        return self.at_best > self.memory_time


def reach_of(traffic: float, device: Device) -> int:
    """How far a network reaches in a run: 0 where its traffic (byte) stays within half of an L2 cache, and one more
    for every doubling beyond that, up to four times what L3 holds.

    It tells from where weights come: they were last used one run ago. So does what the runtime itself needs,
    its code and its tables. Caches that the device does not state are taken to be of 1 and 32 MB.
    """
    edges = _reach_edges(device.cache_size("L2") or 1e6, device.cache_size("L3") or 32e6)
    return sum(traffic > edge for edge in edges)


@lru_cache(maxsize=64)
def _reach_edges(near: float, far: float) -> tuple[float, ...]:
    steps = round(math.log2(8 * max(far / near, 1)))  # from near / 2 to 4 far
    return tuple(near / 2 * 2.0**step for step in range(steps + 1))


def columns(kernels: Sequence[tuple[Kernel, int]], target: Target, reach: ArrayLike = 2) -> Columns:
    """Arrays of kernels, each with its reuse distance (byte, -1 where it reads no activation), in networks of some
    reach (`reach_of`), one for all or [n]."""
    shapes = np.array([_shape_features(kernel) for kernel, _ in kernels], dtype=float).reshape(len(kernels), -1)
    traffic = np.array([_traffic(kernel) for kernel, _ in kernels], dtype=float).reshape(-1, 5)
    distance = np.array([d for _, d in kernels], dtype=float)
    flops, macs, weights, read, written = traffic.T
    dtypes = [kernel.dtype for kernel, _ in kernels]
    peaks = {dtype: target.device.peak(dtype, target.threads) for dtype in set(dtypes)}
    peak = np.array([peaks[dtype] for dtype in dtypes])
    compute = flops / peak
    names = tuple(label(kernel) for kernel, _ in kernels)
    needed = flops * np.array([_needed(kernel) for kernel, _ in kernels])
    of_kind = _kind_peaks(names, dtypes, target) if target.device.kinds else peak
    memory = level_time(weights, read, written, distance, target.device, target.threads)
    near = target.device.bandwidth("L2", target.threads) if target.device.cache_size("L2") else math.inf
    streams = np.column_stack([weights, read, written]) / target.device.bandwidth("DRAM", target.threads)
    timed = np.column_stack([
        _log(compute * 1e9), _log(memory * 1e9), _log(compute * 1e9) - _log(memory * 1e9),
        _log(flops), _log(macs), _log(weights), _log(read), _log(written), np.round(_log(np.maximum(distance, 0))),
        _log(weights + read + written), np.broadcast_to(np.asarray(reach, dtype=float), len(kernels)),
    ])  # fmt: skip
    parallel = np.full((len(kernels), 1), math.log2(target.threads))
    features = np.hstack([np.zeros((len(kernels), 1)), shapes[:, :2], timed, shapes[:, 2:], parallel])
    assert features.shape[1] == len(NAMES), (features.shape, len(NAMES))
    floor = np.maximum(needed / np.maximum(peak, of_kind), (weights + read + written) / near)
    return Columns(flops, compute, needed / of_kind, memory, floor, streams, features, names)


def _kind_peaks(names: Sequence[str], dtypes: Sequence[str], target: Target) -> Array:
    """Ceiling (flop/s) of each kernel's kind."""
    device, peaks = target.device, dict[tuple[str, str], float]()
    for name, dtype in set(zip(names, dtypes, strict=True)):
        peaks[name, dtype] = device.kind_peak(name, target.runtime, dtype, target.threads)
    return np.array([peaks[pair] for pair in zip(names, dtypes, strict=True)])


def buckets(distance: NDArray[np.int64]) -> NDArray[np.int64]:
    """`hwcost.kernel.bucket` of many: distances as a cost model tells them apart, to a factor of two."""
    return np.where(distance > 0, np.frexp(distance.astype(float))[1], np.minimum(distance, 0)).astype(np.int64)


def _log(x: Array) -> Array:
    """log2(1 + x): defined at 0, where many kernels have no weights or no macs."""
    return np.log2(1.0 + x)


@lru_cache(maxsize=1 << 16)
def _needed(kernel: Kernel) -> float:
    """Share of a convolution's products that are with numbers of its input, and not with the padding around it.

    Published counts hold both, but a runtime may leave the padding out: of a 3x3 window on a 1x1 map, 8 of 9.
    """
    op = kernel.main
    weight = next((t.shape[2:] for t in op.inputs[1:2] if t.name == "weight" and len(t.shape) > 2), ())
    share, sides = 1.0, len(weight)
    before, after = (t.shape[len(t.shape) - sides :] for t in (op.inputs[0], op.outputs[0])) if weight else ((), ())
    for axis, (size, out, window) in enumerate(zip(before, after, weight, strict=True)):
        stride, dilation = (int(_at(op.param(name, 1), axis)) for name in ("stride", "dilation"))
        padding = op.param("padding", 0)
        left = dilation * (window - 1) // 2 if padding == "same" else int(_at(padding, axis))
        if out != (size + 2 * left - dilation * (window - 1) - 1) // stride + 1:
            return 1.0  # of a transposed convolution, or padded on one side
        share *= _inside(size, out, window, stride, dilation, left)
    return share


@lru_cache(maxsize=1 << 12)
def _inside(size: int, out: int, window: int, stride: int, dilation: int, left: int) -> float:
    """Share of the places of a window, over all outputs along an axis, that lie inside the input."""
    places = np.arange(out)[:, None] * stride - left + np.arange(window) * dilation
    return float(((places >= 0) & (places < size)).mean())


def _at(value: Param, axis: int) -> float:
    """A parameter's number for an axis."""
    one = value[axis % len(value)] if isinstance(value, tuple) and value else value
    return float(one) if isinstance(one, (int, float)) else 0.0


def traffic_of(kernel: Kernel) -> int:
    """Compulsory traffic (byte) of a kernel, remembered for `columns`."""
    return sum(_traffic(kernel)[2:])


@lru_cache(maxsize=1 << 17)
def _traffic(kernel: Kernel) -> tuple[int, int, int, int, int]:
    """Flops, macs, and bytes of weights, activations read and activations written."""
    cost = kernel.cost
    return cost.flops, cost.macs, cost.bytes_weights, cost.bytes_activations, cost.bytes_written


@lru_cache(maxsize=1 << 16)
def _shape_features(kernel: Kernel) -> tuple[float, ...]:
    """Geometry of a kernel: the main op's tensors and parameters."""
    op = kernel.main
    out = op.outputs[0] if op.outputs else op.inputs[0]
    first = _largest(op.inputs) if op.kind in _BROADCASTS else op.inputs[0] if op.inputs else out
    tensors = [t for o in kernel.ops for t in o.inputs]
    channels = _channels(op, first, out)
    return (
        float(len(kernel.ops)), float(len({o.kind for o in kernel.ops[1:]})),
        *_extent(op, first, out, channels), *_window_features(op, channels), *_alignment(op, out, channels),
        float(sum(t.layout != "contiguous" for t in tensors)), _LAYOUTS.get(first.layout, 1.0),
        _LAYOUTS.get(out.layout, 1.0), *_permutation(op, first), float(ITEMSIZE[first.dtype]), float(len(tensors)),
        float(any(o.param("in_place") is True for o in kernel.ops)),
    )  # fmt: skip


def _largest(inputs: tuple[TensorSpec, ...]) -> TensorSpec:
    """What an elementwise op works along, whichever side a gate or a number stands on."""
    return max(inputs, key=lambda tensor: tensor.numel)


def _extent(op: OpSpec, first: TensorSpec, out: TensorSpec, channels: tuple[int, int]) -> tuple[float, ...]:
    channels_in, channels_out = channels
    height, width = (out.shape[-2], out.shape[-1]) if len(out.shape) >= 4 else (1, 1)
    depth = cost_of(op)[0].macs / max(out.numel, 1)
    sizes = (depth, channels_out, channels_in, out.numel // channels_out, height, width)
    batch = math.log2(max(out.shape[0], 1)) if out.shape else 0.0
    more = (_last(first), _last(out), first.numel)
    return (*(math.log2(1 + v) for v in sizes), batch, float(len(out.shape)), *(math.log2(1 + v) for v in more))


def _window_features(op: OpSpec, channels: tuple[int, int]) -> tuple[float, ...]:
    filters = next((t.shape[2:] for t in op.inputs[1:2] if t.name == "weight" and len(t.shape) > 2), ())
    window = math.prod(filters) if filters else _window(op)
    groups = _scalar(op.param("groups", 1))
    padding = op.param("padding", 0)
    before = float(max(filters, default=1) // 2) if padding == "same" else _scalar(padding, low=0.0)
    return (
        math.log2(1 + window), *(math.log2(_scalar(op.param(name, 1))) for name in ("stride", "dilation", "groups")),
        before, float(filters[-1] if filters else 1),
        *(math.log2(max(c / groups, 1)) for c in channels),
    )  # fmt: skip


def _alignment(op: OpSpec, out: TensorSpec, channels: tuple[int, int]) -> tuple[float, ...]:
    """How channels and rows fill the vectors and blocks of vectors that kernels work with."""
    channels_in, channels_out = channels
    groups = int(_scalar(op.param("groups", 1)))
    each_in, each_out, last = max(channels_in // groups, 1), max(channels_out // groups, 1), _last(out)
    return (
        _twos(channels_out), _twos(channels_in), _waste(each_out, 8), _waste(each_in, 8), _waste(each_out, 16),
        _waste(each_out, 32), _waste(last, 4), _waste(last, 8),
    )  # fmt: skip


def _waste(size: int, block: int) -> float:
    """log2 of the work done over the work asked for, where whole blocks are worked on."""
    return math.log2(-(-size // block) * block / size)


def _twos(channels: int) -> float:
    """log2 of the largest power of two up to 64 that divides the channels."""
    return float(min((channels & -channels).bit_length() - 1, 6))


def _permutation(op: OpSpec, first: TensorSpec) -> tuple[float, float]:
    """Of a copy into another order: log2 of the run of elements that stay together, and how many dimensions
    move against the others. (-1, -1) for everything else."""
    perm = op.param("perm")
    if not isinstance(perm, tuple) or not perm:
        return -1.0, -1.0
    order = [int(p) for p in perm if isinstance(p, int)]
    kept = next(
        (n for n, (i, p) in enumerate(zip(range(len(order))[::-1], order[::-1], strict=True)) if i != p), len(order)
    )
    longest = [1] * len(order)  # increasing subsequences that end here
    for i, p in enumerate(order):
        longest[i] = 1 + max((longest[j] for j in range(i) if order[j] < p), default=0)
    return math.log2(math.prod(first.shape[len(order) - kept :])), float(len(order) - max(longest))


def _channels(op: OpSpec, first: TensorSpec, out: TensorSpec) -> tuple[int, int]:
    """(in, out): the extent of the dimension that the op works along."""
    weight = next((t.shape for t in op.inputs if t.name == "weight"), ())  # a parameter, or computed on the way
    normalised, dim = op.param("normalized_shape"), op.param("dim")
    if len(weight) == 2:
        return _last(first), _last(out)
    if isinstance(normalised, tuple):
        size = math.prod(int(n) for n in normalised if isinstance(n, int))
        return max(size, 1), max(size, 1)
    if not weight and isinstance(dim, int) and -len(first.shape) <= dim < len(first.shape):
        inside = max(first.shape[dim], 1)
        return inside, max(out.shape[dim], 1) if len(out.shape) == len(first.shape) else inside
    return _mapped(first), _mapped(out)


def _mapped(t: TensorSpec) -> int:
    """Channels of a feature map [b, c, *] or of a matrix [*, c]."""
    return max(t.shape[1], 1) if len(t.shape) >= 4 else _last(t)


def _last(t: TensorSpec) -> int:
    return max(t.shape[-1], 1) if t.shape else 1


def _window(op: OpSpec) -> float:
    size = op.param("kernel_size", 1)
    return math.prod(_scalar(s) for s in size) if isinstance(size, tuple) else _scalar(size) ** 2


def _scalar(value: Param, low: float = 1.0) -> float:
    first = value[0] if isinstance(value, tuple) and value else value
    return max(float(first), low) if isinstance(first, (int, float)) else low


def support_columns() -> list[int]:
    """Columns in which a kernel must be near a measured one to count as measured."""
    return [NAMES.index(name) for name in SUPPORT]
