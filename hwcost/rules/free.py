"""Ops that cost nothing, each with the reason."""

from __future__ import annotations

from hwcost.rules import free

free("a view: no data moves",
     "view", "t", "transpose", "permute", "expand", "expand_as", "squeeze", "unsqueeze", "slice", "select", "narrow", "chunk", "split",
     "split_with_sizes", "unbind", "alias", "detach", "unflatten", "view_as", "movedim", "swapaxes", "swapdims", "real", "imag",
     "view_as_real", "view_as_complex", "as_strided", "diagonal", "unfold", "tensor_split", "numpy_T", "mT", "adjoint", "lift_fresh",
     "resolve_conj", "resolve_neg", "conj", "_conj", "_reshape_alias", "atleast_1d", "atleast_2d", "broadcast_to", "hsplit", "ravel")  # fmt: skip
free("the identity in inference",
     "dropout", "feature_dropout", "alpha_dropout", "native_dropout", "identity", "stochastic_depth")  # fmt: skip
free("allocates, moves no data", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize")
free("asks for shape or type only",
     "sym_size", "sym_numel", "sym_stride", "is_same_size", "_assert_async", "_assert_tensor_metadata", "size", "is_nonzero", "item",
     "_local_scalar_dense", "result_type", "_has_compatible_shallow_copy_type", "is_floating_point", "equal")  # fmt: skip
