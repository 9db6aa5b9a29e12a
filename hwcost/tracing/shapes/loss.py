"""Shapes of losses whose meta kernel tells another one than the kernel of the CPU."""

from __future__ import annotations

from hwcost.tracing.form import Form, make_form
from hwcost.tracing.shapes.registry import shape_function


# [b] or [] = multilabel_margin_loss([b, c] or [c], [b, c] or [c], reduction)
@shape_function("multilabel_margin_loss.default")
def multilabel_margin_loss(x: Form, target: Form, reduction: int = 1) -> Form | None:
    """A number for each row where they are not reduced (0); the meta kernel makes an axis of a single row."""
    fits = x.shape == target.shape and 0 not in x.shape and len(x.shape) in (1, 2)
    return make_form(x.shape[:-1] if reduction == 0 else (), "c", x.dtype) if fits else None
