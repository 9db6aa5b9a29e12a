"""Matrix products. [m, n] = [m, k] @ [k, n] takes m * k * n macs, of real numbers (see `arithmetic`).

A factor other than 1 that a result is multiplied with (alpha, beta) takes one flop per element, as an addition does.
"""

from __future__ import annotations

import math

from hwcost.graph import OpSpec, TensorSpec
from hwcost.rules.arithmetic import parts, real_macs
from hwcost.rules.registry import Work, rule


# [*, n] = linear([*, k], [n, k], [n]?)
@rule(
    "linear", "quantized.linear", "quantized.linear_relu", "quantized.linear_dynamic", "quantized.linear_relu_dynamic",
    "quantized.linear_dynamic_fp16", "quantized.linear_relu_dynamic_fp16", "quantized.linear_leaky_relu",
    "quantized.linear_tanh", "mkldnn_linear", "_sparse_semi_structured_linear",
)  # fmt: skip
def linear(op: OpSpec) -> Work:
    """A fully connected layer; the bias is one addition per output.

    A semi-structured sparse weight [n, k/2] holds half of its elements, and only those are multiplied.
    """
    out, first = op.outputs[0], op.inputs[0]
    weight = op.input("weight")
    depth = weight.shape[-1] if weight and op.kind == "_sparse_semi_structured_linear" else first.shape[-1]
    bias = out.numel * parts(out) if op.input("bias") else 0
    return Work(macs=real_macs(out.numel * depth, first, *([weight] if weight else [])), other_flops=bias)


# [m, n] = mm([m, k], [k, n])        [b, m, n] = bmm([b, m, k], [b, k, n])
# [*, m, n] = matmul([*, m, k], [*, k, n])        [m] = mv([m, k], [k])        [] = dot([k], [k])
@rule("mm", "bmm", "matmul", "mv", "dot", "vdot", "inner", "linalg_matmul", "_int_mm", "quantized.matmul", "_sparse_mm",
      "smm", "hspmm", "_sparse_sparse_matmul")  # fmt: skip
def product(op: OpSpec) -> Work:
    """Every output element is a dot product over the last axis of the first operand."""
    first = op.inputs[0]
    return Work(macs=real_macs(op.outputs[0].numel * (first.shape or (1,))[-1], *_operands(op)))


def _operands(op: OpSpec) -> tuple[TensorSpec, TensorSpec]:
    """Both operands of a product, without the indices of sparse ones."""
    first, second, *_ = [t for t in op.inputs if not t.name.endswith(".indices")]
    return first, second


# [*] = linalg_vecdot([*, k], [*, k], dim)
@rule("linalg_vecdot")
def vector_product(op: OpSpec) -> Work:
    """Every output element is a dot product over one axis, the last one unless `dim` says otherwise."""
    dim = op.param("dim", -1)
    depth = max(t.shape[dim if isinstance(dim, int) else -1] for t in op.inputs[:2])
    return Work(macs=real_macs(op.outputs[0].numel * depth, *_operands(op)))


# [m, n] = _int4pack([m, k], packed [n, k/2])        of weights that are packed to 4 or 8 bits, with their scales
@rule(
    "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu", "_weight_int4pack_mm_with_scales_and_zeros",
    "_weight_int8pack_mm", "_mixed_dtypes_linear", "_dyn_quant_matmul_4bit", "_scaled_mm", "_scaled_mm_v2",
    "_wrapped_quantized_linear_prepacked",
)  # fmt: skip
def packed_product(op: OpSpec) -> Work:
    """A product with one more flop per output for its scale, and one for a bias. Unpacking is not counted."""
    out = op.outputs[0].numel
    return Work(macs=out * op.inputs[0].shape[-1], other_flops=out * (2 if op.input("bias") else 1))


# [m, n] = _grouped_mm([m, k], [g, k, n], offsets [g])        each row meets the matrix of its group
@rule("_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2")
def grouped(op: OpSpec) -> Work:
    """Products of groups, as of the tokens that each expert of a mixture got.

    An operand with two axes is the groups one after the other, along the axis that the result or the sum runs over.
    Rows or columns that are fewer than the groups reach at most as many of the matrices.
    """
    a, b = op.inputs[0], op.input("mat2") or op.inputs[1]
    out = op.outputs[0].numel
    touched = {}
    if len(a.shape) == len(b.shape) == 2:  # [g, m, n] = [m, k] @ [k, n], k split into groups
        macs = a.shape[0] * a.shape[1] * b.shape[1]
    else:
        macs = out * a.shape[-1]
        for stacked, rows in ((b, a.shape[0]), (a, b.shape[-1])):
            if len(stacked.shape) == 3 and len((a if stacked is b else b).shape) == 2:
                touched[stacked.name] = min(stacked.shape[0], rows) * math.prod(stacked.shape[1:])
    scaled = out if "scaled" in op.kind else 0
    return Work(macs=macs, other_flops=scaled + (out if op.input("bias") else 0), touched=touched)


# [n, m] = outer([n], [m])
@rule("outer", "ger")
def outer(op: OpSpec) -> Work:
    """One multiplication per output element, counted as a mac."""
    return Work(macs=real_macs(op.outputs[0].numel, *op.inputs))


# [n, m] = addr([n, m], [n], [m])
@rule("addr")
def add_outer(op: OpSpec) -> Work:
    """An outer product that is added to a matrix."""
    return Work(macs=real_macs(op.outputs[0].numel, *op.inputs[1:]), other_flops=_added(op, op.outputs[0]))


# [n, p] = addmm([n, p], [n, m], [m, p])        [b, n, p] = baddbmm([b, n, p], [b, n, m], [b, m, p])
@rule("addmm", "baddbmm", "addmv", "_addmm_activation", "_sparse_addmm", "sspaddmm", "sparse_sampled_addmm")
def add_product(op: OpSpec) -> Work:
    """A product, and one addition per output element for the tensor that it is added to.

    Of a sampled product only the elements that the sparse result stores are computed.
    """
    names = ("mat1", "mat2", "batch1", "batch2", "mat", "vec")
    left, right = [t for t in op.inputs if t.name in names][:2] or op.inputs[1:3]
    out = op.outputs[0]
    size = out.elements if op.kind == "sparse_sampled_addmm" else out.numel
    return Work(macs=real_macs(size * left.shape[-1], left, right), other_flops=_added(op, out))


def _added(op: OpSpec, out: TensorSpec) -> int:
    """Flop to add a product to a tensor of the form of `out`, and to multiply either with a factor."""
    factors = sum(op.param(name, 1) != 1 for name in ("alpha", "beta"))
    return out.elements * parts(out) * (1 + factors)


# [n, p] = addbmm([n, p], [b, n, m], [b, m, p])        summed over the batch
@rule("addbmm")
def add_batch_product(op: OpSpec) -> Work:
    """A product for each element of the batch, whose sum is added to a tensor."""
    batch, n, m = op.inputs[1].shape
    p = op.inputs[2].shape[2]
    return Work(macs=real_macs(batch * n * m * p, *op.inputs[1:3]), other_flops=_added(op, op.outputs[0]))


# [n, q] = linalg_multi_dot([[n, m], [m, p], [p, q], ...])
@rule("linalg_multi_dot", "chain_matmul")
def chain(op: OpSpec) -> Work:
    """A chain of products in the order that takes the fewest macs, which torch chooses too."""
    operands = op.inputs
    first, last = operands[0].shape, operands[-1].shape
    sizes = [first[0] if len(first) == 2 else 1, *(t.shape[0] for t in operands[1:]), last[1] if len(last) == 2 else 1]
    least: dict[tuple[int, int], int] = {(i, i): 0 for i in range(len(sizes))}
    for width in range(1, len(operands)):
        for i in range(len(operands) - width):
            j = i + width
            least[i, j] = min(
                least[i, k] + least[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)
            )
    return Work(macs=real_macs(least[0, len(operands) - 1], *operands[:2]))


# [*, 3] = linalg_cross([*, 3], [*, 3])
@rule("cross", "linalg_cross")
def cross(op: OpSpec) -> Work:
    """Two multiplications and a subtraction per output element."""
    return Work(other_flops=3 * op.outputs[0].numel)


# [n, m] = tensordot([n, *k], [*k, m], dims_self, dims_other)
@rule("tensordot")
def tensordot(op: OpSpec) -> Work:
    """Every output element is a dot product over the axes that are contracted."""
    dims = op.param("dims_self", ())
    contracted = math.prod(op.inputs[0].shape[d] for d in dims if isinstance(d, int)) if isinstance(dims, tuple) else 1
    return Work(macs=real_macs(op.outputs[0].numel * contracted, *op.inputs))


# [*, n*p, m*q] = kron([*, n, m], [*, p, q])
@rule("kron")
def kron(op: OpSpec) -> Work:
    """One multiplication per output element, counted as a mac."""
    return Work(macs=real_macs(op.outputs[0].numel, *op.inputs))


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
    out = op.outputs[0]
    bias = out.numel * parts(out) if len(op.inputs) > 3 else 0
    return Work(macs=real_macs(batch * weight.numel, out), other_flops=bias)
