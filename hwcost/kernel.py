"""A kernel: what a runtime launches, one op or several fused, described without any torch module.

The description is complete: work and traffic follow from it by the rules, so a measurement file
written on another machine can be read by itself. `to_json` and `from_json` are its file form, and
`digest` its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hwcost.cost import Cost, total
from hwcost.graph import OpSpec, Param, TensorSpec
from hwcost.rules.registry import cost_of

_WHOLE = frozenset({int})


def bucket(distance: int) -> int:
    """Reuse distances (byte) within a factor of two are one context; 0 and -1, for none, are kept."""
    return distance.bit_length() if distance > 0 else min(distance, 0)


class KernelError(ValueError):
    """A kernel description that cannot be read."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch. The first op gives it its kind; tensors between its ops are `internal`."""

    ops: tuple[OpSpec, ...]
    _hash: int = field(init=False, repr=False, compare=False)  # kernels are looked up far more often than made
    _digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.ops:
            raise KernelError("a kernel must hold at least one op, but got none")
        object.__setattr__(self, "_hash", hash(self.ops))
        object.__setattr__(self, "_digest", "")

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Kernel], tuple[tuple[OpSpec, ...]]]:
        return Kernel, (self.ops,)  # without the hash, as of its ops

    @property
    def name(self) -> str:
        """Kinds of its ops, "conv2d+relu"."""
        return "+".join(op.kind for op in self.ops)

    @property
    def main(self) -> OpSpec:
        """The op that dominates: the one with most macs, or else the first."""
        return self.ops[0] if len(self.ops) == 1 else max(self.ops, key=lambda op: cost_of(op)[0].macs)

    @property
    def kind(self) -> str:
        """Kind of the op that dominates."""
        return self.main.kind

    @property
    def dtype(self) -> str:
        """Dtype of the first floating-point input, or of the first output."""
        tensors = [t for op in self.ops for t in (*op.inputs, *op.outputs)]
        return next((t.dtype for t in tensors if "float" in t.dtype), tensors[0].dtype if tensors else "float32")

    @property
    def cost(self) -> Cost:
        """Work and traffic; tensors that stay inside cause none."""
        return cost_of(self.ops[0])[0] if len(self.ops) == 1 else total(cost_of(op)[0] for op in self.ops)

    @property
    def digest(self) -> str:
        """Identity of the description: equal kernels have equal digests on every machine.

        First 20 hex digits of the SHA-256 of the canonical JSON. Stores and tables keep it, so that form never changes.
        """
        if not self._digest:
            object.__setattr__(self, "_digest", _digest(self.to_json()))
        return self._digest

    def to_json(self) -> str:
        """Canonical JSON: the same kernel always gives the same text."""
        return json.dumps([_op_out(op) for op in self.ops], separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, canonical: bool = False) -> Kernel:
        """Read a description; of what `to_json` wrote itself, `canonical`, the digest is known with it.

        Raises:
            KernelError: the text is no kernel description; the message says where.
        """
        try:
            kernel = cls(tuple([_op_in(op) for op in json.loads(text)]))
            if canonical:
                object.__setattr__(kernel, "_digest", _digest(text))
            return kernel
        except KernelError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise KernelError(
                f"a kernel is a JSON list of ops with kind, inputs and outputs, but got {text[:40]!r} ({error})"
            ) from error


@lru_cache(maxsize=1 << 16)
def label(kernel: Kernel) -> str:
    """The kind, told apart by what changes how an op is computed: groups, and one channel in and out of each."""
    op = kernel.main
    groups = op.param("groups", 1)
    if not isinstance(groups, (int, float)) or groups <= 1:
        return op.kind
    ends = (op.inputs[0].shape, op.outputs[0].shape)
    alone = all(len(shape) > 1 and groups == shape[1] for shape in ends)
    return op.kind + ("/depthwise" if alone else "/grouped")


def _digest(canonical: str) -> str:
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
    if t.elements != t.numel:
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
    """What one kernel writes another reads: most tensors are met several times."""
    return TensorSpec(**dict(items))


def _param_out(value: Param) -> Any:
    """1.0 is written as 1: the two are equal, so the kernels are, and so must be the text."""
    if isinstance(value, tuple):
        return [_param_out(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _param(value: Any) -> Param:
    return tuple(_param(v) for v in value) if isinstance(value, list) else value
