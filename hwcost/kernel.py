"""A kernel: what a runtime launches, one op or several fused, described without any torch module.

The description is complete: work and traffic follow from it by the rules, so that a measurement file
of another machine can be read without the network that was measured. `to_json` and `from_json` write
and read a description, and `digest` is the short key that stores and tables know it by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from hwcost.cost import Cost, total
from hwcost.graph import OpSpec, Param, TensorSpec
from hwcost.rules.registry import cost_of

_WHOLE = frozenset({int})


def bucket(distance: int) -> int:
    """Number of the bucket that a reuse distance (byte) falls into.

    Buckets are powers of two: n holds distances from 2**(n - 1) to 2**n - 1. The distances 0 (just written) and -1
    (no activation is read) are buckets of their own, with these numbers.
    """
    return distance.bit_length() if distance > 0 else min(distance, 0)


class KernelError(ValueError):
    """A kernel description that cannot be read."""


@dataclass(frozen=True)
class Kernel:
    """One launch of a runtime: its ops in the order they run.

    Tensors that one of the ops hands to another are marked `internal`, and are neither written to memory nor read.
    """

    ops: tuple[OpSpec, ...]
    text_digest: str = field(default="", repr=False, compare=False, kw_only=True)  # of the canonical JSON it came from

    def __post_init__(self) -> None:
        if not self.ops:
            raise KernelError("a kernel must hold at least one op, but got none")

    @cached_property
    def _hash(self) -> int:
        """Computed once: kernels are keys of dictionaries and caches, and looked up very often."""
        return hash(self.ops)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Kernel], tuple[tuple[OpSpec, ...]]]:
        return Kernel, (self.ops,)  # a pickle leaves out what is computed from the ops

    @property
    def name(self) -> str:
        """Kinds of its ops, as in "conv2d+relu"."""
        return "+".join(op.kind for op in self.ops)

    @property
    def main(self) -> OpSpec:
        """The op with the most macs; the first one where several have as many."""
        return self.ops[0] if len(self.ops) == 1 else max(self.ops, key=lambda op: cost_of(op)[0].macs)

    @property
    def kind(self) -> str:
        """Kind of the op with the most macs."""
        return self.main.kind

    @property
    def dtype(self) -> str:
        """Dtype of the first floating-point tensor, or of the first tensor where none is; "float32" without tensors."""
        tensors = [t for op in self.ops for t in (*op.inputs, *op.outputs)]
        return next((t.dtype for t in tensors if "float" in t.dtype), tensors[0].dtype if tensors else "float32")

    @property
    def cost(self) -> Cost:
        """Work and traffic of all its ops; internal tensors cause no traffic."""
        return cost_of(self.ops[0])[0] if len(self.ops) == 1 else total(cost_of(op)[0] for op in self.ops)

    @cached_property
    def digest(self) -> str:
        """Identity of the description: equal kernels have equal digests on every machine.

        It is the first 20 hex digits of the SHA-256 of the canonical JSON. Stores and tables keep it, so what
        `to_json` returns for a kernel must never change.
        """
        return self.text_digest or digest_of(self.to_json())

    def to_json(self) -> str:
        """Canonical JSON: the same kernel always gives the same text."""
        return json.dumps([_op_out(op) for op in self.ops], separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, canonical: bool = False) -> Kernel:
        """Read a description.

        Args:
            text: a JSON list of ops.
            canonical: the text is known to be what `to_json` returns, so that its digest is that of the kernel.

        Raises:
            KernelError: the text is no kernel description; the message says where.
        """
        try:
            ops = tuple([_op_in(op) for op in json.loads(text)])
            kernel = cls(ops, text_digest=digest_of(text) if canonical else "")
            hash(kernel)  # fails on parameters that are JSON objects
            return kernel
        except KernelError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise KernelError(
                f"a kernel is a JSON list of ops with kind, inputs and outputs, but got {text[:40]!r} ({error})"
            ) from error


@lru_cache(maxsize=1 << 16)
def label(kernel: Kernel) -> str:
    """The kind of a kernel, followed by "/depthwise" or "/grouped" for such a convolution.

    A depthwise convolution has as many groups as input channels and as output channels. Runtimes compute plain,
    grouped and depthwise convolutions by different code, and each reaches another part of the peak.
    """
    op = kernel.main
    groups = op.param("groups", 1)
    if not isinstance(groups, (int, float)) or groups <= 1:
        return op.kind
    ends = (op.inputs[0].shape, op.outputs[0].shape)
    alone = all(len(shape) > 1 and groups == shape[1] for shape in ends)
    return op.kind + ("/depthwise" if alone else "/grouped")


def digest_of(canonical: str) -> str:
    """`Kernel.digest` of the kernel with this canonical JSON."""
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def _op_out(op: OpSpec) -> dict[str, Any]:
    out: dict[str, Any] = {
        "kind": op.kind,
        "in": [_tensor_out(t) for t in op.inputs],
        "out": [_tensor_out(t) for t in op.outputs],
    }
    if op.params:
        out["params"] = {name: _param_out(value) for name, value in op.params}
    return out


def _tensor_out(t: TensorSpec) -> dict[str, Any]:
    out: dict[str, Any] = {"name": t.name, "shape": list(t.shape)}
    if t.dtype != "float32":
        out["dtype"] = t.dtype
    out |= {flag: True for flag in ("weight", "internal", "repeat") if getattr(t, flag)}
    if t.layout != "contiguous":
        out["layout"] = t.layout
    if t.overlapping:
        out["elements"] = t.elements
    return out


def _op_in(data: Mapping[str, Any]) -> OpSpec:
    params = tuple(sorted((k, _param(v)) for k, v in data.get("params", {}).items()))
    return OpSpec(str(data["kind"]), _tensors(data["in"]), _tensors(data["out"]), params)


def _tensors(data: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(_tensor_in(t) for t in data)


def _tensor_in(data: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(data["shape"])  # checked before it is looked up, since 1, 1.0 and True are equal
    if not _WHOLE.issuperset(map(type, shape)) or min(shape, default=0) < 0:
        raise KernelError(f"a shape must hold whole numbers from 0 on, but got {dict(data)!r}")
    if len(data) > 2:  # more than a name and a shape
        _check_rest(data)
    return _tensor(tuple({**data, "shape": shape}.items()))


def _check_rest(data: Mapping[str, Any]) -> None:
    if type(data.get("elements", 0)) is not int:
        raise KernelError(f"elements must be a whole number, but got {dict(data)!r}")
    if not all(type(data.get(flag, False)) is bool for flag in ("weight", "internal", "repeat")):
        raise KernelError(f"weight, internal and repeat must be true or false, but got {dict(data)!r}")


@lru_cache(maxsize=1 << 16)
def _tensor(items: tuple[tuple[str, Any], ...]) -> TensorSpec:
    """The tensor of the given fields. Most are met several times, since what one kernel writes another reads."""
    fields = dict(items)
    elements = fields.pop("elements", -1)
    tensor = TensorSpec(**fields)
    return tensor if elements < 0 else replace(tensor, overlapping=tensor.numel - elements)


def _param_out(value: Param) -> Any:
    """A parameter as JSON. 1.0 is written as 1, since kernels with the one or the other are equal."""
    if isinstance(value, tuple):
        return [_param_out(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _param(value: Any) -> Param:
    return tuple(_param(v) for v in value) if isinstance(value, list) else value
