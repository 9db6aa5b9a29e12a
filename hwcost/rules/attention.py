"""Fused attention: softmax(q k^T / sqrt(d) + mask) v.

For b sequences of L queries and S keys in h heads, of size d (values: d_v), macs = b * h * L * S * (d + d_v). Each of
the b * h * L * S scores takes 5 flop for the softmax, one for the scale, and one more where a mask is added. Under a
causal mask all scores are counted, as torch's reference implementation computes them; a kernel may skip half of them.
"""

from __future__ import annotations

import math

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule

SOFTMAX_FLOPS = 5  # per score: maximum, subtract, exponential, sum, divide


# [b, h, L, d_v] = scaled_dot_product_attention([b, h, L, d], [b, h_kv, S, d], [b, h_kv, S, d_v], mask?)
@rule(
    "scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_cudnn_attention",
)  # fmt: skip
def scaled_dot_product_attention(op: OpSpec) -> Work:
    """With fewer heads of keys than of queries, several query heads read the same keys; each does its full work."""
    query, key, value = op.inputs[:3]
    scores = math.prod(query.shape[:-1]) * key.shape[-2]
    extra = 1 + (op.input("attn_mask") is not None)
    return Work(macs=scores * (query.shape[-1] + value.shape[-1]), other_flops=scores * (SOFTMAX_FLOPS + extra))


# [b, L, e] = _native_multi_head_attention([b, L, e], key, value, embed_dim, num_head, qkv_weight, qkv_bias,
#                                          proj_weight, proj_bias, mask?)
@rule("_native_multi_head_attention")
def native_multi_head_attention(op: OpSpec) -> Work:
    """nn.MultiheadAttention as one op: three projections, attention, and the output projection."""
    query = op.input("query") or op.inputs[0]
    key = op.input("key") or query
    return _multi_head(query.shape, key.shape, heads(op, "num_head"))


def heads(op: OpSpec, name: str) -> int:
    """The number of heads, a parameter of the op."""
    value = op.param(name, 1)
    return value if isinstance(value, int) else 1


def _multi_head(query: tuple[int, ...], key: tuple[int, ...], n_heads: int) -> Work:
    """Attention with its four projections, from the shapes [b, L, e] of the query and [b, S, e] of the key."""
    batch, length, width = query
    source = key[1]
    projections = batch * width * width * (2 * length + 2 * source)
    scores = batch * n_heads * length * source
    bias = batch * width * (2 * length + 2 * source)
    return Work(macs=projections + 2 * scores * (width // n_heads), other_flops=bias + scores * (SOFTMAX_FLOPS + 1))


# [b, L, e] = _transformer_encoder_layer_fwd([b, L, e], embed_dim, num_heads, ..., ffn_weight_1, ...)
@rule("_transformer_encoder_layer_fwd")
def transformer_encoder_layer(op: OpSpec) -> Work:
    """nn.TransformerEncoderLayer as one op: attention, two layer norms (8 flop per element), two linear layers.

    The bias of the two linear layers and the activation between them take one flop per element each, as do the two
    residual additions.
    """
    src = op.inputs[0].shape
    attention = _multi_head(src, src, heads(op, "num_heads"))
    first = op.input("ffn_weight_1") or op.inputs[-4]
    tokens, width, hidden = src[0] * src[1], src[2], first.shape[0]
    bias_and_activation = tokens * (2 * hidden + width)
    norms_and_residuals = 2 * tokens * width * (8 + 1)
    return Work(
        macs=attention.macs + 2 * tokens * width * hidden,
        other_flops=attention.other_flops + bias_and_activation + norms_and_residuals,
    )
