"""Pooling and reductions: one flop for each element that is added or compared."""

from __future__ import annotations

import math

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule


# [b, c, *out] = max_pool2d([b, c, *in], kernel_size, stride?, ...)
@rule(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "quantized_max_pool2d",
    "quantized_max_pool1d", "fractional_max_pool2d", "fractional_max_pool3d",
)  # fmt: skip
def pool(op: OpSpec) -> Work:
    """Each output element reduces one window."""
    size = op.param("kernel_size", 1)
    axes = int("".join(c for c in op.kind.split("_with")[0] if c.isdigit()))
    sides = tuple(s for s in size if isinstance(s, int)) if isinstance(size, tuple) else (int(size or 1),)
    window = math.prod(sides) if len(sides) == axes else sides[0] ** axes
    out = op.outputs[0]
    # torch computes the maxima together with their indices (int64) and then copies the maxima.
    workspace = out.numel * 8 + out.bytes if op.kind in ("max_pool1d", "max_pool2d", "max_pool3d") else 0
    return Work(other_flops=out.numel * window, workspace=workspace)


# [b, c, *out] = adaptive_avg_pool2d([b, c, *in], output_size)
@rule(
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
)  # fmt: skip
def adaptive_pool(op: OpSpec) -> Work:
    """Windows cover the input once; with more outputs than inputs, each output reads one element."""
    return Work(other_flops=max(op.inputs[0].numel, op.outputs[0].numel))


# [*] = sum([*, n], dim)        [*] = max([*], [*])
@rule(
    "sum", "mean", "amax", "amin", "max", "min", "prod", "any", "all", "logsumexp", "nansum", "median",
    "argmax", "argmin", "count_nonzero", "cumsum", "cumprod", "cummax", "cummin", "nanmean", "aminmax", "mode",
    "nanmedian", "trace", "histc", "bincount", "equal", "allclose", "logcumsumexp", "sum_to_size",
)  # fmt: skip
def reduction(op: OpSpec) -> Work:
    """One flop per element read; one per output element of the elementwise `max` and `min` of two operands."""
    return Work(other_flops=max(op.inputs[0].numel, op.outputs[0].numel))


# [*] = var([*, n], dim)
@rule("var", "std", "var_mean", "std_mean")
def variance(op: OpSpec) -> Work:
    """An addition for the mean, then a subtraction, a square and an addition, for each element."""
    return Work(other_flops=4 * op.inputs[0].numel)
