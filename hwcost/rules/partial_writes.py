"""Writes into a part of a tensor: at indices, at a mask, into a slice.

Done in place (the parameter `in_place`, which tracing adds), such an op writes the elements that it names and leaves
the others alone; where it adds to them, it reads them too. Otherwise its result is a new tensor, of which it writes
every element. It then reads all of the old one, since indices may name one element twice; less what a slice replaces,
which is known. A mask is counted as if it selected everything.
"""

from __future__ import annotations

import math

from hwcost.graph import OpSpec
from hwcost.rules.registry import Work, rule

_ADDING = ("scatter_add", "index_add", "scatter_reduce", "index_reduce")
_SLICES = ("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter")


# [*] = scatter(self [*], dim, index, src)        index_copy_(self [*], dim, index, source)
@rule(
    "scatter", "scatter_add", "scatter_reduce", "index_put", "index_add", "index_copy", "index_fill", "masked_scatter",
    "_index_put_impl", "_unsafe_index_put", "index_reduce", "fill_diagonal", "put", *_SLICES,
)  # fmt: skip
def partial_write(op: OpSpec) -> Work:
    """One flop for each element that is added or reduced, one more where it is first multiplied with a factor."""
    target = op.inputs[0]
    part = min(_part(op), target.elements)
    adds = op.kind in _ADDING or op.param("accumulate") is True or op.param("reduce") is not None
    flops = part * (1 + (op.param("alpha", 1) != 1)) if adds else 0
    source = op.input("src")
    touched = {"src": part} if source and op.input("index") else {}
    if op.param("in_place"):
        return Work(other_flops=flops, touched=touched | {target.name: part if adds else 0}, written=part)
    if op.kind in _SLICES:
        touched = {target.name: target.elements - part}
    return Work(other_flops=flops, touched=touched)


def _part(op: OpSpec) -> int:
    """Number of elements that are written."""
    target, index = op.inputs[0], op.input("index")
    if op.kind in ("index_put", "_index_put_impl", "_unsafe_index_put"):
        return _indexed(op)
    if op.kind == "index_fill" and index:
        dim = op.param("dim")
        length = target.shape[dim if isinstance(dim, int) else 0] if target.shape else 1
        return target.numel * index.numel // max(length, 1)
    if op.kind == "fill_diagonal":
        return max(target.shape) if op.param("wrap") else min(target.shape)
    if op.kind in ("index_add", "index_copy", "index_reduce"):
        return (op.input("source") or op.inputs[-1]).numel
    if index:  # of scatter and put: one element for each index
        return index.numel
    return target.numel if op.kind == "masked_scatter" else (op.input("src") or op.inputs[-1]).numel


def _indexed(op: OpSpec) -> int:
    """Elements that index_put names: those of the common shape of its indices, times the sizes of the axes left whole.

    The parameter `axes` holds the axes that are indexed. A mask is as long as all its elements, and takes as many axes
    as it has. Without the parameter, as many elements are written as there are values.
    """
    target, values = op.inputs[0], op.input("values") or op.inputs[-1]
    axes = op.param("axes")
    if not isinstance(axes, tuple):
        return values.numel
    indices = [(t.numel,) if t.dtype in ("bool", "uint8") else t.shape for t in op.inputs if t.name == "indices"]
    ndim = max(map(len, indices), default=0)
    padded = [(1,) * (ndim - len(shape)) + shape for shape in indices]
    named: int = math.prod(max(sizes) for sizes in zip(*padded, strict=True))
    return named * math.prod(size for axis, size in enumerate(target.shape) if axis not in axes)
