"""Counts of a call's work that do not use hwcost's rules, for `opinfo`.

- Products: twice the macs are what torch's own counter sees; for those that it does not see on a CPU, arithmetic.
- Elementwise ops that are one arithmetic operation: one flop for each element of the result.
- Sums and the like: one flop for each element, or one less for each result.
- No other op counts nothing, unless it is listed in `MOVES` or returns an argument.
"""

# ruff: noqa: SIM905 - names read best as words

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from opinfo import Call

    from hwcost import Graph

ONE_FLOP = frozenset(
    "add sub mul div.no_rounding_mode true_divide neg abs exp exp2 expm1 log log2 log10 log1p sqrt reciprocal "
    "square sin cos tan asin acos atan sinh cosh asinh acosh atanh atan2 floor ceil trunc sign erf erfc lgamma "
    "digamma maximum minimum fmax fmin eq ne lt le gt ge logical_and logical_or logical_xor logical_not "
    "bitwise_and bitwise_or bitwise_xor bitwise_not isnan isinf nn.functional.relu hypot".split()
)
SUMS = frozenset("sum mean prod amax amin".split())
# Ops that make values without arithmetic, or move them. Comparing to sort, and drawing random numbers, are not counted.
MOVES = frozenset(
    "arange linspace logspace eye ones zeros full empty empty_like zeros_like ones_like full_like new_zeros "
    "new_ones new_full new_empty new_empty_strided empty_strided scalar_tensor fill zero_ resize_ triu_indices "
    "tril_indices cauchy exponential geometric log_normal normal uniform randn randn_like rand_like randint "
    "randint_like bernoulli multinomial nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d "
    "nn.functional.alpha_dropout nn.functional.feature_alpha_dropout broadcast_to broadcast_tensors expand "
    "expand_as expand_copy view view_as view_copy reshape reshape_as flatten unflatten ravel squeeze unsqueeze "
    "unsqueeze_copy permute permute_copy movedim transpose transpose_copy t T H mT mH narrow select slice split "
    "unsafe_split split_with_sizes tensor_split hsplit vsplit dsplit chunk unsafe_chunk unbind unbind_copy unfold "
    "unfold_copy diagonal linalg.diagonal as_strided real view_as_real view_as_complex complex meshgrid "
    "atleast_1d atleast_2d atleast_3d clone contiguous to bfloat16 bool byte char double float half int long "
    "short cdouble cfloat block_diag combinations cartesian_prod diag diag_embed diagflat flip fliplr flipud "
    "rot90 tril triu repeat repeat_interleave tile roll cat concat stack hstack vstack dstack column_stack "
    "nn.functional.pad constant_pad_nd nn.functional.unfold nn.functional.interpolate "
    "nn.functional.upsample_nearest nn.functional.max_unpool1d nn.functional.max_unpool2d "
    "nn.functional.max_unpool3d nn.functional.pixel_shuffle nn.functional.pixel_unshuffle "
    "nn.functional.channel_shuffle fft.fftshift fft.ifftshift gather take take_along_dim index_select index_fill "
    "index_copy index_put put __getitem__ scatter masked_scatter masked_select select_scatter slice_scatter "
    "diagonal_scatter as_strided_scatter nonzero argwhere nn.functional.one_hot nn.functional.embedding "
    "nn_Embedding sort argsort msort topk kthvalue unique unique_consecutive bucketize searchsorted to_sparse".split()
)
PRODUCTS = {  # twice the multiply-adds of what torch's counter does not see on a CPU, by shapes
    "dot": lambda a, b: 2 * a.numel(),
    "vdot": lambda a, b: 2 * a.numel(),
    "mv": lambda a, b: 2 * a.numel(),
    "outer": lambda a, b: 2 * a.numel() * b.numel(),
    "ger": lambda a, b: 2 * a.numel() * b.numel(),
    "inner": lambda a, b: 2 * a.numel() * b.numel() // max(a.shape[-1], 1) if a.dim() and b.dim() else None,
    "kron": lambda a, b: 2 * a.numel() * b.numel(),
    "addmv": lambda x, a, b: 2 * a.numel(),
    "linalg.vecdot": lambda a, b: 2 * math.prod(torch.broadcast_shapes(a.shape, b.shape)),
    "nn.functional.bilinear": lambda a, b, w, bias=None: 2 * (a.numel() // max(a.shape[-1], 1)) * w.numel(),
}


def wrong_count(call: Call, result: Any, graph: Graph) -> str:
    """What is wrong with the counts of a call that was traced completely; "" where nothing is."""
    flops, made = graph.cost.flops, sum(t.numel() for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor))
    if call.dtype.is_complex or any(t.layout is not torch.strided for t in _tensors((call.arguments, result))):
        return ""  # a complex number takes several operations, a sparse tensor those of its stored values
    products = _counted(call)
    if products is not None and products != 2 * graph.cost.macs:
        return f"{products} flop of products, traced {2 * graph.cost.macs}"
    if call.name in ONE_FLOP and "alpha" not in call.arguments[1] and flops != made:
        return f"{made} flop, traced {flops}"
    if call.name in SUMS:
        read = call.arguments[0][0].numel()
        if not max(read - made, 0) <= flops <= read + made:
            return f"{read - made} to {read} flop, traced {flops}"
    if flops == 0 and made and not _moves(call, result):
        return "nothing counted"
    return ""


def _moves(call: Call, result: Any) -> bool:
    """Whether a call has no arithmetic to do: by its name, for want of elements, or since it returns an argument."""
    given = _tensors(call.arguments)
    named = any(call.name == name or call.name.startswith(f"{name}.") for name in MOVES) or "Pad" in call.name
    returned = isinstance(result, torch.Tensor) and any(
        torch.equal(result, t) for t in given if t.shape == result.shape
    )
    lone = not given and isinstance(result, torch.Tensor) and result.numel() == 1  # as a window of one element
    return named or returned or lone or any(t.numel() == 0 for t in given)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, torch.Tensor)]


def _counted(call: Call) -> int | None:
    """Flop of matrix products, convolutions and attention, without using hwcost; None where nothing tells."""
    from opinfo import run

    args, kwargs = call.arguments
    known = PRODUCTS.get(call.name)
    if known is not None:
        return known(*args, **{k: v for k, v in kwargs.items() if k == "bias"})
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see a whole attention layer as one op
        try:
            run(call)
        except Exception:  # the counter does not know the op's arguments
            return None
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops() or None
