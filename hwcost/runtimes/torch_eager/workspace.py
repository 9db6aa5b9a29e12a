"""Memory that torch's CPU kernels of convolutions take while they run, beside their inputs and their output.

torch has two ways to convolve float32 on a CPU (`use_mkldnn` in ATen/native/Convolution.cpp decides):

oneDNN      copies data that is stored plainly into blocks of as many channels as a vector register holds, and the
            output back. While it computes, it holds the copies of input, weight and output; the output itself is
            allocated when the first two are freed:

                workspace = max(input + weight + output - output itself, output)      all but the third in blocks  (1)

            Data in channels-last order is taken as it is, and the weight alone is copied. Groups whose channels do not
            fill whole blocks, and kernels of 9 and more columns, run without blocks; then (1) has the last term alone.
            An input of fewer channels than a block has is not copied.
unfolding   a single small image, a pointwise convolution on one thread, and float64: one column for each output pixel,

                workspace = output pixels * input channels * kernel positions                                       (2)

            and nothing where the kernel has one position, which needs no columns.

An input whose elements do not lie in a row is first copied. The copies that oneDNN makes in other cases are small. In
half precision the way depends on the instructions of the CPU; it is taken to be oneDNN.
"""

from __future__ import annotations

import math

from hwcost.graph import ITEMSIZE, OpSpec, TensorSpec

_KINDS = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_SMALL = 20_480  # elements; a smaller single image is unfolded
_BATCH = 16  # images from which on a pointwise convolution runs in oneDNN on one thread too
_COLUMNS = 9  # of a kernel; as many are too wide for the kernels that work on blocks


def workspace(op: OpSpec, *, threads: int, lanes: int) -> int:
    """Bytes that torch allocates and frees while it runs an op, as far as known: those of convolutions.

    Args:
        op: the op; 0 for one that is no convolution.
        threads: that it runs on.
        lanes: float32 numbers in a vector register of the CPU, 8 or 16.
    """
    if op.kind not in _KINDS + _TRANSPOSED or len(op.inputs) < 2:
        return 0
    x, weight, out = op.inputs[0], op.input("weight") or op.inputs[1], op.outputs[0]
    if len(weight.shape) < 3 or out.dtype not in ("float32", "float16", "bfloat16", "float64"):
        return 0
    if op.kind in _TRANSPOSED or op.param("transposed"):
        return _transposed(op, x, weight, out, threads, lanes)
    copied = x.bytes if x.layout == "strided" else 0
    if not _in_onednn(op, x, weight, threads):
        return copied + _unfolded(op, x, weight, out)
    blocks = _blocked(x, weight, out, lanes)
    if "channels_last" in (x.layout, weight.layout):
        return copied + weight.bytes * (2 if weight.layout != "channels_last" else 1)
    return copied + blocks


def _in_onednn(op: OpSpec, x: TensorSpec, weight: TensorSpec, threads: int) -> bool:
    """Whether oneDNN runs a convolution."""
    if x.dtype == "float64":
        return False
    if x.dtype != "float32":
        return True
    images, kernel = _images(x, weight), weight.shape[2:]
    pointwise = math.prod(kernel) == 1 and threads == 1 and images < _BATCH
    if pointwise and not _is_strided(op):
        return False
    large = images > 1 or x.numel > _SMALL or min(kernel[-2:]) > 3
    return large or _groups(op) > 1


def _unfolded(op: OpSpec, x: TensorSpec, weight: TensorSpec, out: TensorSpec) -> int:
    """Workspace of unfolding, eq. (2); the results of several groups are held until they are joined."""
    joined = out.bytes if _groups(op) > 1 else 0
    if math.prod(weight.shape[2:]) == 1 and not _is_strided(op) and not _is_padded(op):
        return joined
    pixels = out.numel // weight.shape[0]
    return joined + pixels * math.prod(weight.shape[1:]) * ITEMSIZE[x.dtype]


def _blocked(x: TensorSpec, weight: TensorSpec, out: TensorSpec, lanes: int) -> int:
    """Workspace of oneDNN on data that is stored plainly, eq. (1)."""
    c_out, c_group = weight.shape[:2]
    c_in = _channels(x, weight)
    groups = max(c_in // max(c_group, 1), 1)
    depthwise = groups > 1 and c_group == 1 and c_out == groups
    whole = groups == 1 or depthwise or (c_group % lanes == 0 and c_out // groups % lanes == 0)
    if not whole or weight.shape[-1] >= _COLUMNS:
        return out.bytes
    y = _padded(out.bytes, c_out, lanes)
    if c_in < lanes and groups == 1:
        return max(y + _padded(weight.bytes, c_out, lanes) - out.bytes, y)
    copies = _padded(x.bytes, c_in, lanes) + _padded(weight.bytes, c_out, lanes) + y
    return max(copies - out.bytes, y)


def _transposed(op: OpSpec, x: TensorSpec, weight: TensorSpec, out: TensorSpec, threads: int, lanes: int) -> int:
    """Workspace of a transposed convolution: as of others, but the output is copied once more to add the bias."""
    if x.dtype == "float64" or (x.dtype == "float32" and not _in_onednn(op, x, weight, threads)):
        return x.numel // max(weight.shape[0], 1) * math.prod(weight.shape[1:]) * ITEMSIZE[x.dtype]
    c_in, c_out = weight.shape[0], weight.shape[1] * _groups(op)
    if "channels_last" in (x.layout, weight.layout):
        return weight.bytes
    copies = _padded(x.bytes, c_in, lanes) + weight.bytes + _padded(out.bytes, c_out, lanes)
    return max(copies - out.bytes, (2 if _groups(op) == 1 else 1) * out.bytes)


def _padded(size: int, channels: int, lanes: int) -> int:
    """`size` bytes of so many channels, with these filled up to whole blocks."""
    return size // channels * (-(-channels // lanes) * lanes) if channels else 0


def _images(x: TensorSpec, weight: TensorSpec) -> int:
    """Number of images; one where the input has no axis for it."""
    return x.shape[0] if len(x.shape) == len(weight.shape) else 1


def _channels(x: TensorSpec, weight: TensorSpec) -> int:
    return x.shape[1] if len(x.shape) == len(weight.shape) else x.shape[0]


def _groups(op: OpSpec) -> int:
    groups = op.param("groups", 1)
    return groups if isinstance(groups, int) else 1


def _is_strided(op: OpSpec) -> bool:
    """Whether the stride or the dilation is more than one."""
    return any(max(_numbers(op.param(name, 1)), default=1) > 1 for name in ("stride", "dilation"))


def _is_padded(op: OpSpec) -> bool:
    return any(_numbers(op.param("padding", 0)))


def _numbers(value: object) -> list[int]:
    """The integers of a setting of a layer."""
    return [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int)]
