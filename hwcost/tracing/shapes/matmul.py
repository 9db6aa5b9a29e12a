"""Shapes of matrix products."""

from __future__ import annotations

from typing import Any

from hwcost.tracing.form import Form, broadcast, make_form, same_dtype
from hwcost.tracing.shapes.registry import shape_function


# [*, n] = linear([*, k], [n, k], [n]?)
@shape_function("linear.default")
def linear(x: Form, w: Form, b: Form | None = None) -> Form | None:
    """A contiguous result, however the operands lie in memory."""
    if not same_dtype(x, w, b) or len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
        return None
    if b and b.shape not in (w.shape[:1], ()):
        return None
    return make_form((*x.shape[:-1], w.shape[0]), "c", x.dtype)


# [m, n] = mm([m, k], [k, n])        [b, m, n] = bmm([b, m, k], [b, k, n])
@shape_function("mm.default", "bmm.default")
def product(a: Form, b: Form) -> Form | None:
    """A contiguous result, however the operands lie in memory."""
    fits = same_dtype(a, b) and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return make_form((*a.shape[:-1], b.shape[-1]), "c", a.dtype) if fits else None


# [m, n] = _grouped_mm([m, k], [g, k, n], offsets [g])
@shape_function("_grouped_mm.default")
def grouped(a: Form, b: Form, *_: Any, **__: Any) -> Form | None:
    """A mixture of experts: the rows of `a` are split into groups, and each group meets its own matrix of `b`."""
    fits = (len(a.shape), len(b.shape)) == (2, 3) and a.shape[1] == b.shape[1] and same_dtype(a, b)
    return make_form((a.shape[0], b.shape[2]), "c", a.dtype) if fits else None


# [*, m, n] = matmul([*, m, k], [*, k, n])
@shape_function("matmul.default")
def matmul(a: Form, b: Form) -> Form | None:
    """Operands with as many axes, of at least three, whose leading axes are broadcast."""
    if len(a.shape) < 3 or len(a.shape) != len(b.shape) or not same_dtype(a, b) or a.shape[-1] != b.shape[-2]:
        return None
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return None if batch is None else make_form((*batch, a.shape[-2], b.shape[-1]), "c", a.dtype)
