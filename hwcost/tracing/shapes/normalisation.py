"""Shapes of normalisations, and of the norms of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwcost.tracing.form import Form, layout, make_form
from hwcost.tracing.shapes.registry import shape_function


# [b, c, *] = batch_norm([b, c, *], [c]?, [c]?, [c]?, [c]?, training, momentum, eps)
@shape_function("batch_norm.default")
def batch_norm(x: Form, *parameters: Any) -> Form | None:
    """In inference, the form of the input."""
    vectors = [p for p in parameters[:4] if isinstance(p, Form)]
    fits = len(x.shape) > 1 and 0 not in x.shape and all(p.shape == (x.shape[1],) for p in vectors)
    return x if fits and layout(x) and not parameters[4] else None


# [*, n] = layer_norm([*, n], normalized_shape, [n]?, [n]?)
@shape_function("layer_norm.default")
def layer_norm(x: Form, shape: Sequence[int], w: Form | None = None, b: Form | None = None, *_: Any) -> Form | None:
    """The form of the input."""
    fits = x.shape[-len(shape) :] == tuple(shape) and all(p is None or p.shape == tuple(shape) for p in (w, b))
    return x if fits and layout(x) == "c" and x.dtype.is_floating_point else None


# [b, c, *] = group_norm([b, c, *], groups, [c]?, [c]?)
@shape_function("group_norm.default")
def group_norm(x: Form, groups: int, *_: Any, **__: Any) -> Form | None:
    """The form of the input."""
    return x if layout(x) == "c" and len(x.shape) > 1 and x.shape[1] % groups == 0 else None


# [*, 1] = linalg_vector_norm([*, n], ord, dim, keepdim=True)
@shape_function("linalg_vector_norm.default")
def vector_norm(x: Form, ord: Any = 2, dim: Any = None, keepdim: bool = False, **__: Any) -> Form | None:  # noqa: A002
    """The axes that are reduced keep size 1."""
    if layout(x) != "c" or not keepdim or dim is None or not x.dtype.is_floating_point:
        return None
    reduced = {d % len(x.shape) for d in dim}
    return make_form(tuple(1 if i in reduced else s for i, s in enumerate(x.shape)), "c", x.dtype)
