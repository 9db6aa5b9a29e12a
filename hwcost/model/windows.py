"""The window of a convolution: its extents, and how much of it lies on the input.

Published counts of a convolution's work include the products with the zeros of its padding. A runtime may leave
these out: a 3x3 window on a padded 1x1 map then takes 1 product of 9. Lower bounds of time count the products that
remain.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hwcost.graph import OpSpec, Param
from hwcost.kernel import Kernel


def window_extents(op: OpSpec) -> tuple[int, ...]:
    """Extents of a convolution's window, one for each spatial dimension: the weight [out, in / groups, *window]
    without its first two dimensions. () for an op without such a weight."""
    second = op.inputs[1] if len(op.inputs) > 1 else None
    if second is None or second.name != "weight":
        return ()
    return second.shape[2:]


@lru_cache(maxsize=1 << 16)
def share_on_input(kernel: Kernel) -> float:
    """Share (0 to 1) of a convolution's products that read the input and not the padding around it.

    It is 1 for every other op, and where the output's size does not follow from equal padding on both sides, as in a
    transposed convolution.
    """
    op = kernel.main
    window = window_extents(op)
    if not window:
        return 1.0
    sizes, outs = op.inputs[0].shape[-len(window) :], op.outputs[0].shape[-len(window) :]
    padding = op.param("padding", 0)
    share = 1.0
    for axis, (size, out, width) in enumerate(zip(sizes, outs, window, strict=True)):
        stride = int(_of_axis(op.param("stride", 1), axis))
        dilation = int(_of_axis(op.param("dilation", 1), axis))
        span = dilation * (width - 1)  # from the first to the last place of the window
        before = span // 2 if padding == "same" else int(_of_axis(padding, axis))
        if out != (size + 2 * before - span - 1) // stride + 1:
            return 1.0
        share *= _share_of_axis(size, out, width, stride, dilation, before)
    return share


@lru_cache(maxsize=1 << 12)
def _share_of_axis(size: int, out: int, width: int, stride: int, dilation: int, before: int) -> float:
    """Share of the window's places along one axis, over all outputs, that lie inside the input."""
    places = np.arange(out)[:, None] * stride - before + np.arange(width) * dilation
    return float(((places >= 0) & (places < size)).mean())


def _of_axis(value: Param, axis: int) -> float:
    """What a parameter says of an axis: its number, or the axis' number of several. 0 where it is no number."""
    one = value[axis % len(value)] if isinstance(value, tuple) and value else value
    return float(one) if isinstance(one, (int, float)) else 0.0
