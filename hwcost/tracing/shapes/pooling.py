"""Shapes of pooling and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwcost.tracing.form import Form, as_tuple, layout, make_form
from hwcost.tracing.shapes.registry import ShapeFunction, shape_function


def _pooled(x: Form, n: int, kernel: Any, stride: Any, padding: Any, dilation: Any = 1, *, ceil: bool) -> Form | None:
    """[b, c, *out] of windows over `n` axes; `ceil` rounds sizes up, but no window begins in the padding at the end."""
    if len(x.shape) != n + 2 or not layout(x) or not x.dtype.is_floating_point:
        return None
    steps = kernel if stride in ((), [], None) else stride
    sides = [as_tuple(v, n) for v in (kernel, steps, padding, dilation)]
    space = []
    for size, k, s, p, d in zip(x.shape[2:], *sides, strict=True):
        if 2 * p > k:
            return None
        room = size + 2 * p - d * (k - 1) - 1
        out = -(-room // s) + 1 if ceil else room // s + 1
        space.append(out - 1 if ceil and (out - 1) * s >= size + p else out)
    return make_form((*x.shape[:2], *space), layout(x), x.dtype) if min(space) > 0 else None


def _max_pool(n: int) -> ShapeFunction:
    def pool(
        x: Form, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
    ) -> Form | None:
        return _pooled(x, n, kernel, stride, padding, dilation, ceil=ceil)

    return pool


def _avg_pool(n: int) -> ShapeFunction:
    def pool(x: Form, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *_: Any) -> Form | None:
        return _pooled(x, n, kernel, stride, padding, ceil=ceil)

    return pool


for _n in (1, 2, 3):
    shape_function(f"max_pool{_n}d.default")(_max_pool(_n))
    shape_function(f"avg_pool{_n}d.default")(_avg_pool(_n))


# [b, c, *out] = adaptive_avg_pool2d([b, c, *in], out)
@shape_function("adaptive_avg_pool2d.default", "adaptive_avg_pool1d.default", "adaptive_avg_pool3d.default")
def adaptive_pool(x: Form, size: Sequence[int]) -> Form | None:
    """The size asked for, of a contiguous input."""
    fits = len(x.shape) == len(size) + 2 and 0 not in x.shape and x.dtype.is_floating_point
    return make_form((*x.shape[:2], *size), "c", x.dtype) if fits and layout(x) == "c" else None


# [b, c, H, W] = upsample_bilinear2d([b, c, h, w], size?, ..., scales?)
@shape_function("upsample_bilinear2d.vec", "upsample_nearest2d.vec", "upsample_bicubic2d.vec")
def resize(x: Form, size: Sequence[int] | None, *rest: Any) -> Form | None:
    """The size asked for, or the scaled one, rounded down; in the layout of the input."""
    scales = rest[-1]
    if len(x.shape) != 4 or not layout(x) or 0 in x.shape:
        return None
    space = tuple(size) if size is not None else tuple(int(s * f) for s, f in zip(x.shape[2:], scales, strict=True))
    return make_form((*x.shape[:2], *space), layout(x), x.dtype) if min(space) > 0 else None
