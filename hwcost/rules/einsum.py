"""Einstein sums, contracted step by step as torch does it (`einsum` and `sumproduct_pair` in ATen/native/Linear.cpp).

A step takes two operands: those that `path` names, where torch asked opt_einsum for one (it does if that is installed
and there are more than two operands), else the result so far and the next operand. In each step

1. an index that one operand alone has, and neither the result nor any other operand, is summed over first:
   one addition for each element of that operand;
2. the rest is one product, which takes as many macs as the product of the sizes of all indices of the two operands.
"""

from __future__ import annotations

import math
import string

from hwcost.graph import OpSpec
from hwcost.rules.arithmetic import parts, real_macs
from hwcost.rules.registry import Work, rule

Sizes = dict[str, int]  # of an operand, by index letter


# [b, h, i, j] = einsum("bhid,bhjd->bhij", [[b, h, i, d], [b, h, j, d]])
@rule("einsum")
def einsum(op: OpSpec) -> Work:
    """Multiply-adds of the products, and additions of the sums."""
    waiting, result = _indices(str(op.param("equation")), [t.shape for t in op.inputs])
    given = op.param("path")
    path = [i for i in given if isinstance(i, int)] if isinstance(given, tuple) else []
    macs = additions = 0
    for step in range(len(waiting) - 1):
        i, j = sorted(path[2 * step : 2 * step + 2]) if path else (0, 1)
        right, left = waiting.pop(j), waiting.pop(i)
        needed = set(result).union(*waiting)
        for one, other in ((left, right), (right, left)):
            if not needed.union(other).issuperset(one):
                additions += math.prod(one.values())
        both = {c: n for c, n in (left | right).items() if c in needed or (c in left and c in right)}
        macs += math.prod(both.values())
        waiting.insert(len(waiting) if path else 0, {c: n for c, n in both.items() if c in needed})
    if not set(result).issuperset(waiting[0]):
        additions += math.prod(waiting[0].values())
    return Work(macs=real_macs(macs, *op.inputs[:2]), other_flops=additions * parts(op.outputs[0]))


def _indices(equation: str, shapes: list[tuple[int, ...]]) -> tuple[list[Sizes], str]:
    """The sizes of each operand's indices, without axes that are broadcast, and the letters of the result.

    An index that an operand has twice is its diagonal. The axes of an ellipsis get letters that are not in use, from
    the last axis on, since the ellipses of all operands are broadcast.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    ndims = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    unused = [c for c in string.ascii_letters if c not in equation]
    dots = "".join(unused[: max(ndims)])
    terms = [term.replace("...", dots[len(dots) - n :]) for term, n in zip(terms, ndims, strict=True)]
    joined = "".join(terms)
    result = result.replace("...", dots) if arrow else "".join(c for c in set(joined) if joined.count(c) == 1)
    result = result if arrow else result + dots
    alone = len(terms) == 1  # several operands are broadcast along an axis of size 1, as if they lacked it
    sizes = [
        {c: n for c, n in zip(term, shape, strict=True) if n != 1 or alone}
        for term, shape in zip(terms, shapes, strict=True)
    ]
    return sizes, result
