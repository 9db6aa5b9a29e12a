"""Sparse tensors to run an op on, where its result is found by running it."""

from __future__ import annotations

import math

import torch

from hwcost.tracing.form import Form, Stored

_LAYOUTS = {
    "sparse_csr": torch.sparse_csr, "sparse_csc": torch.sparse_csc, "sparse_bsr": torch.sparse_bsr,
    "sparse_bsc": torch.sparse_bsc,
}  # fmt: skip


def sparse_filled(form: Form, stored: Stored, value: int) -> torch.Tensor:
    """A sparse tensor of this form whose stored elements are all `value`, and lie spread over its rows."""
    values = torch.full(stored.values, value, dtype=form.dtype)
    if stored.layout == "sparse_coo":
        axes, count = stored.indices[0]
        sizes = form.shape[:axes]
        flat = torch.arange(count) * math.prod(sizes) // max(count, 1)
        places = torch.unravel_index(flat, sizes) if axes else ()
        indices = torch.stack(places) if places else torch.empty(0, count, dtype=torch.int64)
        return torch.sparse_coo_tensor(indices, values, form.shape, is_coalesced=True, check_invariants=False)
    (*_, rows), (*batch, count) = stored.indices
    starts = torch.arange(rows) * count // max(rows - 1, 1)
    row = torch.searchsorted(starts, torch.arange(count), right=True) - 1
    across = (torch.arange(count) - starts[row]).expand(*batch, count).to(stored.index_dtype)
    return torch.sparse_compressed_tensor(
        starts.expand(*batch, rows).to(stored.index_dtype).contiguous(),
        across.contiguous(),
        values,
        form.shape,
        layout=_LAYOUTS[stored.layout],
        check_invariants=False,
    )
