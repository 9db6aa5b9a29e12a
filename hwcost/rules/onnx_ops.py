"""Ops that ONNX has and torch has not."""

from __future__ import annotations

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule


# [*] = Sum([*], [*], [*], ...)        elementwise, of more than two operands
@rule("onnx.Sum", "onnx.Max", "onnx.Min", "onnx.Mean")
def of_many(op: OpSpec) -> Work:
    """One flop for each operand but the first, and for a mean one division more."""
    each = len(op.inputs) - (op.kind != "onnx.Mean")
    return Work(other_flops=each * op.outputs[0].numel)


# [b, c, *] = LRN([b, c, *], size)
@rule("onnx.LRN")
def local_response_norm(op: OpSpec) -> Work:
    """x / (k + a * sum)^b: a square, `size` - 1 additions, a product, a sum, a power and a division per element."""
    size = op.param("size", 1)
    return Work(other_flops=op.outputs[0].numel * ((size if isinstance(size, int) else 1) + 4))


# [*] = LpNormalization([*], axis)
@rule("onnx.LpNormalization")
def lp_normalization(op: OpSpec) -> Work:
    """A square and an addition for the norm, and a division, per element."""
    return Work(other_flops=3 * op.outputs[0].numel)


# [b, s, h*d] = RotaryEmbedding([b, s, h*d], positions, cosines, sines)
@rule("onnx.RotaryEmbedding")
def rotary_embedding(op: OpSpec) -> Work:
    """Two products and a sum per element."""
    return Work(other_flops=3 * op.outputs[0].numel)
