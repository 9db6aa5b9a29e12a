"""Shapes of fused attention. The fused layers of torch's fast path have no meta kernel."""

from __future__ import annotations

from typing import Any

from hwcost.tracing.form import Form, Shape, contiguous, make_form, same_dtype
from hwcost.tracing.shapes.registry import shape_function


# [b, h, L, d_v] = scaled_dot_product_attention([b, h, L, d], [b, h_kv, S, d], [b, h_kv, S, d_v], mask?)
@shape_function("scaled_dot_product_attention.default")
def attention(q: Form, k: Form, v: Form, mask: Form | None = None, dropout: float = 0.0, causal: bool = False,
              *, scale: float | None = None, enable_gqa: bool = False) -> Form | None:  # fmt: skip
    """The CPU's flash kernel keeps the order of the query's axes; elsewhere the result is contiguous."""
    if not same_dtype(q, k, v) or not all(len(t.shape) == 4 for t in (q, k, v)) or (causal and mask):
        return None
    (b, h, length, d), (kb, kh, s, kd), (vb, vh, vs, vd) = q.shape, k.shape, v.shape
    if kd != d or (vb, vh, vs) != (kb, kh, s) or kb != b or 0 in (*q.shape, *k.shape, *v.shape):
        return None
    if kh != h and not (enable_gqa and h % kh == 0):
        return None
    if _takes_flash(q, k, v, mask, dropout) and (kh == h or enable_gqa):
        return Form(q.shape, _dense_like(q), q.dtype) if 1 not in q.shape[1:] and 0 not in q.stride else None
    return make_form((b, h, length, vd), "c", q.dtype)


def _dense_like(x: Form) -> Shape:
    """Strides without gaps, in the order of the strides of `x`."""
    order = sorted(range(len(x.shape)), key=lambda i: -x.stride[i])
    packed = contiguous(tuple(x.shape[i] for i in order))
    return tuple(packed[order.index(i)] for i in range(len(order)))


def _takes_flash(q: Form, k: Form, v: Form, mask: Form | None, dropout: float) -> bool:
    """Whether torch chooses its flash kernel on a CPU."""
    dense = q.stride[-1] == k.stride[-1] == v.stride[-1] == 1 and (not mask or mask.stride[-1:] in ((0,), (1,), ()))
    plain = q.shape[-1] == v.shape[-1] and dropout == 0 and (not mask or len(mask.shape) in (2, 4))
    return dense and plain and q.dtype.is_floating_point


# [b, L, e] = _transformer_encoder_layer_fwd([b, L, e], ...)
@shape_function("_transformer_encoder_layer_fwd.default")
def encoder_layer(x: Form, *_: Any, **__: Any) -> Form | None:
    """The shape and dtype of the input, contiguous."""
    return make_form(x.shape, "c", x.dtype)
