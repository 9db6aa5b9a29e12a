"""Elementwise ops: flop per output element, from the definition of the function.

Additions, multiplications, divisions, comparisons and square roots count one each, and so does every function that a
mathematical library computes in one call (exp, log, erf, sin, lgamma). Two are the exception, since networks compute
them by a formula: the sigmoid 1 / (1 + exp(-x)) and tanh = (1 - e) / (1 + e) with e = exp(-2 x) count four each. All
this holds inside other functions too: SiLU, which is x times its sigmoid, counts five. It counts operations and does
not tell time: an exponential takes longer than an addition.

Of complex numbers, one flop is one of real numbers: see `_COMPLEX`.
"""

from __future__ import annotations

from collections.abc import Callable

from hwcost.graph import OpSpec
from hwcost.rules.arithmetic import is_complex, worked_on
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
        "hypot", "conj_physical", "angle", "subtract", "multiply", "divide", "negative",
        "absolute", "not_equal", "greater", "less", "greater_equal", "less_equal", "isin", "positive", "lgamma",
        "digamma", "erfinv", "erfc", "ldexp", "diff", "deg2rad", "rad2deg", "gcd", "i0", "special_i0", "special_erf",
        "onnx.Mod",
    ),
    2: ("leaky_relu", "hardtanh", "relu6", "clamp", "clamp_min", "clamp_max", "clip", "prelu", "_prelu_kernel", "rsqrt",
        "addcmul", "addcdiv", "hardshrink", "softshrink", "isclose", "xlogy", "copysign",
        "rrelu", "dequantize"),
    3: ("elu", "softplus", "lerp", "onnx.Softsign", "logit", "quantize_per_tensor", "quantize_per_channel",
        "quantize_per_tensor_dynamic"),
    4: ("sigmoid", "tanh", "hardsigmoid", "special_expit", "sinc", "celu", "selu", "logaddexp",
        "logaddexp2", "polar"),
    5: ("silu", "hardswish", "softmax", "_softmax", "log_softmax", "_log_softmax", "glu", "_safe_softmax",
        "special_softmax", "special_log_softmax", "_sparse_softmax", "_sparse_log_softmax", "log_sigmoid",
        "log_sigmoid_forward", "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"),
    8: ("mish",),  # x tanh(log(1 + exp(x)))
}  # fmt: skip
GELU = {"none": 5, "tanh": 12}  # x/2 (1 + erf(x/sqrt 2)); x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x x x)))


# Flop of complex operands, by kind. Others count twice what they count for real numbers: once for each part.
_COMPLEX = {
    "mul": 6, "multiply": 6, "square": 6,  # (a + b i)(c + d i): 4 products, 2 sums
    "div": 11, "divide": 11, "true_divide": 11,  # a product with the conjugate, |z|^2 (3), 2 divisions
    "addcmul": 8, "addcdiv": 13, "reciprocal": 5, "abs": 4, "absolute": 4,  # |z|^2, and 2 divisions or a square root
    "exp": 5, "log": 6, "pow": 17,  # e^a (cos b + i sin b); log |z| and the angle; exp(w log z)
    "sigmoid": 15, "tanh": 20, "conj_physical": 1, "angle": 1, "eq": 3, "ne": 3,
}  # fmt: skip
_WITH_REAL = {"mul": 2, "multiply": 2, "div": 2, "divide": 2, "true_divide": 2}  # the other operand is a real number
_SCALED = {"add": "alpha", "sub": "alpha", "rsub": "alpha", "addcmul": "value", "addcdiv": "value"}


def _each(op: OpSpec, flops: int) -> int:
    """Flop per output element: `flops`, one more for a factor that an operand is multiplied with, and if complex."""
    factor = op.param(_SCALED[op.kind], 1) != 1 if op.kind in _SCALED else False
    operands = sum(map(is_complex, op.inputs))
    if not operands:
        return 0 if op.kind == "conj_physical" else flops + factor  # a real number is its own conjugate
    if operands == 1 and op.kind in _WITH_REAL and not isinstance(op.param("other"), str):  # a complex number's text
        return _WITH_REAL[op.kind]
    return _COMPLEX.get(op.kind, 2 * flops) + 2 * factor


# [*] = relu([*])        [*] = add([*], [*])
def _pointwise(flops: int) -> Callable[[OpSpec], Work]:
    """The rule of an op that takes `flops` flop for each output element."""

    def work(op: OpSpec) -> Work:
        return Work(other_flops=_each(op, flops) * worked_on(op.outputs[0]))

    return work


for _count, _kinds in _FLOPS.items():
    rule(*_kinds)(_pointwise(_count))


# [*] = gelu([*], approximate="none")
@rule("gelu")
def gelu(op: OpSpec) -> Work:
    """By the error function, or by its approximation with a hyperbolic tangent."""
    return Work(other_flops=GELU[str(op.param("approximate", "none"))] * op.outputs[0].numel)


# [*] = dropout([*], p, train)
@rule("dropout", "feature_dropout", "alpha_dropout", "native_dropout", "feature_alpha_dropout")
def dropout(op: OpSpec) -> Work:
    """Nothing in inference or with p = 0; a comparison and a multiplication per element in training."""
    drops = op.param("train") and op.param("p", 0.5) != 0
    return Work(other_flops=2 * op.outputs[0].numel if drops else 0)


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
