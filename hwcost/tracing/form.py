"""Shape, strides and dtype of a tensor, and how its elements lie in memory.

A layout is "c" (contiguous), "l" (channels last) or None (anything else, or both at once).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

Layout = str | None
Shape = tuple[int, ...]


class Form(NamedTuple):
    """Shape, strides (in elements) and dtype of a tensor."""

    shape: Shape
    stride: Shape
    dtype: torch.dtype


class FormError(ValueError):
    """Arguments that the op cannot take."""


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


def layout(x: Form) -> Layout:
    """The layout of a form, by the strides of all axes; `layout_name` leaves out those of axes of size 1."""
    return _layout(x.shape, x.stride)


@lru_cache(maxsize=50_000)
def _layout(shape: Shape, stride: Shape) -> Layout:
    if stride == contiguous(shape):
        return "c"
    if len(shape) in (4, 5) and 1 not in shape[1:] and stride == channels_last(shape):
        return "l"
    return None


def is_dense(x: Form) -> bool:
    """Whether the elements fill their span without gaps, and the strides tell the order of all axes."""
    return _is_dense(x.shape, x.stride)


@lru_cache(maxsize=50_000)
def _is_dense(shape: Shape, stride: Shape) -> bool:
    if _layout(shape, stride):
        return True
    step = 1
    for size, own in sorted(zip(shape, stride, strict=True), key=lambda axis: axis[1]):
        if own != step or size < 2:
            return False
        step *= size
    return True


def layout_name(x: Form) -> str:
    """The layout as a kernel description has it: "contiguous", "channels_last" or "strided"."""
    known = layout(x)
    if known:
        return "contiguous" if known == "c" else "channels_last"
    # The stride of an axis of size 1 is never used and may be anything.
    used = [(size, step) for size, step in zip(x.shape, x.stride, strict=True) if size != 1]
    if 0 in x.shape or tuple(step for _, step in used) == contiguous(tuple(size for size, _ in used)):
        return "contiguous"
    return "channels_last" if len(x.shape) == 4 and _is_channels_last(x) else "strided"


def _is_channels_last(x: Form) -> bool:
    """Whether torch's kernels take a tensor of four axes for channels last.

    They do not where the batch axis, of size 1, has too small a stride, as in tokens that are viewed as a map; then
    they copy it first (`is_channels_last_strides_2d` in c10/core/MemoryFormat.h).
    """
    meta = torch.empty_strided(x.shape, x.stride, device="meta")
    return meta.is_contiguous(memory_format=torch.channels_last) and x.stride[0] >= math.prod(x.shape[1:])


def span(x: Form) -> int:
    """Number of elements of memory from the first to the last element of a tensor, gaps included."""
    if 0 in x.shape:
        return 0
    last = 0
    for size, step in zip(x.shape, x.stride, strict=True):
        last += (size - 1) * step
    return 1 + last


def distinct(x: Form) -> int:
    """Number of distinct elements in memory: an axis of stride 0 counts once, and overlapping axes their span."""
    sizes = (size if step or size == 0 else 1 for size, step in zip(x.shape, x.stride, strict=True))
    return min(math.prod(sizes), span(x))


def make_form(shape: Shape, how: Layout, dtype: torch.dtype) -> Form | None:
    """A form in the given layout; None where no layout is given, or where channels last is ambiguous."""
    if how == "c":
        return Form(shape, contiguous(shape), dtype)
    return Form(shape, channels_last(shape), dtype) if how == "l" and 1 not in shape[1:] else None


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The common shape of two operands; None where they do not fit."""
    n = max(len(a), len(b))
    pairs = list(zip((1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b, strict=True))
    if any(x != y and x != 1 and y != 1 for x, y in pairs):
        return None
    return tuple(y if x == 1 else x for x, y in pairs)


def as_tuple(value: int | Sequence[int], n: int) -> Shape:
    """A setting of a layer for each of `n` axes, from an int, a list of one, or a list of `n`."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


def same_dtype(*forms: Form | None) -> bool:
    """Whether the operands of a product have one dtype; False for a quantised and a floating-point one.

    Raises:
        FormError: their dtypes differ and none is quantised. Kernels refuse that, though some meta kernels do not.
    """
    kinds = {f.dtype for f in forms if f is not None}
    if len(kinds) > 1 and not any("q" in str(k) for k in kinds):
        raise FormError("operands must have one dtype, but got " + " and ".join(sorted(map(str, kinds))))
    return len(kinds) == 1
