"""Shapes of elementwise ops."""

from __future__ import annotations

import math
from typing import Any

import torch

from hwcost.tracing.form import Form, FormError, broadcast, is_dense, layout, layout_name, make_form
from hwcost.tracing.shapes.registry import shape_function


@shape_function(
    "relu.default", "gelu.default", "silu.default", "hardswish.default", "hardsigmoid.default", "sigmoid.default",
    "tanh.default", "exp.default", "sqrt.default", "rsqrt.default", "neg.default", "erf.default", "leaky_relu.default",
    "elu.default", "softplus.default", "mish.default", "abs.default", "sin.default", "cos.default", "clamp.default",
    "clamp_min.default", "clamp_max.default", "hardtanh.default", "relu6.default", "log.default", "square.default",
    "pow.Tensor_Scalar", "reciprocal.default", "add.Scalar", "mul.Scalar", "sub.Scalar", "div.Scalar", "rsub.Scalar",
)  # fmt: skip
def unary(x: Form, *_: Any, **__: Any) -> Form | None:
    """The form of the operand, if that is of floating point: of integers, some of these ops make floats."""
    return x if x.dtype.is_floating_point and is_dense(x) else None


@shape_function(
    "eq.Scalar", "ne.Scalar", "lt.Scalar", "le.Scalar", "gt.Scalar", "ge.Scalar", "isnan.default", "isinf.default",
)  # fmt: skip
def comparison(x: Form, *_: Any) -> Form | None:
    """The form of the operand, with dtype bool."""
    return x._replace(dtype=torch.bool) if is_dense(x) else None


@shape_function("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default", "minimum.default")
def binary(a: Form, b: Form | float, *_: Any, **__: Any) -> Form | None:
    """Two operands of one dtype: equal ones, contiguous ones, or a channels-last map and a number per channel."""
    if not isinstance(b, Form):
        return unary(a) if isinstance(b, (int, float)) else None
    if a.dtype is not b.dtype or not a.dtype.is_floating_point:
        return None
    if a.shape == b.shape:
        if a.stride == b.stride and is_dense(a):
            return a
        # Axes of size 1 may have any stride in a contiguous operand; those of the result are in order.
        return make_form(a.shape, "c", a.dtype) if layout_name(a) == layout_name(b) == "contiguous" else None
    shape = broadcast(a.shape, b.shape)
    if shape is None or 1 in shape[1:]:
        return None
    full = a if a.shape == shape else b if b.shape == shape else None
    other = b if full is a else a
    if layout(a) == "c" == layout(b):
        return make_form(shape, "c", a.dtype)
    if full is None or layout(full) != "l" or len(other.shape) not in (0, 4) or math.prod(other.shape[2:]) != 1:
        return None
    return full


@shape_function("quantize_per_tensor.default", "quantize_per_tensor_dynamic.default")
def quantise(x: Form, *settings: Any) -> Form | None:
    """The form of the operand, with the dtype that is one of the settings."""
    dtype = next((s for s in settings if isinstance(s, torch.dtype)), None)
    return make_form(x.shape, "c", dtype) if layout(x) == "c" and dtype else None


@shape_function(
    "quantized.add.default", "quantized.add_relu.default", "quantized.mul.default", "quantized.mul_relu.default"
)
def quantised_binary(a: Form, b: Form, *_: Any) -> Form | None:
    """Two equal operands."""
    return a if a == b and is_dense(a) else None


@shape_function("masked_fill.Scalar")
def masked_fill(x: Form, mask: Form, _: Any) -> Form | None:
    """The form of the operand; the mask is broadcast to it."""
    return x if layout(x) == "c" == layout(mask) and broadcast(x.shape, mask.shape) == x.shape else None


@shape_function("softmax.int", "log_softmax.int")
def softmax(x: Form, dim: int, dtype: torch.dtype | None = None) -> Form | None:
    """The form of the operand, or with the dtype asked for.

    An axis that does not exist is refused here, since the meta kernel accepts it.
    """
    axes = len(x.shape) or 1
    if not -axes <= dim < axes:
        raise FormError(f"dim must lie in [{-axes}, {axes - 1}], but got {dim}")
    return x._replace(dtype=dtype or x.dtype) if layout(x) == "c" and x.dtype.is_floating_point else None
