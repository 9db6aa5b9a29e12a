"""The form of the result of an op that no shape function covers, from a trial run of the op by torch.

1. The op runs on meta tensors, which have shapes and no data.
2. Where the size of the result depends on values, it is the size for values that are all nonzero, all kept (as boxes
   by non-maximum suppression) and all equal (as the classes of boxes). A note of the graph says so.
3. An op without a meta kernel runs on zeros. A note of the graph says so.
4. A recurrent layer runs on two of its time steps, since its meta kernel goes through all of them, which may take
   seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hwcost.tracing.form import Form, broadcast, contiguous
from hwcost.tracing.schema import Overload
from hwcost.tracing.shadow import Shadow, Weight, form_of

_ZEROS_LIMIT = 1 << 24  # elements of all arguments; an op with larger ones is not run on zeros
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
# Kinds whose results have sizes that follow from an argument of lengths or repeats, where its values are known. They
# run on the known values of integer arguments, and on meta tensors for the others.
MIXED = ("_pack_padded_sequence", "_pad_packed_sequence", "repeat_interleave", *_RECURRENT)
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
        self.note = ""

    def run(self, args: Any, kwargs: Any) -> tuple[Any, bool]:
        """Run the op.

        Returns:
            The result, as tensors whose values mean nothing; and whether it was made from stand-ins for the arguments
            (`stand_in`), whose memory it may share.
        """
        if self._overload.sized_by_values and (everything := _ALL.get(self._overload.kind)):
            self.note = "its size depends on values; taken as if all were nonzero, kept and equal"
            return everything(self._forms(args)), False
        if self._overload.kind in _RECURRENT and len(self._form(args[0]).shape) == 3:  # packed sequences have two axes
            return self._few_steps(self._replace(args, self._meta)), True
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
        return out, True

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
        """The result of the op on zeros.

        Raises:
            NotImplementedError: the arguments are too large for that.
        """
        self._made.clear()
        zeros = self._replace(args, self._zeros)
        placed = self._keywords(kwargs, "cpu", self._zeros)
        if sum(t.numel() for t in self._made.values()) > _ZEROS_LIMIT:
            raise NotImplementedError(
                f"{self._overload.name} has no meta kernel and its arguments are too large to run it"
            )
        self.note = "it has no meta kernel; its result's shape was found by running it on zeros"
        return self._func(*zeros, **placed)

    def _forms(self, args: Any) -> list[Form]:
        return [self._form(a) for a in args if isinstance(a, (Shadow, Weight))]

    def _replace(self, args: Any, make: Callable[[Any], torch.Tensor]) -> Any:
        """Arguments with `make` of each tensor, and with integer indices for the boolean masks of an indexing op."""
        mask = self._overload.kind in ("index", "_unsafe_index", "index_put", "_index_put_impl")
        out: list[Any] = []
        for arg in args:
            if isinstance(arg, (Shadow, Weight)):
                out.append(make(arg))
            elif isinstance(arg, (list, tuple)):
                inner = self._replace(arg, make)
                out.append(type(arg)(_unmask(inner)) if mask else type(arg)(inner))
            elif isinstance(arg, torch.device):
                out.append(torch.device("meta"))
            else:
                out.append(arg)
        if mask and any(
            isinstance(a, list) and len(a) != len(b) for a, b in zip(out, args, strict=True) if isinstance(b, list)
        ):
            self.note = "a boolean index selects by values; counted as if it selected everything"
        return out

    def _keywords(self, kwargs: Any, device: str, make: Callable[[Any], torch.Tensor] | None = None) -> dict[str, Any]:
        """Keyword arguments with `make` of each tensor, and `device` where the call names one or has no tensor."""
        out = {
            k: self._replace((v,), make or self._meta)[0]
            for k, v in kwargs.items()
            if k not in ("pin_memory", "generator")
        }
        if "device" in out or (not self._made and "device" in self._overload.arguments):
            out["device"] = torch.device(device)
        return out

    def _meta(self, arg: Any) -> torch.Tensor:
        form = self._form(arg)
        return self._keep(arg, lambda: torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device="meta"))

    def _mixed(self, arg: Any) -> torch.Tensor:
        """The known value of an integer tensor, else a meta tensor (see `MIXED`)."""
        is_integer = self._form(arg).dtype in (torch.int64, torch.int32)
        known = arg.known if is_integer and arg.memory.valid else None
        return self._keep(arg, lambda: known) if known is not None else self._meta(arg)

    def _zeros(self, arg: Any) -> torch.Tensor:
        form = self._form(arg)
        return self._keep(arg, lambda: _zeros(form))

    def _keep(self, arg: Any, make: Callable[[], Any]) -> torch.Tensor:
        """The stand-in for an argument, made once, so that an argument that is given twice stays one tensor."""
        found = self._made.get(id(arg))
        if found is None:
            found = self._made[id(arg)] = make()
        return found


def _unmask(indices: Sequence[Any]) -> list[Any]:
    """Indices with each boolean mask replaced by the integer indices that it stands for if it selects everything."""
    out: list[Any] = []
    for i in indices:
        if isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8):
            out += [torch.empty(i.numel(), dtype=torch.int64, device=i.device) for _ in range(i.dim())]
        else:
            out.append(i)
    return out


def _zeros(form: Form) -> torch.Tensor:
    if form.dtype in (torch.quint8, torch.qint8, torch.qint32):
        plain: torch.Tensor = torch._empty_affine_quantized(form.shape, scale=1.0, zero_point=0, dtype=form.dtype)
        return plain.as_strided(form.shape, form.stride)
    return torch.zeros(form.shape, dtype=form.dtype)


def _index(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")


def _like(form: Form, *shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=form.dtype, device="meta")


def _size(form: Form) -> int:
    return math.prod(form.shape)


# By kind: from the forms of the tensor arguments to the result if all values are nonzero, kept and equal.
_ALL: dict[str, Callable[[list[Form]], Any]] = {
    "nonzero": lambda f: _index(_size(f[0]), len(f[0].shape)),
    "argwhere": lambda f: _index(_size(f[0]), len(f[0].shape)),
    "nonzero_numpy": lambda f: [_index(_size(f[0])) for _ in f[0].shape],
    "where": lambda f: [_index(_size(f[0])) for _ in f[0].shape],
    "masked_select": lambda f: _like(f[0], math.prod(broadcast(f[0].shape, f[1].shape) or ())),
    "torchvision.nms": lambda f: _index(f[0].shape[0]),
    "unique": lambda f: (_like(f[0], 1), _index(_size(f[0]))),
    "_unique": lambda f: (_like(f[0], 1), _index(_size(f[0]))),
    "_unique2": lambda f: (_like(f[0], 1), _index(*f[0].shape), _index(1)),
    "unique_consecutive": lambda f: (_like(f[0], 1), _index(*f[0].shape), _index(1)),
    "_nested_tensor_from_mask_left_aligned": lambda f: None,  # as if false: padding counts as tokens do
    "unique_dim": lambda f: (_like(f[0], *f[0].shape), _index(*f[0].shape), _index(1)),
}


def real_form(tensor: torch.Tensor) -> Form:
    """Form of a tensor of a trial run; one without strides (sparse, packed) counts as contiguous."""
    form = form_of(tensor)
    return form if tensor.layout is torch.strided else Form(form.shape, contiguous(form.shape), form.dtype)
