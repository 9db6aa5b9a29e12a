"""Kinds of ops that are free, with the reason."""

from __future__ import annotations

from hwcost.rules.registry import free

free(
    "a view: no data moves",
    "view", "t", "transpose", "permute", "expand", "expand_as", "squeeze", "unsqueeze", "slice", "select", "narrow",
    "chunk", "split", "split_with_sizes", "unbind", "alias", "detach", "unflatten", "view_as", "movedim", "moveaxis",
    "swapaxes", "swapdims", "real", "imag", "view_as_real", "view_as_complex", "as_strided", "diagonal", "unfold",
    "tensor_split", "numpy_T", "mT", "mH", "H", "adjoint", "lift_fresh", "resolve_conj", "resolve_neg", "conj", "_conj",
    "_reshape_alias", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_to", "broadcast_tensors", "hsplit", "vsplit",
    "dsplit", "ravel", "set", "set_data", "requires_grad", "unsafe_split", "unsafe_chunk", "unsafe_split_with_sizes",
)  # fmt: skip
free("allocates, moves no data", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize")
free(
    "asks for shape, type or a single value",
    "sym_size", "sym_numel", "sym_stride", "is_same_size", "_assert_async", "_assert_tensor_metadata", "size",
    "is_nonzero", "item", "_local_scalar_dense", "result_type", "_has_compatible_shallow_copy_type",
    "is_floating_point", "is_complex", "dim", "numel", "q_scale", "q_zero_point", "qscheme", "is_pinned",
    "_has_same_storage_numel", "_is_any_true", "_is_all_true", "is_inference", "promote_types",
    "_nested_tensor_from_mask_left_aligned",
)  # fmt: skip
