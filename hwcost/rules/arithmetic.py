"""Multiply-adds of operands that are complex or sparse, in the unit of all rules: those of real numbers.

A complex multiplication takes 4 multiplications and 2 additions (6 flop), a complex addition 2 flop, and a complex
multiply-add therefore 4 macs (8 flop), whichever way a kernel computes it. A complex number times a real one takes 2.
Of a sparse operand only the elements that it stores are multiplied.
"""

from __future__ import annotations

import math
from itertools import zip_longest

from hwcost.graph import TensorSpec


def is_complex(tensor: TensorSpec) -> bool:
    """Whether its elements are complex numbers."""
    return tensor.dtype.startswith("complex")


def parts(tensor: TensorSpec) -> int:
    """Real numbers in an element, and so the flop of an addition: 2 for a complex one, else 1."""
    return 2 if is_complex(tensor) else 1


def is_sparse(tensor: TensorSpec) -> bool:
    """Whether only some elements are stored, with their indices."""
    return tensor.layout.startswith("sparse")


def worked_on(tensor: TensorSpec) -> int:
    """Elements that an op works on: those that a sparse tensor stores, all of another, broadcast ones included."""
    return tensor.elements if is_sparse(tensor) else tensor.numel


def real_macs(macs: int, *operands: TensorSpec) -> int:
    """Multiply-adds of real numbers that a product takes.

    Args:
        macs: multiply-adds of elements, if all of them were stored.
        operands: the factors. Where two are sparse, their stored elements are taken to lie independently.
    """
    for operand in operands:
        macs *= parts(operand)
        if is_sparse(operand) and operand.numel:
            macs = macs * operand.elements // operand.numel
    return macs


def broadcast_numel(*tensors: TensorSpec) -> int:
    """Number of elements of the operands' common shape."""
    return math.prod(max(sizes) for sizes in zip_longest(*(reversed(t.shape) for t in tensors), fillvalue=1))
