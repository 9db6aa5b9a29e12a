"""Shapes of convolutions."""

from __future__ import annotations

from typing import Any

from hwcost.tracing.form import Form, Layout, as_tuple, layout, make_form, same_dtype
from hwcost.tracing.shapes.registry import ShapeFunction, shape_function


def _convolution(n: int) -> ShapeFunction:
    """[b, o, *out] of a convolution over `n` axes; channels last where the input or the weight is."""

    def convolution(x: Form, w: Form, b: Form | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                    groups: int = 1) -> Form | None:  # fmt: skip
        if not same_dtype(x, w, b) or len(x.shape) != n + 2 or len(w.shape) != n + 2:
            return None
        if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups or (b and b.shape != w.shape[:1]):
            return None
        if padding == "same":
            if set(as_tuple(stride, n)) != {1}:
                return None  # torch refuses it, and says why
            space = x.shape[2:]
        else:
            sides = (stride, 0 if padding == "valid" else padding, dilation)
            settings = zip(x.shape[2:], w.shape[2:], *(as_tuple(v, n) for v in sides), strict=True)
            space = tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d in settings)
        if min(space) <= 0 or 0 in x.shape:
            return None
        return make_form((x.shape[0], w.shape[0], *space), _layout_of_result(x, w, n), x.dtype)

    return convolution


def _layout_of_result(x: Form, w: Form, n: int) -> Layout:
    if n > 1 and "l" in (layout(x), layout(w)):
        return "l"
    return "c" if layout(x) == "c" == layout(w) else None


for _n in (1, 2, 3):
    shape_function(f"conv{_n}d.default", f"conv{_n}d.padding")(_convolution(_n))
