"""Facts about an operator overload that a trace needs at every call, read from its schema once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import torch

from hwcost.graph import Param

_PLACE = ("device", "layout", "pin_memory", "generator", "non_blocking")  # where and how, not what
_READERS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose")
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
class Call:
    """What is known of an overload before any call."""

    name: str  # "aten.conv2d.default"
    kind: str  # "conv2d": no overload, no in-place mark
    arguments: tuple[str, ...]
    defaults: Mapping[str, Param]
    mutated: tuple[str, ...]  # arguments that it writes into
    returns: int
    changes_form: bool  # an in-place view, such as squeeze_
    reads_values: bool  # answers with a number
    sized_by_values: bool
    random: bool
    annotates: bool  # marks a stretch of the forward for a profiler, does no work


@cache
def call_of(func: Any) -> Call:
    """The facts of `func`, an OpOverload."""
    schema = func._schema
    kind = _kind(schema.name)
    arguments = schema.arguments
    mutated = tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    plain = {a.name: _plain(a.default_value) for a in arguments if a.has_default_value()}
    seeing = "where" if str(func) == "aten.where.default" else ""
    return Call(
        name=str(func),
        kind=kind,
        arguments=tuple(a.name for a in arguments),
        defaults=plain,
        mutated=mutated,
        returns=len(schema.returns),
        changes_form=torch.Tag.inplace_view in func.tags,
        reads_values=kind in _READERS,
        sized_by_values=kind in _SIZED_BY_VALUES or bool(seeing),
        random=kind in _RANDOM,
        annotates=kind.startswith("profiler."),
    )


def _kind(name: str) -> str:
    """The aten name without in-place mark; ops of another library keep its name before it."""
    space, _, base = name.partition("::")
    base = base[:-1] if base.endswith("_") and not base.endswith("__") else base
    return base if space == "aten" else f"{space}.{base}"


def bind(call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[str], tuple[tuple[str, Param], ...]]:
    """Names of the tensor arguments, one each, and the other arguments that differ from their default."""
    named: list[str] = []
    params: list[tuple[str, Param]] = []
    for name, value in (*zip(call.arguments, args, strict=False), *kwargs.items()):
        if isinstance(value, torch.Tensor):
            named.append(name)
        elif isinstance(value, torch.ScriptObject):
            named += [each for each, _ in packed_tensors(value)]
            params += _settings(value)
        elif isinstance(value, (list, tuple)) and any(isinstance(v, torch.ScriptObject) for v in value):
            named += [each for packed in value for each, _ in packed_tensors(packed)]
        elif isinstance(value, (list, tuple)) and (tensors := _count_tensors(value)):
            named += [name] * tensors
        elif name not in _PLACE:
            plain = _plain(value)
            if name not in call.defaults or call.defaults[name] != plain:
                params.append((name, plain))
    return named, tuple(sorted(params, key=itemgetter(0)))


def packed_tensors(packed: Any) -> list[tuple[str, torch.Tensor]]:
    """Weight and bias of a quantised layer from its packed parameters; all of a layer of a recurrent one."""
    if "rnn.CellParamsBase" in str(packed._type()):
        _, biases, _, _, products = packed.__getstate__()[0]
        pairs = [product.unpack() for product in products]
        biases = biases or [bias for _, bias in pairs if bias is not None]
        return [("params", tensor) for tensor in (*(_held(weight) for weight, _ in pairs), *biases)]
    pair = packed.unpack() if hasattr(packed, "unpack") else (None, None)
    weight, bias = pair if isinstance(pair, tuple) else (pair, None)  # an embedding has its weight alone
    return [(name, t) for name, t in (("weight", _held(weight)), ("bias", bias)) if isinstance(t, torch.Tensor)]


def _held(weight: torch.Tensor | None) -> torch.Tensor | None:
    """A weight as it is packed: unpacking widens those of half precision."""
    return weight.half() if weight is not None and weight.dtype is torch.float32 else weight


def _settings(packed: Any) -> list[tuple[str, Param]]:
    """Stride, padding, dilation and groups of a packed convolution."""
    return [
        (name, _plain(getattr(packed, name)()))
        for name in ("stride", "padding", "dilation", "groups")
        if hasattr(packed, name)
    ]


def _count_tensors(args: Sequence[Any]) -> int:
    if all(type(a) is int for a in args):  # sizes, most of the time
        return 0
    return sum(isinstance(a, torch.Tensor) or (isinstance(a, (list, tuple)) and _count_tensors(a)) for a in args)


def _plain(value: Any) -> Param:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return str(value).removeprefix("torch.")
