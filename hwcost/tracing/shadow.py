"""The tensors of a traced forward, which have shape, strides, dtype and device, but no data."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NoReturn

import torch

from hwcost.tracing.form import Form, NotFollowed, Stored, contiguous

GARBAGE = sys.maxsize - 1  # in place of the same number, for a memory that was freed with garbage
ALIVE = sys.maxsize  # in place of the number of the op during which a memory was let go


class NeedsValue(RuntimeError):
    """A forward read a value that does not follow from constants, parameters and integer inputs."""


class SetsData(RuntimeError):
    """A forward assigns to `data` of a tensor that is the user's."""


class WritesWeights(RuntimeError):
    """A forward that is computed writes into a parameter, which belongs to the user."""


class Memory:
    """One storage. All views of it refer to this object, so Python destroys it with the last of them.

    It adds itself to `lives` as [bytes, born, dies], from op number `born` on. Where it is destroyed, `dies` becomes
    the number of the op that is the last of `ops` at that time; until then it is `ALIVE`. The storage of a weight is
    held throughout, and adds nothing.
    """

    __slots__ = ("__weakref__", "bytes", "life", "normal", "ops", "valid", "weight")

    def __init__(self, size: int, born: int, lives: list[list[int]], ops: list[Any], *, weight: bool = False) -> None:
        self.bytes, self.ops, self.weight = size, ops, weight
        self.valid = True  # whether known values are still those in it: False once something unknown was written
        self.normal = False  # whether it holds a tensor that was made outside inference mode
        self.life = [size, born, ALIVE]
        if not weight:
            lives.append(self.life)

    def __del__(self) -> None:
        by_chance = _collecting.get(get_ident())  # then the forward did not let go of it
        self.life[2] = GARBAGE if by_chance else max(len(self.ops) - 1, self.life[1])


_collecting: dict[int, bool] = {}  # by thread that collects garbage now: whether that is by chance


@contextmanager
def counting_collections(*, as_let_go: bool = False) -> Iterator[None]:
    """A context in which memories that a collection of garbage frees count as held to the end of the forward.

    Python collects at times that depend on the rest of the process, and in any thread. With `as_let_go`, collections of
    this thread count as if the forward let the memories go.
    """
    if as_let_go:
        _collecting[get_ident()] = False
    else:
        gc.callbacks.append(_note_collection)
    try:
        yield
    finally:
        if as_let_go:
            _collecting.pop(get_ident(), None)
        else:
            gc.callbacks.remove(_note_collection)


def _note_collection(phase: str, _: Any) -> None:
    thread = get_ident()
    if phase == "start":
        _collecting.setdefault(thread, True)
    elif _collecting.get(thread):
        del _collecting[thread]


class Shadow(torch.Tensor):
    """A tensor without data, on the device of the module that is traced."""

    memory: Memory  # shared with its views
    number: int  # of the value in the graph
    tag: int  # the number of its form and role (weight or activation), see `signatures.Tags`
    known: torch.Tensor | None  # its value, where constants, parameters and integer inputs determine it
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    _is_param: bool  # by which nn.Parameter recognises a parameter

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:  # type: ignore[override]
        raise RuntimeError(f"{func} got a tensor without data, which lives inside hwcost.trace only")

    def tolist(self) -> Any:
        """The values as a list, where they are known."""
        with torch._C._DisableTorchDispatch():  # else the recorder would turn the result into a shadow
            return self._read("tolist").tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """The values as an array, where they are known."""
        with torch._C._DisableTorchDispatch():
            return self._read("numpy").numpy(force=force)

    def __array__(self, dtype: Any = None) -> Any:
        with torch._C._DisableTorchDispatch():
            return self._read("numpy").__array__(dtype)

    def __format__(self, spec: str) -> str:
        """A single value as a number, as torch formats it; some networks make names of submodules that way."""
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def _read(self, who: str) -> torch.Tensor:
        if self.known is None or not self.memory.valid:
            raise NeedsValue(f"{who} reads values of a tensor of shape {tuple(self.shape)}")
        return self.known

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Shadow(shape={tuple(self.shape)}, dtype={self.dtype})"


class Weight:
    """A parameter, buffer or constant met in a trace, with the same fields as a `Shadow`."""

    __slots__ = ("known", "mark", "memory", "number", "tag", "tensor")

    def __init__(
        self,
        tensor: torch.Tensor,
        memory: Memory,
        number: int,
        tag: int,
        known: torch.Tensor | None,
        mark: Mark | None = None,
    ) -> None:
        self.tensor, self.memory, self.number, self.tag, self.known = tensor, memory, number, tag, known
        self.mark = mark  # of a real tensor that was made in the trace


class Mark:
    """The attribute `_hwcost` of a real tensor that a trace made, until the trace ends."""

    __slots__ = ("memory", "number", "of", "owner", "tag")

    def __init__(self, owner: Any, of: int, memory: Memory, number: int, tag: int) -> None:
        self.owner = owner  # the Recorder
        self.of = of  # id of the tensor, since a copy of it may take over its attributes
        self.memory, self.number, self.tag = memory, number, tag

    def __deepcopy__(self, _: Any) -> Mark:
        return self


def refuse_reads(tensor: torch.Tensor) -> None:
    """Have a real tensor with unknown values refuse what reads it past torch's operators."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NeedsValue("a tensor is read into which values were written that shapes alone do not determine")

    tensor.__dict__.update(tolist=refuse, numpy=refuse, __array__=refuse)


_make = torch.Tensor._make_wrapper_subclass


def make_shadow(
    form: Form, device: torch.device, memory: Memory, number: int, tag: int, known: torch.Tensor | None = None
) -> Shadow:
    """A new shadow of the given form and device."""
    if form.stored and form.stored.layout == "sparse_coo":  # torch can make no such tensor of another sparse layout
        shadow: Shadow = _make(Shadow, form.shape, dtype=form.dtype, device=device, layout=torch.sparse_coo)
    else:
        shadow = _make(Shadow, form.shape, strides=form.stride, dtype=form.dtype, device=device)
    shadow.memory, shadow.number, shadow.tag, shadow.known = memory, number, tag, known
    return shadow


def form_of(tensor: torch.Tensor) -> Form:
    """Form of a real tensor; a tensor without strides (sparse, packed) counts as contiguous."""
    if tensor.is_nested:
        raise NotFollowed("hwcost follows nested tensors of layout torch.jagged, but not of torch.strided")
    shape = tuple(tensor.shape)
    if tensor.layout is torch.strided:
        return Form(shape, tensor.stride(), tensor.dtype)
    return Form(shape, contiguous(shape), tensor.dtype, _stored(tensor))


_COMPRESSED = {torch.sparse_csr: "row", torch.sparse_bsr: "row", torch.sparse_csc: "col", torch.sparse_bsc: "col"}


def parts_of(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Values and indices of a real sparse tensor; none of one that is not sparse."""
    with torch._C._DisableTorchDispatch():
        if tensor.layout is torch.sparse_coo:
            return tensor._values(), tensor._indices()
        side = _COMPRESSED.get(tensor.layout)
        if side is None:
            return ()
        if side == "row":
            return tensor.values(), tensor.crow_indices(), tensor.col_indices()
        return tensor.values(), tensor.ccol_indices(), tensor.row_indices()


def _stored(tensor: torch.Tensor) -> Stored | None:
    """What a real sparse tensor stores."""
    parts = parts_of(tensor)
    if not parts:
        return None
    values, *indices = parts
    shapes = tuple(tuple(index.shape) for index in indices)
    layout = str(tensor.layout).removeprefix("torch.")
    return Stored(layout, tuple(values.shape), shapes, indices[0].dtype)


def memory_of(tensor: torch.Tensor) -> tuple[int, int]:
    """(identity, bytes) of the storage behind a real tensor, or of the values and indices of a sparse one."""
    if parts := parts_of(tensor):
        return id(tensor), sum(part.numel() * part.element_size() for part in parts)
    try:
        storage = tensor.untyped_storage()
        return storage._cdata, storage.nbytes()
    except (RuntimeError, NotImplementedError):
        return id(tensor), tensor.numel() * tensor.element_size()
