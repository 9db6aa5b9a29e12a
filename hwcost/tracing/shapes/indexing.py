"""Shapes of ops that move data: concatenation, rolling, look-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hwcost.tracing.form import Form, layout, make_form
from hwcost.tracing.shapes.registry import shape_function


@shape_function("cat.default")
def concatenate(parts: Sequence[Form], dim: int = 0) -> Form | None:
    """Parts of one dtype and one layout, which the result has too."""
    first = parts[0]
    n = len(first.shape)
    how = layout(first)
    if not how or not n or not -n <= dim < n or any(p.dtype is not first.dtype or layout(p) != how for p in parts):
        return None
    dim %= n
    rest = first.shape[:dim] + first.shape[dim + 1 :]
    if any(len(p.shape) != n or p.shape[:dim] + p.shape[dim + 1 :] != rest for p in parts):
        return None
    return make_form((*first.shape[:dim], sum(p.shape[dim] for p in parts), *first.shape[dim + 1 :]), how, first.dtype)


@shape_function("roll.default")
def roll(x: Form, *_: Any, **__: Any) -> Form | None:
    """The form of the input."""
    return x if layout(x) == "c" else None


# [*, d] = embedding([n, d], [*])
@shape_function("embedding.default")
def embedding(w: Form, ids: Form, *_: Any) -> Form | None:
    """A row of the table for each index."""
    fits = len(w.shape) == 2 and layout(ids) == "c" and ids.dtype in (torch.int64, torch.int32)
    return make_form((*ids.shape, w.shape[1]), "c", w.dtype) if fits else None
