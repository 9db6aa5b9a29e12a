"""Elementwise ops: flop per output element, from the definition of the function.

A division, a square root, an exponential, a logarithm, an error function, a comparison count one
each. That is arithmetic, not time: transcendental functions are slower than their flops say.
"""

from __future__ import annotations

from collections.abc import Callable

from hwcost.graph import OpSpec
from hwcost.rules import Work, rule

_FLOPS: dict[int, tuple[str, ...]] = {
    1: (
        "add", "sub", "rsub", "mul", "div", "true_divide", "floor_divide", "remainder", "fmod", "neg", "abs", "relu",
        "threshold", "exp", "exp2", "expm1", "log", "log2", "log1p", "log10", "sqrt", "square", "reciprocal", "erf",
        "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "floor", "ceil", "round", "trunc", "frac",
        "sign", "sgn", "maximum", "minimum", "fmax", "fmin", "pow", "float_power", "eq", "ne", "lt", "le", "gt", "ge",
        "where", "logical_and", "logical_or", "logical_not", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_not",
        "bitwise_xor", "isnan", "isinf", "isfinite", "masked_fill", "nan_to_num", "heaviside", "hypot", "polar",
        "complex", "conj_physical", "angle", "subtract", "multiply", "divide", "negative", "absolute", "not_equal",
        "greater", "less", "greater_equal", "less_equal", "__and__", "__or__", "__lshift__", "__rshift__", "bitwise_left_shift",
        "bitwise_right_shift", "isin", "positive", "lgamma", "digamma", "erfinv", "erfc",
    ),
    2: ("leaky_relu", "hardtanh", "relu6", "clamp", "clamp_min", "clamp_max", "clip", "prelu", "_prelu_kernel", "rsqrt",
        "addcmul", "addcdiv", "hardshrink", "softshrink", "isclose", "squared_relu"),
    3: ("elu", "celu", "selu", "softplus", "lerp", "softsign", "log_sigmoid", "logit", "quantize_per_tensor", "fake_quantize_per_tensor_affine"),
    4: ("sigmoid", "tanh", "hardsigmoid", "logsigmoid", "dequantize"),
    5: ("silu", "swish", "hardswish", "softmax", "_softmax", "log_softmax", "_log_softmax", "softmin", "glu", "mish"),
}  # fmt: skip
_GELU = {"none": 5, "tanh": 10}  # x/2 (1 + erf(x/sqrt 2)); the tanh form adds a cubic and its tanh


def _pointwise(flops: int) -> Callable[[OpSpec], Work]:
    def work(op: OpSpec) -> Work:
        return Work(other_flops=flops * op.outputs[0].numel)

    return work


for _count, _kinds in _FLOPS.items():
    rule(*_kinds)(_pointwise(_count))


# [*] = gelu([*], approximate="none")
@rule("gelu")
def gelu(op: OpSpec) -> Work:
    """Exact by the error function, or by tanh."""
    return Work(other_flops=_GELU[str(op.param("approximate", "none"))] * op.outputs[0].numel)
