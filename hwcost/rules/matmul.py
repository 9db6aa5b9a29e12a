"""Matrix products. [m, n] = [m, k] @ [k, n] takes m * k * n macs."""

from __future__ import annotations

import math
import string

from hwcost.graph import OpSpec, TensorSpec
from hwcost.rules.registry import Work, rule


# [*, n] = linear([*, k], [n, k], [n]?)
@rule(
    "linear", "quantized.linear", "quantized.linear_relu", "quantized.linear_dynamic", "quantized.linear_relu_dynamic",
    "quantized.linear_dynamic_fp16", "quantized.linear_relu_dynamic_fp16", "quantized.linear_leaky_relu",
    "quantized.linear_tanh", "mkldnn_linear",
)  # fmt: skip
def linear(op: OpSpec) -> Work:
    """A fully connected layer; the bias is one addition per output."""
    out = op.outputs[0].numel
    return Work(macs=out * op.inputs[0].shape[-1], other_flops=out if op.input("bias") else 0)


# [m, n] = mm([m, k], [k, n])        [b, m, n] = bmm([b, m, k], [b, k, n])
# [*, m, n] = matmul([*, m, k], [*, k, n])        [m] = mv([m, k], [k])        [] = dot([k], [k])
@rule("mm", "bmm", "matmul", "mv", "dot", "vdot", "inner", "__matmul__", "linalg_matmul", "_int_mm", "linalg_vecdot",
      "quantized.matmul")  # fmt: skip
def product(op: OpSpec) -> Work:
    """Every output element is a dot product over the last axis of the first operand."""
    return Work(macs=op.outputs[0].numel * (op.inputs[0].shape or (1,))[-1])


# [m, n] = _grouped_mm([m, k], [g, k, n], offsets [g])        each row meets the matrix of its group
@rule("_grouped_mm")
def grouped(op: OpSpec) -> Work:
    """Each row of the first operand is multiplied with the matrix of its group."""
    return Work(macs=op.outputs[0].numel * op.inputs[0].shape[-1])


# [n, m] = outer([n], [m])
@rule("outer", "ger")
def outer(op: OpSpec) -> Work:
    """One multiplication per output element, counted as a mac."""
    return Work(macs=op.outputs[0].numel)


# [n, p] = addmm([n, p], [n, m], [m, p])        [b, n, p] = baddbmm([b, n, p], [b, n, m], [b, m, p])
@rule("addmm", "baddbmm", "addmv", "_addmm_activation")
def add_product(op: OpSpec) -> Work:
    """A product, and one addition per output element for the tensor that it is added to."""
    out = op.outputs[0].numel
    return Work(macs=out * op.inputs[1].shape[-1], other_flops=out)


# [n, p] = addbmm([n, p], [b, n, m], [b, m, p])        summed over the batch
@rule("addbmm")
def add_batch_product(op: OpSpec) -> Work:
    """A product for each element of the batch, whose sum is added to a tensor."""
    batch, n, m = op.inputs[1].shape
    p = op.inputs[2].shape[2]
    return Work(macs=batch * n * m * p, other_flops=n * p)


# [b, h, i, j] = einsum("bhid,bhjd->bhij", [[b, h, i, d], [b, h, j, d]])
@rule("einsum")
def einsum(op: OpSpec) -> Work:
    """Operands are contracted from left to right, as torch does without opt_einsum.

    A step contracts the result so far with the next operand. It takes as many macs as the product of the sizes of all
    indices of the two. Indices that neither later operands nor the result have are summed over.
    """
    sizes, operands, result = _einsum_indices(str(op.param("equation")), op.inputs)
    left, macs, other = operands[0], 0, 0
    for i, right in enumerate(operands[1:], start=1):
        needed = set(result).union(*operands[i + 1 :])
        seen = set(left) | set(right)
        macs += math.prod(sizes[c] for c in seen)
        left = "".join(sorted(seen & needed))
    if len(operands) == 1 and set(left) != set(result):
        other = math.prod(sizes[c] for c in set(left))
    return Work(macs=macs, other_flops=other)


def _einsum_indices(equation: str, inputs: tuple[TensorSpec, ...]) -> tuple[dict[str, int], list[str], str]:
    """Sizes by index letter, the letters of each operand, the letters of the result."""
    left, _, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [c for c in string.ascii_letters if c not in equation]
    ndims = [len(t.shape) - len(term.replace("...", "")) for term, t in zip(terms, inputs, strict=True)]
    dots = "".join(free[: max(ndims)])
    terms = [term.replace("...", dots[len(dots) - n :]) for term, n in zip(terms, ndims, strict=True)]
    if "->" in equation:
        result = result.replace("...", dots)
    else:
        joined = "".join(terms)
        result = "".join(sorted(c for c in set(joined) if joined.count(c) == 1 or c in dots))
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, inputs, strict=True):
        for letter, size in zip(term, tensor.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return sizes, terms, result


# [n, m] = tensordot([n, *k], [*k, m], dims_self, dims_other)
@rule("tensordot")
def tensordot(op: OpSpec) -> Work:
    """Every output element is a dot product over the axes that are contracted."""
    dims = op.param("dims_self", ())
    contracted = math.prod(op.inputs[0].shape[d] for d in dims if isinstance(d, int)) if isinstance(dims, tuple) else 1
    return Work(macs=op.outputs[0].numel * contracted)


# [*, n*p, m*q] = kron([*, n, m], [*, p, q])
@rule("kron")
def kron(op: OpSpec) -> Work:
    """One multiplication per output element, counted as a mac."""
    return Work(macs=op.outputs[0].numel)


# [*, p, r] = cdist([*, p, m], [*, r, m])
@rule("cdist", "_cdist_forward", "_euclidean_dist")
def cdist(op: OpSpec) -> Work:
    """A subtraction, a square and an addition for each coordinate of each pair."""
    return Work(other_flops=3 * op.outputs[0].numel * op.inputs[0].shape[-1])


# [m, n] = Gemm([m, k] or [k, m], [k, n] or [n, k], bias?)        of ONNX, where transA and transB transpose operands
@rule("onnx.Gemm")
def gemm(op: OpSpec) -> Work:
    """A product, and one addition per output for the bias."""
    out = op.outputs[0].numel
    depth = op.inputs[0].shape[0 if op.param("transA") else -1]
    return Work(macs=out * depth, other_flops=out if len(op.inputs) > 2 else 0)


# [b, o] = bilinear([b, i], [b, j], [o, i, j], [o]?)
@rule("bilinear")
def bilinear(op: OpSpec) -> Work:
    """x1 A x2 with a matrix A for each output feature: b * o * i * j macs."""
    weight = op.inputs[2]
    batch = math.prod(op.inputs[0].shape[:-1])
    return Work(macs=batch * weight.numel, other_flops=op.outputs[0].numel if len(op.inputs) > 3 else 0)
