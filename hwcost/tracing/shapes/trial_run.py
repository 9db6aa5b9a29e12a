"""The form of the result of an op that no shape function covers, from a trial run of the op by torch.

1. The op runs on meta tensors, which have shapes and no data.
2. Where the size of the result depends on values, it is the size for values that are all nonzero, all kept (as boxes
   by non-maximum suppression) and all equal (as the classes of boxes). A note of the graph says so.
3. A size that follows from an argument of lengths, repeats or the like is refused where the values of that argument
   are unknown (`_SIZES_IN_VALUES`).
4. An op without a meta kernel runs on zeros, or on ones if it refuses zeros. A note of the graph says so.
5. A recurrent layer runs on two of its time steps, since its meta kernel goes through all of them, which may take
   seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hwcost.tracing.form import Form
from hwcost.tracing.schema import Overload
from hwcost.tracing.shadow import NeedsValue, Shadow, Weight, memory_of
from hwcost.tracing.shapes.masks import INDEXING, selected, values_of, without_masks
from hwcost.tracing.shapes.sparse import sparse_filled

_ZEROS_LIMIT = 1 << 24  # elements of all arguments; an op with larger ones is not run on zeros
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
# Kinds whose results have sizes that follow from an argument of lengths or repeats, where its values are known. They
# run on the known values of integer arguments, and on meta tensors for the others.
MIXED = ("_pack_padded_sequence", "_pad_packed_sequence", "repeat_interleave", "tensor_split", *_RECURRENT)
# Normalisations that return statistics besides, of which meta and CPU kernels return different ones.
_NORMS = (
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_with_update",
    "native_layer_norm", "native_group_norm",
)  # fmt: skip
_AS_ALL = "its size depends on values; taken as if all were nonzero, kept and equal"
_STEPS = 2  # time steps of a recurrent layer that are run


class Probe:
    """The trial run of one call.

    Args:
        overload: the op.
        func: what is called.
        forms: the form of a Shadow or Weight.
    """

    def __init__(self, overload: Overload, func: Any, forms: Callable[[Any], Form]) -> None:
        self._overload, self._func, self._form = overload, func, forms
        self._made: dict[int, torch.Tensor] = {}
        self.note = self.size_note = ""
        self.on_numbers = False  # whether the op ran on zeros or ones, having no meta kernel
        self.follows_values = False  # whether zeros and ones then gave results of different sizes, or other numbers

    def run(self, args: Any, kwargs: Any) -> tuple[Any, bool]:
        """Run the op.

        Returns:
            The result, as tensors whose values mean nothing; and whether it was made from stand-ins for the arguments
            (`stand_in`), whose memory it may share.
        """
        given = dict(zip(self._overload.arguments, args, strict=False)) | kwargs
        if self._overload.kind == "masked_select":
            x, mask = self._form(given["self"]), self._form(given["mask"])
            self.note = "" if values_of(given["mask"]) is not None else _AS_ALL
            return _like(x, selected(given, x, mask)), False
        if self._overload.sized_by_values and (everything := _ALL.get(self._overload.kind)):
            self.note = _AS_ALL
            return everything(self._forms(given.values()), given.get("dim")), False
        if self._overload.kind in _RECURRENT and len(self._form(args[0]).shape) == 3:  # packed sequences have two axes
            return self._few_steps(self._replace(args, self._meta)), True
        self._check_sizes(args, kwargs)
        try:
            mixed = self._overload.kind in MIXED
            out = self._func(
                *self._replace(args, self._mixed if mixed else self._meta), **self._keywords(kwargs, "meta")
            )
        except NotImplementedError:
            out = self._on_zeros(args, kwargs)
        except RuntimeError as refusal:  # some meta kernels refuse what the kernels of a device accept
            try:
                out = self._on_zeros(args, kwargs)
            except Exception:
                raise refusal from None
        self.note = self.size_note or self.note
        return self._as_on_cpu(out, args) if self._overload.kind in _NORMS else out, True

    def _as_on_cpu(self, out: Sequence[torch.Tensor], args: Any) -> tuple[torch.Tensor, ...]:
        """The results of a normalisation, with saved statistics as CPU kernels return them.

        Those have the dtype of the parameters, and there are none of a batch norm in inference.
        """
        given = {n: self._form(a) for n, a in zip(self._overload.arguments, args, strict=False) if _is_held(a)}
        parameters = [given[name] for name in ("weight", "bias", "running_mean") if name in given]
        dtype = (parameters or [given["input"]])[0].dtype
        inference = self._overload.kind.endswith("_no_training") or (
            "training" in self._overload.arguments and not args[self._overload.arguments.index("training")]
        )
        saved = [t.new_empty(0 if inference else t.shape, dtype=dtype) for t in out[1:3]]
        return (out[0], *saved, *out[3:])

    def _check_sizes(self, args: Any, kwargs: Any) -> None:
        """Refuse a call whose result has a size that follows from unknown values of an argument.

        Raises:
            NeedsValue: it has.
        """
        found = _SIZES_IN_VALUES.get(self._overload.name)
        if found is None:
            return
        argument, unless = found
        given = dict(zip(self._overload.arguments, args, strict=False)) | kwargs
        tensor, size = given.get(argument), given.get(unless, self._overload.defaults.get(unless))
        if not isinstance(tensor, (Shadow, Weight)) or (tensor.known is not None and tensor.memory.valid):
            return
        if not (isinstance(size, int) and size > 0):
            raise NeedsValue(f"the size of the result of {self._overload.name} follows from values of `{argument}`")
        self.size_note = "its size depends on values; taken as `minlength` says" if unless == "minlength" else ""

    def _few_steps(self, args: list[Any]) -> Any:
        """Results of a recurrent layer on an input [steps, n, c], or [n, steps, c] where its last argument is true."""
        axis = 1 if args[-1] else 0
        steps = args[0].shape[axis]
        few = min(steps, _STEPS)
        first, *states = self._func(args[0].narrow(axis, 0, few), *args[1:])
        size, step = list(first.shape), first.stride()
        size[axis] = steps
        stride = [s * steps // few if s > step[axis] else s for s in step]  # axes outside the steps are wider
        return (torch.empty_strided(size, stride, dtype=first.dtype, device="meta"), *states)

    def stand_in(self, tensor: Any) -> torch.Tensor | None:
        """The tensor that took the place of an argument in the run; None for one inside a packed object."""
        return self._made.get(id(tensor))

    def _on_zeros(self, args: Any, kwargs: Any) -> Any:
        """The result of the op on zeros, or on ones where it refuses zeros, as weights that must not sum to zero.

        Raises:
            NotImplementedError: the arguments are too large for that.
        """
        self.on_numbers = True
        if self._overload.kind.lstrip("_").startswith("to_sparse"):
            self.note = "its size depends on values; taken as if all were nonzero"
            return self._on_equal(1, args, kwargs)
        if not any(form.stored for form in self._forms(args)):  # no sparse tensor has a meta kernel
            self.note = "it has no meta kernel; its result's shape was found by running it on zeros"
        try:
            out = self._on_equal(0, args, kwargs)
            self.follows_values = "." in self._overload.kind and self._differs_on_ones(out, args, kwargs)
            return out
        except (RuntimeError, IndexError) as refusal:
            if isinstance(refusal, NotImplementedError):
                raise
            self.note = self.note.replace("zeros", "ones")
            try:
                return self._on_equal(1, args, kwargs)
            except (RuntimeError, IndexError):
                raise refusal from None

    def _differs_on_ones(self, out: Any, args: Any, kwargs: Any) -> bool:
        """Whether an op of another library returns tensors of other shapes, or other numbers, on ones than `out`."""
        stand_ins = dict(self._made)
        try:
            other = self._on_equal(1, args, kwargs)
        except Exception:  # whatever an op of somebody raises where it does not expect ones
            return False
        finally:
            self._made = stand_ins
        return _outline(other) != _outline(out)

    def _on_equal(self, value: int, args: Any, kwargs: Any) -> Any:
        """The result of the op on tensors that are `value` everywhere, and on known values of integers it is MIXED.

        Raises:
            NotImplementedError: the arguments are too large for that.
        """

        def make(arg: Any) -> torch.Tensor:
            known = self._known(arg) if self._overload.kind in MIXED else None
            return self._keep(arg, lambda: _filled(self._form(arg), value) if known is None else known)

        self._made.clear()
        placed = self._replace(args, make, device="cpu")
        keywords = self._keywords(kwargs, "cpu", make)
        if sum(memory_of(t)[1] // t.element_size() for t in self._made.values()) > _ZEROS_LIMIT:
            raise NotImplementedError(
                f"{self._overload.name} has no meta kernel and its arguments are too large to run it"
            )
        return self._func(*placed, **keywords)

    def _forms(self, args: Any) -> list[Form]:
        return [self._form(a) for a in args if _is_held(a)]

    def _replace(self, args: Any, make: Callable[[Any], torch.Tensor], device: str = "meta") -> Any:
        """Arguments with `make` of each tensor, and with integer indices for the boolean masks of an indexing op."""
        indexing = self._overload.kind in INDEXING
        out: list[Any] = []
        for arg in args:
            if isinstance(arg, (Shadow, Weight)):
                out.append(make(arg))
            elif isinstance(arg, (list, tuple)):
                inner = self._replace(arg, make, device)
                out.append(type(arg)(without_masks(arg, inner) if indexing else inner))
            elif isinstance(arg, torch.device):
                out.append(torch.device(device))
            else:
                out.append(arg)
        return out

    def _keywords(self, kwargs: Any, device: str, make: Callable[[Any], torch.Tensor] | None = None) -> dict[str, Any]:
        """Keyword arguments with `make` of each tensor, and `device` where the call names one or has no tensor."""
        out = {
            k: None if k == "generator" else self._replace((v,), make or self._meta, device)[0]
            for k, v in kwargs.items()
            if k != "pin_memory"
        }
        if "device" in out or (not self._made and "device" in self._overload.arguments):
            out["device"] = torch.device(device)
        return out

    def _meta(self, arg: Any) -> torch.Tensor:
        form = self._form(arg)
        if form.stored:
            raise NotImplementedError("sparse tensors have no meta kernels")
        return self._keep(arg, lambda: torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device="meta"))

    def _mixed(self, arg: Any) -> torch.Tensor:
        """The known value of an integer tensor, else a meta tensor (see `MIXED`)."""
        known = self._known(arg)
        return self._keep(arg, lambda: known) if known is not None else self._meta(arg)

    def _known(self, arg: Any) -> torch.Tensor | None:
        """The values of an integer tensor, where they are known."""
        is_integer = self._form(arg).dtype in (torch.int64, torch.int32)
        values: torch.Tensor | None = arg.known if is_integer and arg.memory.valid else None
        return values

    def _keep(self, arg: Any, make: Callable[[], Any]) -> torch.Tensor:
        """The stand-in for an argument, made once, so that an argument that is given twice stays one tensor."""
        found = self._made.get(id(arg))
        if found is None:
            found = self._made[id(arg)] = make()
        return found


def _outline(result: Any) -> list[Any]:
    """Shapes of the tensors that an op returned, and its other results."""
    return [tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else leaf for leaf in pytree.tree_leaves(result)]


def _is_held(arg: Any) -> bool:
    """Whether an argument is a tensor of the trace."""
    return isinstance(arg, (Shadow, Weight))


def _filled(form: Form, value: int) -> torch.Tensor:
    if form.stored:
        return sparse_filled(form, form.stored, value)
    if form.dtype in (torch.quint8, torch.qint8, torch.qint32):
        plain: torch.Tensor = torch._empty_affine_quantized(form.shape, scale=1.0, zero_point=0, dtype=form.dtype)
        return plain.as_strided(form.shape, form.stride)
    return torch.full(form.shape, value, dtype=form.dtype)


def _index(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")


def _like(form: Form, *shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=form.dtype, device="meta")


def _size(form: Form) -> int:
    return math.prod(form.shape)


# By overload: the argument whose values give a size of the result, and the one that gives that size itself, if any.
_SIZES_IN_VALUES: dict[str, tuple[str, str]] = {
    "aten.bincount.default": ("self", "minlength"),
    "aten.one_hot.default": ("self", "num_classes"),
    "aten.repeat_interleave.Tensor": ("repeats", "output_size"),
    "aten.repeat_interleave.self_Tensor": ("repeats", "output_size"),
    "aten.tensor_split.tensor_indices_or_sections": ("tensor_indices_or_sections", ""),
    "aten._pack_padded_sequence.default": ("lengths", ""),
}


def _unique(form: Form, dim: int | None) -> tuple[torch.Tensor, ...]:
    """The one value that is met along an axis or everywhere, where each element lies in it, and how often it is met."""
    if dim is None:
        return _like(form, 1), _index(*form.shape), _index(1)
    shape = list(form.shape)
    length, shape[dim] = shape[dim], 1
    return _like(form, *shape), _index(length), _index(1)


# By kind: from the forms of the tensor arguments and an axis to the result if all are nonzero, kept and equal.
_ALL: dict[str, Callable[[list[Form], int | None], Any]] = {
    "nonzero": lambda f, _: _index(_size(f[0]), len(f[0].shape)),
    "argwhere": lambda f, _: _index(_size(f[0]), len(f[0].shape)),
    "nonzero_numpy": lambda f, _: [_index(_size(f[0])) for _ in f[0].shape],
    "where": lambda f, _: [_index(_size(f[0])) for _ in f[0].shape],
    "torchvision.nms": lambda f, _: _index(f[0].shape[0]),
    "unique": lambda f, _: (_like(f[0], 1), _index(_size(f[0]))),
    "_unique": lambda f, _: (_like(f[0], 1), _index(_size(f[0]))),
    "_unique2": lambda f, _: _unique(f[0], None),
    "unique_consecutive": lambda f, dim: _unique(f[0], dim),
    "_nested_tensor_from_mask_left_aligned": lambda f, _: None,  # as if false: padding counts as tokens do
    "unique_dim": lambda f, dim: _unique(f[0], dim),
}
