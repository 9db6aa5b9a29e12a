"""ONNX nodes that do the work of several ops, and those whose inputs torch has in another form.

These are convolutions and products with what is fused into them or with quantised operands, recurrent layers, and the
nodes of attention that ONNX Runtime's optimiser writes (domain com.microsoft). A value between two ops of a node stays
inside it: it is marked internal, and causes no traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwcost.graph import Param, TensorSpec
from hwcost.tracing.onnx_nodes import NodeView, Operand, Part, axes_of, part, reads
from hwcost.tracing.onnx_readers import activated, sums, window

# -- convolutions and products -------------------------------------------------------------------------


@reads("Conv", "FusedConv", "NhwcFusedConv")
def _conv(node: NodeView) -> Sequence[Part]:
    """A convolution, with the addition and the activation that ONNX Runtime fused into it."""
    out, other = node.output(0), node.input(3)
    tail = [("self", other)] if other is not None else []
    active = bool(node.settings.get("activation"))
    made = out.like("conv") if out is not None and (tail or active) else out
    operands = list(zip(("input", "weight", "bias"), node.inputs, strict=False))
    found = [part(f"conv{axes_of(node)}d", operands, [made], window(node))]
    if tail and made is not None and out is not None:
        total = out.like("sum") if active else out
        found.append(part("add", [("self", made), ("other", other)], [total]))
        made = total
    return [*found, *activated(node, made)] if made is not None and active else found


@reads("ConvTranspose")
def _conv_transpose(node: NodeView) -> Sequence[Part]:
    operands = list(zip(("input", "weight", "bias"), node.inputs, strict=False))
    return [part(f"conv_transpose{axes_of(node)}d", operands, node.outputs, window(node))]


@reads("ConvInteger", "QLinearConv")
def _quantised_conv(node: NodeView) -> Sequence[Part]:
    """Of whole numbers; scales and zero points are read beside them."""
    whole = node.op_type == "ConvInteger"
    names = ("input", "weight") if whole else ("input", "", "", "weight", "", "", "", "", "bias")
    operands = [(name or "other", o) for name, o in zip((*names, "", ""), node.inputs, strict=False)]
    kind = f"conv{axes_of(node)}d" if whole else f"quantized.conv{axes_of(node)}d"
    return [part(kind, operands, node.outputs, window(node))]


@reads("QGemm")
def _quantised_gemm(node: NodeView) -> Sequence[Part]:
    names = ("input", "", "", "weight", "", "", "bias", "", "")
    operands = [(name or "other", o) for name, o in zip(names, node.inputs, strict=False)]
    return [part("quantized.linear", operands, node.outputs)]


@reads("MatMulNBits")
def _packed_product(node: NodeView) -> Sequence[Part]:
    """A product with weights of few bits, which are stored as bytes."""
    names = ("input", "weight", "scales", "zero_points", "group", "bias")
    return [part("_weight_int4pack_mm", list(zip(names, node.inputs, strict=False)), node.outputs)]


@reads("FusedMatMul", "TransposeMatMul")
def _turned_product(node: NodeView) -> Sequence[Part]:
    """A product of operands whose axes may be in another order: see `_turned`."""
    operands = [_turned(node, o, side) for side, o in zip("AB", node.inputs, strict=False)]
    return [part("matmul", list(zip(("self", "other"), operands, strict=True)), node.outputs)]


def _turned(node: NodeView, operand: Operand | None, side: str) -> Operand | None:
    """An operand of a product read as [*, rows, columns]: the last two axes may be stored swapped, and what is then the
    one before the last may be stored before all others."""
    if operand is None:
        return None
    if node.settings.get(f"transBatch{side}"):
        first, *others, last = operand.spec.shape
        operand = operand.shaped((*others, first, last))
    return _swapped(operand) if node.settings.get(f"trans{side}") else operand


def _swapped(operand: Operand) -> Operand:
    shape = operand.spec.shape
    return operand.shaped((*shape[:-2], shape[-1], shape[-2]))


# -- recurrent layers ----------------------------------------------------------------------------------


@reads("LSTM", "GRU", "RNN")
def _recurrent(node: NodeView) -> Sequence[Part]:
    """A layer whose weights are taken apart as torch has them: a matrix or vector for each direction.

    ONNX has X, W [d, g*H, I], R [d, g*H, H], B [d, 2*g*H], the lengths of the sequences, the initial states and the
    peepholes [d, 3*H], of d directions and g gates.
    """
    x = node.input(0)
    operands: list[tuple[str, Operand | None]] = [("input", x)]
    operands += [("hx", node.input(i)) for i in (5, 6)] + [("lengths", node.input(4))]
    weights = [w for w in (node.input(i) for i in (1, 2, 3)) if w is not None]
    for _ in range(weights[0].spec.shape[0] if weights else 0):
        for w in weights:
            own = TensorSpec("params", w.spec.shape[1:], w.spec.dtype, w.spec.weight)
            operands.append(("params", replace(w, spec=own)))
    kind = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[node.op_type]
    activations = node.settings.get("activations")
    if node.op_type == "RNN" and isinstance(activations, tuple) and set(activations) == {"Relu"}:
        kind = "rnn_relu"
    made = part(kind, operands, node.outputs, {"bidirectional": node.settings.get("direction") == "bidirectional"})
    # The directions are parts of one tensor, so that none of them repeats another.
    specs = tuple(replace(t, repeat=False) if t.name == "params" else t for t in made.spec.inputs)
    made = replace(made, spec=replace(made.spec, inputs=specs))
    peepholes = node.input(7)
    if peepholes is None or x is None:
        return [made]
    cells = x.spec.shape[0] * x.spec.shape[1] * peepholes.spec.numel  # three products and sums for each cell and step
    inner = x.like("peepholes", (2 * cells,))
    return [made, part("mul", [("self", peepholes)], [inner])]


# -- norms with an addition ----------------------------------------------------------------------------


@reads("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_norm(node: NodeView) -> Sequence[Part]:
    """The norm of a sum; the sum is written to memory where the node outputs it too."""
    simple = "Simplified" in node.op_type
    x, skip, weight = (node.input(i) for i in range(3))
    shift, bias = (None, node.input(3)) if simple else (node.input(3), node.input(4))
    if x is None:
        return []
    total = node.output(3) or x.like("sum")
    norm = part(
        "rms_norm" if simple else "layer_norm",
        [("input", total), ("weight", weight), ("bias", shift)],
        [node.output(0)],
    )
    return [*sums([x, skip, bias], total), norm]


@reads("EmbedLayerNormalization")
def _embed_norm(node: NodeView) -> Sequence[Part]:
    """The norm of the sum of embeddings: of words, of positions and, where there are segments, of these."""
    words, segments, *tables = (node.input(i) for i in range(5))
    weight, bias = node.input(5), node.input(6)
    out = node.output(0)
    if out is None:
        return []
    found, terms = list[Part](), list[Operand | None]()
    for i, (indices, table) in enumerate(zip((words, node.input(8), segments), tables, strict=True)):
        if table is not None and (indices is not None or i == 1):
            row = out.like(f"embedding{i}")
            found.append(part("embedding", [("weight", table), ("indices", indices)], [row]))
            terms.append(row)
    total = out.like("sum")
    norm = part("layer_norm", [("input", total), ("weight", weight), ("bias", bias)], [out])
    return [*found, *sums(terms, total), norm]


# -- attention -----------------------------------------------------------------------------------------


def _attend(q: Operand, k: Operand, v: Operand, mask: Operand | None, out: Operand, *others: Operand | None) -> Part:
    """Attention of q [b, h, L, d], k [b, h, S, d] and v [b, h, S, d]; `others` are caches that are read beside them."""
    shape = (*q.spec.shape[:-1], v.spec.shape[-1])
    operands = [("query", q), ("key", k), ("value", v), ("attn_mask", mask), *(("cache", o) for o in others)]
    return part("scaled_dot_product_attention", operands, [out.shaped(shape)])


def _by_heads(x: Operand, heads: int, length: int | None = None) -> Operand:
    """[b, S, h*d] read as [b, h, S, d]; with another length where a cache holds more keys."""
    if len(x.spec.shape) == 4:
        b, h, s, d = x.spec.shape
    else:
        b, s, wide = x.spec.shape
        h, d = heads, wide // max(heads, 1)
    return _longer(x, (b, h, s, d), length)


def _longer(x: Operand, shape: tuple[int, ...], length: int | None) -> Operand:
    """`x` with that shape and `length` keys; those beyond its own lie in a cache, which counts their bytes."""
    b, h, s, d = shape
    if length is None or length <= s:
        return x.shaped(shape)
    spec = replace(x.spec, shape=(b, h, length, d), overlapping=b * h * (length - s) * d)
    return replace(x, spec=spec)


def _number(value: Param) -> int:
    return value if isinstance(value, int) and value > 0 else 1


@reads("Attention")
def _attention(node: NodeView) -> Sequence[Part]:
    """Of the ONNX standard (q, k, v, mask, past keys, past values), or with the projection, of com.microsoft."""
    if node.domain == "com.microsoft":
        return _projected_attention(node)
    q, k, v, mask, past = (node.input(i) for i in range(5))
    out = node.output(0)
    if q is None or k is None or v is None or out is None:
        return []
    heads, kv_heads = (_number(node.settings.get(f"{name}_num_heads")) for name in ("q", "kv"))
    length = _by_heads(k, kv_heads).spec.shape[2] + (past.spec.shape[2] if past is not None else 0)
    keys, values = (_by_heads(t, kv_heads, length) for t in (k, v))
    return [_attend(_by_heads(q, heads), keys, values, mask, out, past, node.input(5))]


def _projected_attention(node: NodeView) -> Sequence[Part]:
    x, weight, bias, _, past, mask = (node.input(i) for i in range(6))
    out = node.output(0)
    if x is None or weight is None or out is None:
        return []
    batch, length, _ = x.spec.shape
    heads, width = _number(node.settings.get("num_heads")), out.spec.shape[-1]
    kept = past.spec.shape[3] if past is not None else 0
    projected = x.like("qkv", (batch, length, weight.spec.shape[-1]))
    turned = _swapped(weight)
    linear = part("linear", [("input", x), ("weight", turned), ("bias", bias)], [projected])
    key_width = (weight.spec.shape[-1] - width) // 2
    q, k = (x.like(name, (batch, heads, n, key_width // heads)) for name, n in (("q", length), ("k", length + kept)))
    v = x.like("v", (batch, heads, length + kept, width // heads))
    return [linear, _attend(q, k, v, mask, out, past)]


@reads("MultiHeadAttention")
def _multi_head_attention(node: NodeView) -> Sequence[Part]:
    q, k, v, bias, _, mask, past, past_value = (node.input(i) for i in range(8))
    out = node.output(0)
    if q is None or out is None:
        return []
    heads = _number(node.settings.get("num_heads"))
    before = list[Part]()
    if bias is not None:
        wide = sum(o.spec.numel for o in (q, k, v) if o is not None and len(o.spec.shape) == 3)
        before = [part("add", [("other", bias)], [q.like("biased", (wide or q.spec.numel,))])]
    if len(q.spec.shape) == 5:  # packed [b, S, h, 3, d]
        b, s, h, _, d = q.spec.shape
        inner = q.like("q", (b, h, s, d))
        return [*before, _attend(inner, inner, inner, mask, out, q)]
    if k is None:
        return [part("onnx.MultiHeadAttention", [("self", o) for o in node.inputs], node.outputs)]
    if v is None:  # k is packed [b, S, h, 2, d]
        b, s, h, _, d = k.spec.shape
        inner = k.like("v", (b, h, s, d))
        return [*before, _attend(_by_heads(q, heads), inner, inner, mask, out, k)]
    length = _by_heads(k, heads).spec.shape[2] + (past.spec.shape[2] if past is not None else 0)
    keys, values = (_by_heads(t, heads, length) for t in (k, v))
    return [*before, _attend(_by_heads(q, heads), keys, values, mask, out, past, past_value)]


@reads("GroupQueryAttention")
def _group_query_attention(node: NodeView) -> Sequence[Part]:
    """Keys and values fill a cache of fixed size; all of it is counted, as with a causal mask."""
    q, k, v, past, past_value = (node.input(i) for i in range(5))
    out, present = node.output(0), node.output(1)
    if q is None or k is None or v is None or out is None:
        return [part("onnx.GroupQueryAttention", [("self", o) for o in node.inputs], node.outputs)]
    heads, kv_heads = (_number(node.settings.get(name)) for name in ("num_heads", "kv_num_heads"))
    length = max(t.spec.shape[2] for t in (_by_heads(k, kv_heads), past, present) if t is not None)
    keys, values = (_by_heads(t, kv_heads, length) for t in (k, v))
    return [_attend(_by_heads(q, heads), keys, values, None, out, past, past_value)]
