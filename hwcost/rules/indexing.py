"""Ops that move data with little or no arithmetic: copies, gathers, concatenation, resizing."""

from __future__ import annotations

from hwcost.graph import OpSpec, Param
from hwcost.rules.registry import Work, rule


# [*] = cat([[*], ...], dim)        [*] = clone([*])        [*, k] = topk([*, n], k)
@rule(
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "clone", "contiguous",
    "reshape", "reshape_as", "flatten", "to", "_to_copy", "type_as", "pad", "constant_pad_nd", "reflection_pad1d",
    "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
    "_pad_circular", "_reshape_copy", "repeat", "repeat_interleave", "tile", "roll", "flip", "fliplr", "flipud",
    "rot90", "tril", "triu", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    "im2col", "col2im", "masked_select", "nonzero", "nonzero_numpy", "argwhere", "one_hot", "block_diag",
    "permute_copy", "unfold_copy", "meshgrid", "view_copy", "expand_copy", "slice_copy", "diag", "diag_embed",
    "diagflat", "sort", "topk", "msort", "unique", "_unique", "_unique2", "unique_dim", "unique_consecutive", "argsort",
    "searchsorted", "bucketize", "cartesian_prod", "combinations", "_unsafe_view", "kthvalue", "upsample_nearest1d",
    "_pack_padded_sequence", "_pad_packed_sequence", "int_repr", "unsqueeze_copy", "transpose_copy",
    "split_copy", "unbind_copy", "lift", "nested_to_padded_tensor", "max_unpool2d",
    "fft_fftshift", "fft_ifftshift",
)  # fmt: skip
def move(op: OpSpec) -> Work:
    """Inputs are read and outputs written. There is no arithmetic: comparisons of a sort are not counted."""
    return Work()


# [*, d] = embedding([n, d], [*])
@rule("embedding", "index_select", "gather", "take_along_dim", "take")
def gather(op: OpSpec) -> Work:
    """Of the table, as many elements are read as are returned."""
    source = op.inputs[0].name
    return Work(touched={source: op.outputs[0].numel})


# [*] = index([n, *], [[*], ...])
@rule("index", "_unsafe_index")
def index(op: OpSpec) -> Work:
    """As many elements are read as are returned."""
    return Work(touched={"self": op.outputs[0].numel})


# [b, d] = embedding_bag([n, d], [tokens], [b]?)
@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(op: OpSpec) -> Work:
    """A row of the table is read for each token, and added to the row of its bag: one flop per element read."""
    width = op.inputs[0].shape[1]
    elements = op.inputs[1].numel * width
    return Work(other_flops=elements, touched={op.inputs[0].name: elements})


# [*, d] = embedding_byte([n, d], [*])        [b, d] = embedding_bag_byte([n, d], [tokens], [b]?)
@rule("quantized.embedding_byte", "quantized.embedding_bag_byte")
def quantised_embedding(op: OpSpec) -> Work:
    """A row is read for each token and dequantised: two flop per element, and one more where a bag adds rows up."""
    elements = op.inputs[1].numel * op.inputs[0].shape[1]
    return Work(other_flops=elements * (3 if "bag" in op.kind else 2), touched={op.inputs[0].name: elements})


# copy_(self [*], src [*])        fill_(self [*], value)        [*] = zeros([*])
@rule(
    "copy", "fill", "zero", "full", "full_like", "zeros", "ones", "zeros_like", "ones_like", "new_zeros", "new_full",
    "new_ones", "arange", "range", "linspace", "logspace", "eye", "rand", "randn", "rand_like", "randn_like", "randint",
    "randint_like", "normal", "uniform", "bernoulli", "randperm", "scalar_tensor", "exponential", "random", "tensor",
    "tril_indices", "triu_indices", "hann_window", "hamming_window", "blackman_window", "kaiser_window", "multinomial",
    "bartlett_window", "log_normal", "cauchy", "geometric", "poisson",
)  # fmt: skip
def write(op: OpSpec) -> Work:
    """The old content of `self` is overwritten, and not read."""
    return Work(touched={"self": 0})


# [*] = scatter(self [*], dim, index, src)        [*] = index_put(self [*], indices, values)
@rule(
    "scatter", "scatter_add", "scatter_reduce", "index_put", "index_add", "index_copy", "index_fill", "masked_scatter",
    "slice_scatter", "select_scatter", "diagonal_scatter", "index_put_impl", "_index_put_impl", "index_reduce",
    "fill_diagonal", "put",
)  # fmt: skip
def scatter(op: OpSpec) -> Work:
    """One flop for each element that is added. All of `self` is counted as read and written, also in place."""
    adds = "add" in op.kind or op.param("accumulate") is True
    return Work(other_flops=op.inputs[-1].numel if adds else 0)


_TAPS = {"nearest": 0, "linear": 2, "bilinear": 4, "trilinear": 8, "bicubic": 16}  # input elements per output element


# [b, c, H, W] = upsample_bilinear2d([b, c, h, w], size)
@rule(
    "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d",
    "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "upsample_trilinear3d",
)  # fmt: skip
def resize(op: OpSpec) -> Work:
    """A weighted sum of neighbours: a multiplication and an addition for each tap of each output element."""
    method = next(m for m in ("nearest", "trilinear", "bilinear", "bicubic", "linear") if m in op.kind)
    return Work(other_flops=2 * _TAPS[method] * op.outputs[0].numel)


# [b, c, H, W] = grid_sampler([b, c, h, w], [b, H, W, 2], mode)
@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(op: OpSpec) -> Work:
    """Two flop for each tap of each output element; bilinear has four taps (eight in a volume), bicubic sixteen."""
    taps = {0: 4, 1: 1, 2: 16}.get(_number(op.param("interpolation_mode", 0)), 4)
    if taps == 4 and len(op.outputs[0].shape) == 5:
        taps *= 2
    return Work(other_flops=2 * taps * op.outputs[0].numel)


# [b, H, W, 2] = affine_grid_generator([b, 2, 3], size)        [b, D, H, W, 3] = ...([b, 3, 4], size)
@rule("affine_grid_generator")
def affine_grid(op: OpSpec) -> Work:
    """Each point of the grid, in homogeneous coordinates, is multiplied with the matrix of its image."""
    return Work(macs=op.outputs[0].numel * op.inputs[0].shape[-1])


def _number(value: Param) -> int:
    return value if isinstance(value, int) else 0
