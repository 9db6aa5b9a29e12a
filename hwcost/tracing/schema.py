"""What torch's schema of an operator overload tells, read once for each overload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import torch

from hwcost.graph import Param

# Arguments that say where a result is made, or how. They are no parameters of the op: its cost is the same.
_NO_PARAMS = ("device", "layout", "pin_memory", "generator", "non_blocking")
_READERS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose")  # kinds that return a number
_RANDOM = (
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "uniform", "bernoulli",
    "multinomial", "exponential", "random", "native_dropout", "cauchy", "log_normal", "geometric", "poisson",
)  # fmt: skip
_SIZED_BY_VALUES = (
    "nonzero", "nonzero_numpy", "argwhere", "masked_select", "unique", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "torchvision.nms", "repeat_interleave", "_pack_padded_sequence",
    "_pad_packed_sequence", "histc", "one_hot", "_nested_tensor_from_mask_left_aligned",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Overload:
    """What holds for every call of an overload."""

    name: str  # "aten.conv2d.default"
    kind: str  # "conv2d": without the overload's name and the "_" of an in-place op
    arguments: tuple[str, ...]  # names, in order
    defaults: Mapping[str, Param]
    mutated: tuple[str, ...]  # arguments that it writes into
    returns: int  # number of results
    changes_form: bool  # it changes the shape of its argument in place, as squeeze_ does
    reads_values: bool  # it returns a number
    sized_by_values: bool  # the size of its result depends on values, as that of nonzero
    random: bool
    annotates: bool  # it marks a section of the forward for a profiler, and computes nothing


@cache
def overload_of(func: Any) -> Overload:
    """What holds for every call of `func`, a torch OpOverload."""
    schema = func._schema
    kind = _kind(schema.name)
    arguments = schema.arguments
    mutated = tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    defaults = {a.name: _plain(a.default_value) for a in arguments if a.has_default_value()}
    is_nonzero = str(func) == "aten.where.default"  # `torch.where(condition)` without operands, as nonzero
    return Overload(
        name=str(func),
        kind=kind,
        arguments=tuple(a.name for a in arguments),
        defaults=defaults,
        mutated=mutated,
        returns=len(schema.returns),
        changes_form=torch.Tag.inplace_view in func.tags,
        reads_values=kind in _READERS,
        sized_by_values=kind in _SIZED_BY_VALUES or is_nonzero,
        random=kind in _RANDOM,
        annotates=kind.startswith("profiler."),
    )


def _kind(name: str) -> str:
    """The kind of op of a schema name: "conv2d" of "aten::conv2d", "relu" of "aten::relu_", "lib.op" of "lib::op"."""
    space, _, base = name.partition("::")
    base = base[:-1] if base.endswith("_") and not base.endswith("__") else base
    return base if space == "aten" else f"{space}.{base}"


def bind(
    overload: Overload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[str], tuple[tuple[str, Param], ...]]:
    """The arguments of a call by name.

    Returns:
        The name of the argument that each tensor belongs to, in order (a list of three tensors gives its name three
        times), and the other arguments as (name, value), sorted by name, without those that have their default value.
    """
    named: list[str] = []
    params: list[tuple[str, Param]] = []
    for name, value in (*zip(overload.arguments, args, strict=False), *kwargs.items()):
        if isinstance(value, torch.Tensor):
            named.append(name)
        elif isinstance(value, torch.ScriptObject):
            named += [each for each, _ in packed_tensors(value)]
            params += _settings(value)
        elif isinstance(value, (list, tuple)) and any(isinstance(v, torch.ScriptObject) for v in value):
            named += [each for packed in value for each, _ in packed_tensors(packed)]
        elif isinstance(value, (list, tuple)) and (tensors := _count_tensors(value)):
            named += [name] * tensors
        elif name not in _NO_PARAMS:
            plain = _plain(value)
            if name not in overload.defaults or overload.defaults[name] != plain:
                params.append((name, plain))
    return named, tuple(sorted(params, key=itemgetter(0)))


def packed_tensors(packed: Any) -> list[tuple[str, torch.Tensor]]:
    """(name, tensor) of the weight and bias inside a quantised layer's packed parameters.

    Those of a recurrent layer are all its weights, then all its biases, each named "params".
    """
    if "rnn.CellParamsBase" in str(packed._type()):
        _, biases, _, _, products = packed.__getstate__()[0]
        pairs = [product.unpack() for product in products]
        biases = biases or [bias for _, bias in pairs if bias is not None]
        weights = [_as_packed(weight) for weight, _ in pairs]
        return [("params", tensor) for tensor in (*weights, *biases)]
    pair = packed.unpack() if hasattr(packed, "unpack") else (None, None)
    weight, bias = pair if isinstance(pair, tuple) else (pair, None)  # an embedding has no bias
    named = (("weight", _as_packed(weight)), ("bias", bias))
    return [(name, tensor) for name, tensor in named if isinstance(tensor, torch.Tensor)]


def _as_packed(weight: torch.Tensor | None) -> torch.Tensor | None:
    """A weight in the dtype in which it is packed. Unpacking turns half precision into single precision."""
    return weight.half() if weight is not None and weight.dtype is torch.float32 else weight


def _settings(packed: Any) -> list[tuple[str, Param]]:
    """Stride, padding, dilation and groups of a packed convolution; nothing for other layers."""
    return [
        (name, _plain(getattr(packed, name)()))
        for name in ("stride", "padding", "dilation", "groups")
        if hasattr(packed, name)
    ]


def _count_tensors(args: Sequence[Any]) -> int:
    """Number of tensors in nested lists."""
    if all(type(a) is int for a in args):  # sizes, most of the time
        return 0
    return sum(isinstance(a, torch.Tensor) or (isinstance(a, (list, tuple)) and _count_tensors(a)) for a in args)


def _plain(value: Any) -> Param:
    """An argument as a parameter of an op: dtypes and other objects of torch by their names."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return str(value).removeprefix("torch.")
