"""Normalisations. Flop per element, from the definition y = (x - mean) / sqrt(var + eps) * w + b.

Batch norm in inference multiplies by one number per channel and adds another: 2. A norm that computes its statistics
takes 1 for the mean (an addition), 3 for the variance (subtract, square, add), 2 to apply them (subtract, divide)
and 2 for weight and bias: 8 in all, 6 without weight and bias.
"""

from __future__ import annotations

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule

_STATISTICS, _APPLY, _AFFINE = 4, 2, 2


# [b, c, *] = batch_norm([b, c, *], [c]?, [c]?, [c]?, [c]?, training, momentum, eps)
@rule(
    "batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training", "_batch_norm_no_update", "instance_norm",
)  # fmt: skip
def batch_norm(op: OpSpec) -> Work:
    """A scale and a shift for each channel; in training, the statistics of the batch as well."""
    computes = bool(op.param("training") or op.param("use_input_stats"))
    return Work(other_flops=op.inputs[0].numel * (_APPLY + (_STATISTICS + _AFFINE) * computes))


# [*, n] = layer_norm([*, n], normalized_shape, [n]?, [n]?)        group_norm([b, c, *], groups, [c]?, [c]?)
@rule("layer_norm", "native_layer_norm", "group_norm", "native_group_norm")
def layer_norm(op: OpSpec) -> Work:
    """Statistics are computed in inference too."""
    affine = _AFFINE if op.input("weight") else 0
    return Work(other_flops=op.inputs[0].numel * (_STATISTICS + _APPLY + affine))


# [*, n] = quantized.layer_norm([*, n], normalized_shape, [n]?, [n]?, scale, zero_point)
@rule("quantized.layer_norm", "quantized.group_norm", "quantized.instance_norm")
def quantised_norm(op: OpSpec) -> Work:
    """A norm of floats, and one flop per element each to dequantise and to quantise."""
    return Work(other_flops=layer_norm(op).other_flops + 2 * op.inputs[0].numel)


# [*, n] = rms_norm([*, n], normalized_shape, [n]?)
@rule("rms_norm", "_fused_rms_norm")
def rms_norm(op: OpSpec) -> Work:
    """Square, add and scale; one more for the weight. No mean is subtracted."""
    return Work(other_flops=op.inputs[0].numel * (3 + (op.input("weight") is not None)))


# [*] = linalg_vector_norm([*, n], ord, dim)        [*] = cosine_similarity([*, n], [*, n], dim)
@rule("norm", "linalg_vector_norm", "onnx.ReduceL2", "linalg_norm", "cosine_similarity", "pairwise_distance")
def norm(op: OpSpec) -> Work:
    """A square and an addition for each element read."""
    return Work(other_flops=2 * sum(t.numel for t in op.inputs))


# [o, *] = _weight_norm(v [o, *], g [o, 1...], dim)        v * g / |v|
@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(op: OpSpec) -> Work:
    """A square and an addition for the norm, and a multiplication to scale, for each element."""
    return Work(other_flops=3 * op.inputs[0].numel)
