"""How many elements a boolean mask selects: as many as are true where its values are known, else all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hwcost.tracing.form import Form, broadcast
from hwcost.tracing.shadow import Shadow, Weight

# Kinds that take a mask among their indices.
INDEXING = ("index", "_unsafe_index", "index_put", "_index_put_impl", "_unsafe_index_put")
NOTE = "a boolean index selects by values; counted as if it selected everything"
_MASKS = (torch.bool, torch.uint8)


def has_mask(kind: str, names: Sequence[str], forms: Sequence[Form]) -> bool:
    """Whether an op indexes by a mask; `names` are those of the arguments that hold tensors of these `forms`."""
    return kind in INDEXING and any(n == "indices" and f.dtype in _MASKS for n, f in zip(names, forms, strict=True))


def selects_unknown(kind: str, names: Sequence[str], forms: Sequence[Form], tensors: Sequence[Any]) -> bool:
    """Whether an op indexes by a mask whose values are unknown."""
    masks = [t for n, f, t in zip(names, forms, tensors, strict=True) if n == "indices" and f.dtype in _MASKS]
    return kind in INDEXING and any(values_of(mask) is None for mask in masks)


def values_of(tensor: Any) -> torch.Tensor | None:
    """The values of a Shadow or Weight, where they are known and still valid."""
    known: torch.Tensor | None = tensor.known if isinstance(tensor, (Shadow, Weight)) and tensor.memory.valid else None
    return known


def without_masks(given: Sequence[Any], stand_ins: Sequence[Any]) -> list[Any]:
    """Indices with each mask replaced by the integer indices that it stands for, one for each of its axes.

    Args:
        given: the indices of the call: Shadow, Weight or None.
        stand_ins: tensors of the same forms in a trial run.
    """
    out: list[Any] = []
    for index, mask in zip(given, stand_ins, strict=True):
        if not isinstance(mask, torch.Tensor) or mask.dtype not in _MASKS:
            out.append(mask)
            continue
        known = values_of(index)
        number = mask.numel() if known is None else int(known.count_nonzero())
        out += [torch.zeros(number, dtype=torch.int64, device=mask.device) for _ in range(mask.dim())]
    return out


def selected(given: Mapping[str, Any], x: Form, mask: Form) -> int:
    """Number of elements that masked_select returns of its arguments `given`, which have the forms `x` and `mask`."""
    shape = broadcast(x.shape, mask.shape) or ()
    known = values_of(given["mask"])
    return torch.Size(shape).numel() if known is None else int(known.expand(shape).count_nonzero())
