"""Ops of torchvision for detection networks. They are named only, so torchvision need not be installed."""

from __future__ import annotations

from hwcost.graph import OpSpec, Param
from hwcost.rules.registry import Work, rule

_IOU_FLOPS = 12  # of the overlap of two boxes: 4 comparisons, 5 subtractions and clamps, a product, a sum, a division


# [k] = nms([n, 4], [n], threshold)
@rule("torchvision.nms")
def nms(op: OpSpec) -> Work:
    """An upper bound: every pair of boxes is compared once. Kernels skip the pairs of boxes suppressed before."""
    n = op.inputs[0].shape[0]
    return Work(other_flops=_IOU_FLOPS * n * (n - 1) // 2)


# [n, c, H, W] = roi_align([b, c, h, w], [n, 5], scale, H, W, sampling_ratio)
@rule("torchvision.roi_align", "torchvision.ps_roi_align")
def roi_align(op: OpSpec) -> Work:
    """The mean of bilinear samples; each takes 9 flop: two for each of four neighbours, and one addition.

    An output element is the mean of sampling_ratio squared samples. An adaptive ratio (0 or less) is taken as 2.
    """
    ratio = _number(op.param("sampling_ratio", 2))
    return Work(other_flops=9 * (ratio if ratio > 0 else 2) ** 2 * op.outputs[0].numel)


# [n, c, H, W] = roi_pool([b, c, h, w], [n, 5], scale, H, W)
@rule("torchvision.roi_pool", "torchvision.ps_roi_pool")
def roi_pool(op: OpSpec) -> Work:
    """An upper bound: the maxima of a box compare at most every element of its image's map once."""
    boxes, (h, w) = op.inputs[1].shape[0], op.inputs[0].shape[2:]
    return Work(other_flops=boxes * op.inputs[0].shape[1] * h * w)


def _number(value: Param) -> int:
    return value if isinstance(value, int) else 0
