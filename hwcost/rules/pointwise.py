"""Elementwise ops: flop per output element, from the definition of the function.

Additions, multiplications, divisions, comparisons, square roots, exponentials, logarithms and error functions count
one each, and so do functions that a mathematical library computes as one (sin, lgamma). This counts operations and
does not tell time: an exponential takes longer than an addition.
"""

from __future__ import annotations

from collections.abc import Callable

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule

_FLOPS: dict[int, tuple[str, ...]] = {  # flop per output element: kinds
    1: (
        "add", "sub", "rsub", "mul", "div", "true_divide", "floor_divide", "remainder", "fmod", "neg", "abs", "relu",
        "threshold", "exp", "exp2", "expm1", "log", "log2", "log1p", "log10", "sqrt", "square", "reciprocal", "erf",
        "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "arctan2", "sinh", "cosh", "asinh", "acosh", "atanh",
        "floor", "ceil", "round", "trunc", "fix", "frac", "sign", "sgn", "maximum", "minimum", "fmax", "fmin", "pow",
        "float_power", "eq", "ne", "lt", "le", "gt", "ge", "where", "logical_and", "logical_or", "logical_not",
        "logical_xor", "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor", "bitwise_left_shift",
        "bitwise_right_shift", "__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "__iand__", "__ior__",
        "isnan", "isinf", "isfinite", "isneginf", "isposinf", "signbit", "masked_fill", "nan_to_num", "heaviside",
        "hypot", "polar", "complex", "conj_physical", "angle", "subtract", "multiply", "divide", "negative",
        "absolute", "not_equal", "greater", "less", "greater_equal", "less_equal", "isin", "positive", "lgamma",
        "digamma", "erfinv", "erfc", "ldexp", "diff", "deg2rad", "rad2deg", "gcd", "i0", "special_i0", "special_erf",
        "onnx.Mod",
    ),
    2: ("leaky_relu", "hardtanh", "relu6", "clamp", "clamp_min", "clamp_max", "clip", "prelu", "_prelu_kernel", "rsqrt",
        "addcmul", "addcdiv", "hardshrink", "softshrink", "isclose", "squared_relu", "xlogy", "logaddexp", "copysign",
        "rrelu", "quantize_per_channel"),
    3: ("elu", "celu", "selu", "softplus", "lerp", "softsign", "log_sigmoid", "logit", "quantize_per_tensor",
        "quantize_per_tensor_dynamic", "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"),
    4: ("sigmoid", "tanh", "hardsigmoid", "logsigmoid", "dequantize", "special_expit", "sinc"),
    5: ("silu", "swish", "hardswish", "softmax", "_softmax", "log_softmax", "_log_softmax", "softmin", "glu", "mish",
        "_safe_softmax", "special_softmax", "special_log_softmax"),
}  # fmt: skip
_GELU = {"none": 5, "tanh": 10}  # x/2 (1 + erf(x/sqrt 2)); x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))


# [*] = relu([*])        [*] = add([*], [*])
def _pointwise(flops: int) -> Callable[[OpSpec], Work]:
    """The rule of an op that takes `flops` flop for each output element."""

    def work(op: OpSpec) -> Work:
        return Work(other_flops=flops * op.outputs[0].numel)

    return work


for _count, _kinds in _FLOPS.items():
    rule(*_kinds)(_pointwise(_count))


# [*] = gelu([*], approximate="none")
@rule("gelu")
def gelu(op: OpSpec) -> Work:
    """By the error function, or by its approximation with a hyperbolic tangent."""
    return Work(other_flops=_GELU[str(op.param("approximate", "none"))] * op.outputs[0].numel)


# [*] = dropout([*], p, train)
@rule("dropout", "feature_dropout", "alpha_dropout", "native_dropout", "feature_alpha_dropout")
def dropout(op: OpSpec) -> Work:
    """Nothing in inference; a comparison and a multiplication per element in training."""
    return Work(other_flops=2 * op.outputs[0].numel if op.param("train") else 0)


# [*] = quantized.add_relu([*], [*], scale, zero_point)
@rule(
    "quantized.add", "quantized.add_relu", "quantized.mul", "quantized.mul_relu", "quantized.cat",
    "quantized.hardswish", "quantized.sigmoid", "quantized.add_scalar", "quantized.mul_scalar", "quantized.leaky_relu",
    "quantized.elu", "quantized.batch_norm2d", "quantized.cat_relu", "quantized.softmax",
    "quantized.prelu", "quantized.relu6", "quantized.celu", "quantized.clamp", "quantized.threshold",
    "quantized.batch_norm", "quantized.batch_norm1d", "quantized.batch_norm3d", "quantized.batch_norm_relu",
    "quantized.batch_norm1d_relu", "quantized.batch_norm2d_relu", "quantized.batch_norm3d_relu",
    "quantized.add_scalar_relu", "quantized.mul_scalar_relu",
)  # fmt: skip
def quantised(op: OpSpec) -> Work:
    """One flop per element to dequantise, one for the op, and one to quantise."""
    return Work(other_flops=3 * op.outputs[0].numel)
