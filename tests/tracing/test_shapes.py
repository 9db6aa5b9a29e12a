"""Forms of results: what is written down must be what torch's CPU kernels return, strides included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwcost.tracing.form import Form, FormError
from hwcost.tracing.shadow import form_of
from hwcost.tracing.shapes.registry import result_form
from hwcost.tracing.trace import trace

aten = torch.ops.aten
sizes = st.integers(1, 5)
layouts = st.sampled_from(["contiguous", "channels_last", "permuted", "expanded"])


def check(op: Any, *args: Any, **kwargs: Any) -> bool:
    """Compare with the real kernel where a form is given; whether one was."""
    as_forms = [_forms(a) for a in args]
    form = result_form(str(op), as_forms, {k: _forms(v) for k, v in kwargs.items()})
    with torch.inference_mode():
        real: Tensor = op(*args, **kwargs)
    assert form in (None, form_of(real)), (op, args, form)
    return form is not None


def _forms(arg: Any) -> Any:
    if isinstance(arg, list) and arg and isinstance(arg[0], Tensor):
        return [form_of(a) for a in arg]
    return form_of(arg) if isinstance(arg, Tensor) else arg


def tensor(shape: tuple[int, ...], layout: str = "contiguous") -> Tensor:
    x = torch.rand(shape)
    if layout == "channels_last" and len(shape) == 4:
        return x.to(memory_format=torch.channels_last)
    if layout == "permuted" and len(shape) > 1:
        return torch.rand((*shape[:-2], shape[-1], shape[-2])).transpose(-1, -2)
    return torch.rand((1, *shape[1:])).expand(shape) if layout == "expanded" else x


UNARY = ["relu", "gelu", "silu", "hardswish", "sigmoid", "tanh", "exp", "sqrt", "neg", "abs", "elu", "mish", "hardtanh"]


@settings(max_examples=60, deadline=None)
@given(st.tuples(sizes, sizes, sizes, sizes), layouts, st.sampled_from(UNARY))
def test_elementwise(shape: tuple[int, ...], layout: str, name: str) -> None:
    check(getattr(aten, name).default, tensor(shape, layout))


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(sizes, sizes, sizes, sizes),
    st.lists(st.booleans(), min_size=4, max_size=4),
    layouts,
    layouts,
    st.booleans(),
)
def test_broadcast(shape: tuple[int, ...], ones: list[bool], first: str, second: str, swap: bool) -> None:
    a = tensor(shape, first)
    b = tensor(tuple(1 if one else s for s, one in zip(shape, ones, strict=True)), second)
    check(aten.mul.Tensor, *((b, a) if swap else (a, b)))
    check(aten.add.Tensor, a, tensor(shape[2:]))


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.sampled_from([2, 4]), st.integers(1, 9), st.integers(1, 9)), layouts,
    st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(1, 2), st.booleans(), st.booleans(),
)  # fmt: skip
def test_convolution(
    shape: tuple[int, ...],
    layout: str,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    depthwise: bool,
    last: bool,
) -> None:
    if dilation * (kernel - 1) + 1 > min(shape[2:]) + 2 * padding:
        return
    groups = shape[1] if depthwise else 1
    weight = torch.rand(shape[1], shape[1] // groups, kernel, kernel)
    if last:
        weight = weight.to(memory_format=torch.channels_last)
    options = [stride] * 2, [padding] * 2, [dilation] * 2, groups
    check(aten.conv2d.default, tensor(shape, layout), weight, None, *options)


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(sizes, sizes, st.integers(4, 9), st.integers(4, 9)), layouts, st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 1), st.booleans(),
)  # fmt: skip
def test_pooling(shape: tuple[int, ...], layout: str, kernel: int, stride: int, padding: int, ceil: bool) -> None:
    if 2 * padding > kernel:
        return
    x, two = tensor(shape, layout), [kernel] * 2
    check(aten.max_pool2d.default, x, two, [stride] * 2, [padding] * 2, [1, 1], ceil)
    check(aten.avg_pool2d.default, x, two, [stride] * 2, [padding] * 2, ceil)
    check(aten.adaptive_avg_pool2d.default, x, [kernel, stride])
    check(aten.upsample_bilinear2d.vec, x, [kernel + 2, stride + 2], False, None)
    check(aten.upsample_nearest2d.vec, x, None, [2.0, 1.5])


@settings(max_examples=60, deadline=None)
@given(st.tuples(sizes, sizes, sizes, sizes), layouts, st.integers(0, 3))
def test_normalisation_softmax_concatenation(shape: tuple[int, ...], layout: str, dim: int) -> None:
    x = tensor(shape, layout)
    vector = torch.rand(shape[1])
    check(aten.batch_norm.default, x, vector, vector, vector, vector, False, 0.1, 1e-5, False)
    check(aten.layer_norm.default, x, list(shape[2:]))
    check(aten.softmax.int, x, dim)
    check(aten.cat.default, [x, x, tensor(shape)], dim)
    check(aten.roll.default, x, [1], [dim])
    check(aten.linalg_vector_norm.default, x, 2, [dim], True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=5), st.lists(st.integers(0, 9), min_size=10))
def test_axes_of_size_one_may_have_any_stride(shape: list[int], strides: list[int]) -> None:
    operands = []
    for loose in (strides[:5], strides[5:]):
        plain = torch.rand(shape)
        stride = [s if size > 1 else other for size, s, other in zip(shape, plain.stride(), loose, strict=False)]
        operands.append(torch.as_strided(plain, shape, stride))
    assert check(aten.add.Tensor, *operands)
    assert check(aten.linear.default, operands[0], torch.rand(2, shape[-1]), torch.rand(2))


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes, sizes, layouts, layouts)
def test_products(b: int, h: int, m: int, k: int, n: int, first: str, second: str) -> None:
    check(aten.matmul.default, tensor((b, h, m, k), first), tensor((b, h, k, n), second))
    check(aten.bmm.default, tensor((b, m, k), first), tensor((b, k, n), second))
    check(aten.mm.default, tensor((m, k), first), tensor((k, n), second))
    check(aten.linear.default, tensor((b, m, k), first), torch.rand(n, k), torch.rand(n))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    layouts,
    st.booleans(),
    st.integers(1, 2),
)
def test_attention(b: int, h: int, length: int, source: int, layout: str, masked: bool, groups: int) -> None:
    query = tensor((b, h * groups, length, 8), layout)
    if layout == "permuted":  # as a fused projection leaves it
        query = torch.rand(b, length, 3, h * groups, 8).permute(2, 0, 3, 1, 4)[0]
    key, value = tensor((b, h, source, 8)), tensor((b, h, source, 8), layout)
    mask = torch.rand(length, source) if masked else None
    check(aten.scaled_dot_product_attention.default, query, key, value, mask, 0.0, False, enable_gqa=groups > 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: check(aten.conv2d.default, torch.rand(1, 3, 8, 8), torch.rand(4, 3, 3, 3), None, [1, 1], [1, 1]),
        lambda: check(aten.linear.default, torch.rand(2, 5, 4), torch.rand(3, 4)),
        lambda: check(aten.relu.default, torch.rand(2, 3)),
        lambda: check(aten.mul.Tensor, torch.rand(1, 4, 6, 6), torch.rand(1, 4, 1, 1)),
        lambda: check(aten.scaled_dot_product_attention.default, *[torch.rand(1, 2, 8, 4)] * 3),
        lambda: check(aten.max_pool2d.default, torch.rand(1, 2, 8, 8), [2, 2]),
        lambda: check(aten.cat.default, [torch.rand(2, 3), torch.rand(2, 4)], 1),
    ],
)
def test_common_calls_have_a_form(call: Callable[[], bool]) -> None:
    assert call()


def test_operands_of_two_dtypes_are_refused() -> None:
    x, w = Form((1, 4), (4, 1), torch.float32), Form((3, 4), (4, 1), torch.float16)
    with pytest.raises(FormError, match=r"one dtype, but got torch\.float16 and torch\.float32"):
        result_form("aten.linear.default", [x, w], {})


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN]),
    *(sizes, st.integers(1, 9), sizes, sizes, st.integers(1, 2)),
    *(st.booleans(), st.booleans()),
)
def test_recurrent_layers(
    layer: Any, batch: int, steps: int, width: int, hidden: int, layers: int, first: bool, both: bool
) -> None:
    """Two steps are tried, however many there are."""
    module = layer(width, hidden, layers, batch_first=first, bidirectional=both).eval()
    x = torch.rand((batch, steps, width) if first else (steps, batch, width))
    found = [(t.shape, t.layout == "contiguous") for t in trace(module, (x,)).ops[-1].spec.outputs]
    out, states = module(x)
    real = [out, *(states if isinstance(states, tuple) else (states,))]
    assert found == [(tuple(t.shape), t.is_contiguous()) for t in real]
