"""What form a result has: shape, strides, dtype, without running a kernel. Knows aten; knows no cost.

torch finds the shape of a result by running the op on meta tensors. Many of those kernels are
written in Python and take a millisecond each, far more than all the rest of a trace. The ops that
networks are made of have simple shapes, so they are written down here. Every function returns None
where it is not sure; then the meta kernel decides. What they return is what torch's CPU kernels
return, strides included (the tests compare them).

A layout is "c" (contiguous), "l" (channels last) or None (anything else, or both at once).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

Layout = str | None
Shape = tuple[int, ...]


class Form(NamedTuple):
    """Shape, strides (in elements) and dtype of a tensor."""

    shape: Shape
    stride: Shape
    dtype: torch.dtype


Predictor = Callable[..., Form | None]
_PREDICT: dict[str, Predictor] = {}


class FormError(ValueError):
    """Arguments that the op cannot take."""


def predicted(name: str) -> bool:
    """Whether the overload is written down here."""
    return name in _PREDICT


def predict(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Form | None:
    """Form of the one fresh result of the overload `name`; tensors are given by their forms."""
    predictor = _PREDICT.get(name)
    return predictor(*args, **kwargs) if predictor else None


def _op(*names: str) -> Callable[[Predictor], Predictor]:
    def register(predictor: Predictor) -> Predictor:
        _PREDICT.update((f"aten.{name}", predictor) for name in names)
        return predictor

    return register


@lru_cache(maxsize=50_000)
def contiguous(shape: Shape) -> Shape:
    """Row-major strides."""
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))


@lru_cache(maxsize=50_000)
def channels_last(shape: Shape) -> Shape:
    """Strides of [b, c, *space] with channels innermost."""
    inner = contiguous((shape[0], *shape[2:], shape[1]))
    return (inner[0], 1, *inner[1:-1])


@lru_cache(maxsize=50_000)
def _layout(shape: Shape, stride: Shape) -> Layout:
    if stride == contiguous(shape):
        return "c"
    if len(shape) in (4, 5) and 1 not in shape[1:] and stride == channels_last(shape):
        return "l"
    return None


@lru_cache(maxsize=50_000)
def _dense(shape: Shape, stride: Shape) -> bool:
    """Whether elements fill their span without gaps, and the order of axes is beyond doubt."""
    if _layout(shape, stride):
        return True
    step = 1
    for size, own in sorted(zip(shape, stride, strict=True), key=lambda p: p[1]):
        if own != step or size < 2:
            return False
        step *= size
    return True


def layout(x: Form) -> Layout:
    """The layout of a form."""
    return _layout(x.shape, x.stride)


def _make(shape: Shape, how: Layout, dtype: torch.dtype) -> Form | None:
    if how == "c":
        return Form(shape, contiguous(shape), dtype)
    return Form(shape, channels_last(shape), dtype) if how == "l" and 1 not in shape[1:] else None


def _tuple(value: int | Sequence[int], n: int) -> Shape:
    """An int or a list of 1 or n, as n."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


# -- elementwise ---------------------------------------------------------------------------------


@_op(
    "relu.default", "gelu.default", "silu.default", "hardswish.default", "hardsigmoid.default", "sigmoid.default",
    "tanh.default", "exp.default", "sqrt.default", "rsqrt.default", "neg.default", "erf.default", "leaky_relu.default",
    "elu.default", "softplus.default", "mish.default", "abs.default", "sin.default", "cos.default", "clamp.default",
    "clamp_min.default", "clamp_max.default", "hardtanh.default", "relu6.default", "log.default", "square.default",
    "pow.Tensor_Scalar", "reciprocal.default", "add.Scalar", "mul.Scalar", "sub.Scalar", "div.Scalar", "rsub.Scalar",
)  # fmt: skip
def _unary(x: Form, *_: Any, **__: Any) -> Form | None:
    return x if x.dtype.is_floating_point and _dense(x.shape, x.stride) else None


@_op("eq.Scalar", "ne.Scalar", "lt.Scalar", "le.Scalar", "gt.Scalar", "ge.Scalar", "isnan.default", "isinf.default")
def _compare(x: Form, *_: Any) -> Form | None:
    return x._replace(dtype=torch.bool) if _dense(x.shape, x.stride) else None


@_op("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default", "minimum.default")
def _binary(a: Form, b: Form | float, *_: Any, **__: Any) -> Form | None:
    if not isinstance(b, Form):
        return _unary(a) if isinstance(b, (int, float)) else None
    if a.dtype is not b.dtype or not a.dtype.is_floating_point:
        return None
    if a.shape == b.shape:
        return a if a.stride == b.stride and _dense(a.shape, a.stride) else None
    shape = broadcast(a.shape, b.shape)
    if shape is None or 1 in shape[1:]:
        return None
    full = a if a.shape == shape else b if b.shape == shape else None
    other = b if full is a else a
    if layout(a) == "c" == layout(b):
        return _make(shape, "c", a.dtype)
    if full is None or layout(full) != "l" or len(other.shape) not in (0, 4) or math.prod(other.shape[2:]) != 1:
        return None
    return full  # a scale per channel over a channels-last map


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The common shape of two operands; None where they do not fit."""
    n = max(len(a), len(b))
    pairs = list(zip((1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b, strict=True))
    if any(x != y and x != 1 and y != 1 for x, y in pairs):
        return None
    return tuple(y if x == 1 else x for x, y in pairs)


@_op("quantize_per_tensor.default", "quantize_per_tensor_dynamic.default")
def _quantise(x: Form, *settings: Any) -> Form | None:
    dtype = next((s for s in settings if isinstance(s, torch.dtype)), None)
    return _make(x.shape, "c", dtype) if layout(x) == "c" and dtype else None


def _quantised_pair(a: Form, b: Form, *_: Any) -> Form | None:
    return a if a == b and _dense(a.shape, a.stride) else None


_PREDICT.update({f"quantized.{name}.default": _quantised_pair for name in ("add", "add_relu", "mul", "mul_relu")})


@_op("masked_fill.Scalar")
def _masked_fill(x: Form, mask: Form, _: Any) -> Form | None:
    return x if layout(x) == "c" == layout(mask) and broadcast(x.shape, mask.shape) == x.shape else None


@_op("softmax.int", "log_softmax.int")
def _softmax(x: Form, dim: int, dtype: torch.dtype | None = None) -> Form | None:
    axes = len(x.shape) or 1
    if not -axes <= dim < axes:  # the meta kernel lets it pass
        raise FormError(f"dim must lie in [{-axes}, {axes - 1}], but got {dim}")
    return x._replace(dtype=dtype or x.dtype) if layout(x) == "c" and x.dtype.is_floating_point else None


# -- products ------------------------------------------------------------------------------------


def _same_dtype(*forms: Form | None) -> bool:
    """Whether the operands of a product agree.

    Raises:
        FormError: they do not; kernels refuse that, though some meta kernels let it pass.
    """
    kinds = {f.dtype for f in forms if f is not None}
    if len(kinds) > 1 and not any("q" in str(k) for k in kinds):
        raise FormError("operands must have one dtype, but got " + " and ".join(sorted(map(str, kinds))))
    return len(kinds) == 1


def _conv(n: int) -> Predictor:
    def conv(x: Form, w: Form, b: Form | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
             groups: int = 1) -> Form | None:  # fmt: skip
        if not _same_dtype(x, w, b) or len(x.shape) != n + 2 or len(w.shape) != n + 2:
            return None
        if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups or (b and b.shape != w.shape[:1]):
            return None
        if padding == "same" and set(_tuple(stride, n)) != {1}:
            return None  # refused by torch, which says why
        if padding == "same":
            space = x.shape[2:]
        else:
            sides = (stride, 0 if padding == "valid" else padding, dilation)
            settings = zip(x.shape[2:], w.shape[2:], *(_tuple(v, n) for v in sides), strict=True)
            space = tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d in settings)
        how = "l" if "l" in (layout(x), layout(w)) and n > 1 else "c" if layout(x) == "c" == layout(w) else None
        return _make((x.shape[0], w.shape[0], *space), how, x.dtype) if min(space) > 0 and 0 not in x.shape else None

    return conv


for _n in (1, 2, 3):
    _op(f"conv{_n}d.default", f"conv{_n}d.padding")(_conv(_n))


@_op("linear.default")
def _linear(x: Form, w: Form, b: Form | None = None) -> Form | None:
    if not _same_dtype(x, w, b) or len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
        return None
    if layout(x) != "c" or (b and b.shape not in (w.shape[:1], ())):
        return None
    return _make((*x.shape[:-1], w.shape[0]), "c", x.dtype)


@_op("mm.default", "bmm.default")
def _product(a: Form, b: Form) -> Form | None:
    fits = _same_dtype(a, b) and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return _make((*a.shape[:-1], b.shape[-1]), "c", a.dtype) if fits else None


@_op("_grouped_mm.default")
def _grouped(a: Form, b: Form, *_: Any, **__: Any) -> Form | None:
    """Rows of `a` in groups, each group meeting its own matrix of `b`: a mixture of experts."""
    fits = (len(a.shape), len(b.shape)) == (2, 3) and a.shape[1] == b.shape[1] and _same_dtype(a, b)
    return _make((a.shape[0], b.shape[2]), "c", a.dtype) if fits else None


@_op("matmul.default")
def _matmul(a: Form, b: Form) -> Form | None:
    if len(a.shape) < 3 or len(a.shape) != len(b.shape) or not _same_dtype(a, b) or a.shape[-1] != b.shape[-2]:
        return None
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return None if batch is None else _make((*batch, a.shape[-2], b.shape[-1]), "c", a.dtype)


@_op("scaled_dot_product_attention.default")
def _attention(q: Form, k: Form, v: Form, mask: Form | None = None, dropout: float = 0.0, causal: bool = False,
               *, scale: float | None = None, enable_gqa: bool = False) -> Form | None:  # fmt: skip
    """The flash kernel of the CPU keeps the order of the query's axes; the math path writes [b, h, L, d]."""
    if not _same_dtype(q, k, v) or not all(len(t.shape) == 4 for t in (q, k, v)) or (causal and mask):
        return None
    (b, h, length, d), (kb, kh, s, kd), (vb, vh, vs, vd) = q.shape, k.shape, v.shape
    if kd != d or (vb, vh, vs) != (kb, kh, s) or kb != b or 0 in (*q.shape, *k.shape, *v.shape):
        return None
    if kh != h and not (enable_gqa and h % kh == 0):
        return None
    if _flash(q, k, v, mask, dropout) and (kh == h or enable_gqa):
        return Form(q.shape, _dense_like(q), q.dtype) if 1 not in q.shape[1:] and 0 not in q.stride else None
    return _make((b, h, length, vd), "c", q.dtype)


def _dense_like(x: Form) -> Shape:
    """Strides without gaps, in the order of the strides of `x`."""
    order = sorted(range(len(x.shape)), key=lambda i: -x.stride[i])
    packed = contiguous(tuple(x.shape[i] for i in order))
    return tuple(packed[order.index(i)] for i in range(len(order)))


def _flash(q: Form, k: Form, v: Form, mask: Form | None, dropout: float) -> bool:
    dense = q.stride[-1] == k.stride[-1] == v.stride[-1] == 1 and (not mask or mask.stride[-1:] in ((0,), (1,), ()))
    plain = q.shape[-1] == v.shape[-1] and dropout == 0 and (not mask or len(mask.shape) in (2, 4))
    return dense and plain and q.dtype.is_floating_point


# -- normalisation, pooling, resizing ------------------------------------------------------------


@_op("batch_norm.default")
def _batch_norm(x: Form, *parameters: Any) -> Form | None:
    vectors = [p for p in parameters[:4] if isinstance(p, Form)]
    fits = len(x.shape) > 1 and 0 not in x.shape and all(p.shape == (x.shape[1],) for p in vectors)
    return x if fits and layout(x) and not parameters[4] else None


@_op("layer_norm.default")
def _layer_norm(x: Form, shape: Sequence[int], w: Form | None = None, b: Form | None = None, *_: Any) -> Form | None:
    fits = x.shape[-len(shape) :] == tuple(shape) and all(p is None or p.shape == tuple(shape) for p in (w, b))
    return x if fits and layout(x) == "c" and x.dtype.is_floating_point else None


@_op("group_norm.default")
def _group_norm(x: Form, groups: int, *_: Any, **__: Any) -> Form | None:
    return x if layout(x) == "c" and len(x.shape) > 1 and x.shape[1] % groups == 0 else None


def _window(x: Form, n: int, kernel: Any, stride: Any, padding: Any, dilation: Any = 1, *, ceil: bool) -> Form | None:
    if len(x.shape) != n + 2 or not layout(x) or not x.dtype.is_floating_point:
        return None
    steps = kernel if stride in ((), [], None) else stride
    space = []
    for size, k, s, p, d in zip(x.shape[2:], *(_tuple(v, n) for v in (kernel, steps, padding, dilation)), strict=True):
        if 2 * p > k:
            return None
        room = size + 2 * p - d * (k - 1) - 1
        out = -(-room // s) + 1 if ceil else room // s + 1
        space.append(out - 1 if ceil and (out - 1) * s >= size + p else out)
    return _make((*x.shape[:2], *space), layout(x), x.dtype) if min(space) > 0 else None


def _max_pool(n: int) -> Predictor:
    def pool(
        x: Form, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
    ) -> Form | None:
        return _window(x, n, kernel, stride, padding, dilation, ceil=ceil)

    return pool


def _avg_pool(n: int) -> Predictor:
    def pool(x: Form, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *_: Any) -> Form | None:
        return _window(x, n, kernel, stride, padding, ceil=ceil)

    return pool


for _n in (1, 2, 3):
    _op(f"max_pool{_n}d.default")(_max_pool(_n))
    _op(f"avg_pool{_n}d.default")(_avg_pool(_n))


@_op("adaptive_avg_pool2d.default", "adaptive_avg_pool1d.default", "adaptive_avg_pool3d.default")
def _adaptive(x: Form, size: Sequence[int]) -> Form | None:
    fits = len(x.shape) == len(size) + 2 and 0 not in x.shape and x.dtype.is_floating_point
    return _make((*x.shape[:2], *size), "c", x.dtype) if fits and layout(x) == "c" else None


@_op("upsample_bilinear2d.vec", "upsample_nearest2d.vec", "upsample_bicubic2d.vec")
def _upsample(x: Form, size: Sequence[int] | None, *rest: Any) -> Form | None:
    scales = rest[-1]
    if len(x.shape) != 4 or not layout(x) or 0 in x.shape:
        return None
    space = tuple(size) if size is not None else tuple(int(s * f) for s, f in zip(x.shape[2:], scales, strict=True))
    return _make((*x.shape[:2], *space), layout(x), x.dtype) if min(space) > 0 else None


@_op("cat.default")
def _cat(parts: Sequence[Form], dim: int = 0) -> Form | None:
    first = parts[0]
    n = len(first.shape)
    how = layout(first)
    if not how or not n or not -n <= dim < n or any(p.dtype is not first.dtype or layout(p) != how for p in parts):
        return None
    dim %= n
    rest = first.shape[:dim] + first.shape[dim + 1 :]
    if any(len(p.shape) != n or p.shape[:dim] + p.shape[dim + 1 :] != rest for p in parts):
        return None
    return _make((*first.shape[:dim], sum(p.shape[dim] for p in parts), *first.shape[dim + 1 :]), how, first.dtype)


@_op("roll.default")
def _roll(x: Form, *_: Any, **__: Any) -> Form | None:
    return x if layout(x) == "c" else None


@_op("linalg_vector_norm.default")
def _vector_norm(x: Form, ord: Any = 2, dim: Any = None, keepdim: bool = False, **__: Any) -> Form | None:  # noqa: A002
    if layout(x) != "c" or not keepdim or dim is None or not x.dtype.is_floating_point:
        return None
    reduced = {d % len(x.shape) for d in dim}
    return _make(tuple(1 if i in reduced else s for i, s in enumerate(x.shape)), "c", x.dtype)


@_op("embedding.default")
def _embedding(w: Form, ids: Form, *_: Any) -> Form | None:
    fits = len(w.shape) == 2 and layout(ids) == "c" and ids.dtype in (torch.int64, torch.int32)
    return _make((*ids.shape, w.shape[1]), "c", w.dtype) if fits else None


# -- fused attention, which has no meta kernel ---------------------------------------------------


@_op("_transformer_encoder_layer_fwd.default")
def _encoder_layer(x: Form, *_: Any, **__: Any) -> Form | None:
    return _make(x.shape, "c", x.dtype)
