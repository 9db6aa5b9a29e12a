"""Form of the result of an op that no shape function covers: ask torch.

1. The op runs on meta tensors, which have shapes and no data.
2. An op whose result's size depends on values is taken as if every element were nonzero, every box
   survived, and all values were equal (one class for all boxes). The graph's notes say so.
3. An op without a meta kernel runs on zeros, once.
4. A recurrent layer runs two of its steps: its meta kernel would take each of them in turn, for seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hwcost.tracing.form import Form, broadcast, contiguous
from hwcost.tracing.schema import Call
from hwcost.tracing.shadow import Shadow, Weight, form_of

_ZEROS_LIMIT = 1 << 24  # elements of all arguments that an op may be run on
# Their results' sizes follow from lengths or repeats, where these are known.
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
MIXED = ("_pack_padded_sequence", "_pad_packed_sequence", "repeat_interleave", *_RECURRENT)
_STEPS = 2


class Probe:
    """One call, tried in the ways of the module docstring. `forms` looks a tag up."""

    def __init__(self, call: Call, func: Any, forms: Callable[[Any], Form]) -> None:
        self._call, self._func, self._form = call, func, forms
        self._made: dict[int, torch.Tensor] = {}
        self.note = ""

    def run(self, args: Any, kwargs: Any) -> tuple[Any, bool]:
        """The result, as tensors that have forms, and whether the arguments have stand-ins."""
        if self._call.sized_by_values and (everything := _ALL.get(self._call.kind)):
            self.note = "its size depends on values; taken as if all were nonzero, kept and equal"
            return everything(self._forms(args)), False
        if self._call.kind in _RECURRENT and len(self._form(args[0]).shape) == 3:  # packed sequences have two axes
            return self._few_steps(self._replace(args, self._meta)), True
        try:
            mixed = self._call.kind in MIXED
            out = self._func(*self._replace(args, self._mixed if mixed else self._meta), **self._place(kwargs, "meta"))
        except NotImplementedError:
            out = self._on_zeros(args, kwargs)
        except RuntimeError as refusal:  # some meta kernels refuse what the kernels of a device accept
            try:
                out = self._on_zeros(args, kwargs)
            except Exception:
                raise refusal from None
        return out, True

    def _few_steps(self, args: list[Any]) -> Any:
        """Results of a recurrent layer on an input [steps, n, c], or [n, steps, c] where its last argument says so."""
        axis = 1 if args[-1] else 0
        steps = args[0].shape[axis]
        few = min(steps, _STEPS)
        first, *states = self._func(args[0].narrow(axis, 0, few), *args[1:])
        size, step = list(first.shape), first.stride()
        size[axis] = steps
        stride = [s * steps // few if s > step[axis] else s for s in step]  # of an axis outside the steps
        return (torch.empty_strided(size, stride, dtype=first.dtype, device="meta"), *states)

    def stand_in(self, tensor: Any) -> torch.Tensor | None:
        """The tensor that stood for an argument; None for one inside a packed object."""
        return self._made.get(id(tensor))

    def _on_zeros(self, args: Any, kwargs: Any) -> Any:
        self._made.clear()
        zeros = self._replace(args, self._zeros)
        placed = self._place(kwargs, "cpu", self._zeros)
        if sum(t.numel() for t in self._made.values()) > _ZEROS_LIMIT:
            raise NotImplementedError(f"{self._call.name} has no meta kernel and its arguments are too large to run it")
        self.note = "it has no meta kernel; its result's shape was found by running it on zeros"
        return self._func(*zeros, **placed)

    def _forms(self, args: Any) -> list[Form]:
        return [self._form(a) for a in args if isinstance(a, (Shadow, Weight))]

    def _replace(self, args: Any, make: Callable[[Any], torch.Tensor]) -> Any:
        mask = self._call.kind in ("index", "_unsafe_index", "index_put", "_index_put_impl")
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

    def _place(self, kwargs: Any, device: str, make: Callable[[Any], torch.Tensor] | None = None) -> dict[str, Any]:
        out = {
            k: self._replace((v,), make or self._meta)[0]
            for k, v in kwargs.items()
            if k not in ("pin_memory", "generator")
        }
        if "device" in out or (not self._made and "device" in self._call.arguments):
            out["device"] = torch.device(device)
        return out

    def _meta(self, arg: Any) -> torch.Tensor:
        form = self._form(arg)
        return self._keep(arg, lambda: torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device="meta"))

    def _mixed(self, arg: Any) -> torch.Tensor:
        whole = self._form(arg).dtype in (torch.int64, torch.int32)  # lengths, repeats
        known = arg.known if whole and arg.memory.valid else None
        return self._keep(arg, lambda: known) if known is not None else self._meta(arg)

    def _zeros(self, arg: Any) -> torch.Tensor:
        form = self._form(arg)
        return self._keep(arg, lambda: _zeros(form))

    def _keep(self, arg: Any, make: Callable[[], Any]) -> torch.Tensor:
        found = self._made.get(id(arg))
        if found is None:
            found = self._made[id(arg)] = make()
        return found


def _unmask(indices: Sequence[Any]) -> list[Any]:
    """Boolean masks as the integer indices they stand for, if everything is selected."""
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


# Result by kind where all is nonzero, kept and equal, from the forms of the tensor arguments.
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
    "_nested_tensor_from_mask_left_aligned": lambda f: None,  # no: padding is counted as tokens are
    "unique_dim": lambda f: (_like(f[0], *f[0].shape), _index(*f[0].shape), _index(1)),
}


def real_form(tensor: torch.Tensor) -> Form:
    """Form of a probed result."""
    form = form_of(tensor)
    return form if tensor.layout is torch.strided else Form(form.shape, contiguous(form.shape), form.dtype)
