"""The tensors of a traced forward, which have shape, strides, dtype and device, but no data."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from hwcost.graph import Life
from hwcost.tracing.form import Form


class NeedsValue(RuntimeError):
    """A forward read a value that does not follow from constants, parameters and integer inputs."""


class Memory:
    """One storage. All views of it refer to this object, so Python destroys it with the last of them.

    It then appends its `Life` to `dead`, from op number `born` to the op that is the last of `ops` at that time. The
    storage of a weight is held throughout, and has none.
    """

    __slots__ = ("__weakref__", "born", "bytes", "dead", "normal", "ops", "valid", "weight")

    def __init__(self, size: int, born: int, dead: list[Life], ops: list[Any], *, weight: bool = False) -> None:
        self.bytes, self.born, self.dead, self.ops, self.weight = size, born, dead, ops, weight
        self.valid = True  # whether known values are still those in it: False once something unknown was written
        self.normal = False  # whether it holds a tensor that was made outside inference mode

    def __del__(self) -> None:
        if not self.weight:
            self.dead.append(Life(self.bytes, self.born, max(len(self.ops) - 1, self.born)))


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

    __slots__ = ("known", "memory", "number", "tag", "tensor")

    def __init__(self, tensor: torch.Tensor, memory: Memory, number: int, tag: int, known: torch.Tensor | None) -> None:
        self.tensor, self.memory, self.number, self.tag, self.known = tensor, memory, number, tag, known


_make = torch.Tensor._make_wrapper_subclass


def make_shadow(
    form: Form, device: torch.device, memory: Memory, number: int, tag: int, known: torch.Tensor | None = None
) -> Shadow:
    """A new shadow of the given form and device."""
    shadow: Shadow = _make(Shadow, form.shape, strides=form.stride, dtype=form.dtype, device=device)
    shadow.memory, shadow.number, shadow.tag, shadow.known = memory, number, tag, known
    return shadow


def form_of(tensor: torch.Tensor) -> Form:
    """Form of a real tensor; a tensor without strides (sparse, packed) counts as contiguous."""
    shape = tuple(tensor.shape)
    try:
        return Form(shape, tensor.stride(), tensor.dtype)
    except RuntimeError:
        return Form(shape, torch.empty(shape, device="meta").stride(), tensor.dtype)


def memory_of(tensor: torch.Tensor) -> tuple[int, int]:
    """(identity, bytes) of the storage behind a real tensor."""
    try:
        storage = tensor.untyped_storage()
        return storage._cdata, storage.nbytes()
    except (RuntimeError, NotImplementedError):
        return id(tensor), tensor.numel() * tensor.element_size()
