"""Normalisations. Flop per element, from the definition y = (x - mean) / sqrt(var + eps) * w + b.

An inference-mode batch norm is a scale and a shift: 2. A norm that computes its statistics adds a
sum (1) for the mean and subtract, square, sum (3) for the variance; subtract and scale take 2 and
the affine part 2: 8 in all, 6 without the affine part.
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
    """Scale and shift per channel; with batch statistics where it trains."""
    computes = bool(op.param("training") or op.param("use_input_stats"))
    return Work(other_flops=op.inputs[0].numel * (_APPLY + (_STATISTICS + _AFFINE) * computes))


# [*, n] = layer_norm([*, n], normalized_shape, [n]?, [n]?)        group_norm([b, c, *], groups, [c]?, [c]?)
@rule("layer_norm", "native_layer_norm", "group_norm", "native_group_norm")
def layer_norm(op: OpSpec) -> Work:
    """Statistics are always computed."""
    affine = _AFFINE if op.input("weight") else 0
    return Work(other_flops=op.inputs[0].numel * (_STATISTICS + _APPLY + affine))


# [*, n] = quantized.layer_norm([*, n], normalized_shape, [n]?, [n]?, scale, zero_point)
@rule("quantized.layer_norm", "quantized.group_norm", "quantized.instance_norm")
def quantised_norm(op: OpSpec) -> Work:
    """As in floats, and one flop per element to leave the integers, one to return."""
    return Work(other_flops=layer_norm(op).other_flops + 2 * op.inputs[0].numel)


# [*, n] = rms_norm([*, n], normalized_shape, [n]?)        square, sum, scale, and the weight
@rule("rms_norm", "_fused_rms_norm")
def rms_norm(op: OpSpec) -> Work:
    """No mean is taken: square, sum, scale, and one more for the weight."""
    return Work(other_flops=op.inputs[0].numel * (3 + (op.input("weight") is not None)))


# local_response_norm and vector norms: square, sum
@rule("norm", "linalg_vector_norm", "onnx.ReduceL2", "linalg_norm", "cosine_similarity", "pairwise_distance")
def norm(op: OpSpec) -> Work:
    """Square and add each element read."""
    return Work(other_flops=2 * sum(t.numel for t in op.inputs))


# [o, *] = _weight_norm([o, *], [o, 1...], dim)        v * g / |v|
@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(op: OpSpec) -> Work:
    """Square and add for the norm, then one scale."""
    return Work(other_flops=3 * op.inputs[0].numel)
