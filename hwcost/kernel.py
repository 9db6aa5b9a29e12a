"""A kernel: what a runtime launches, one op or several fused, described without any torch module.

The description is complete: work and traffic follow from it by the rules, so a measurement file
written on another machine can be read by itself. `to_json` and `from_json` are its file form, and
`digest` its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hwcost.cost import Cost
from hwcost.graph import OpSpec, Param, TensorSpec
from hwcost.rules import cost_of


class KernelError(ValueError):
    """A kernel description that cannot be read."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch. The first op gives it its kind; tensors between its ops are `internal`."""

    ops: tuple[OpSpec, ...]

    def __post_init__(self) -> None:
        if not self.ops:
            raise KernelError("a kernel must hold at least one op, but got none")

    @property
    def name(self) -> str:
        """Kinds of its ops, "conv2d+relu"."""
        return "+".join(op.kind for op in self.ops)

    @property
    def kind(self) -> str:
        """Kind of the op that dominates: the one with most macs, or else the first."""
        return max(self.ops, key=lambda op: cost_of(op)[0].macs).kind

    @property
    def dtype(self) -> str:
        """Dtype of the first floating-point input, or of the first output."""
        tensors = [t for op in self.ops for t in (*op.inputs, *op.outputs)]
        return next((t.dtype for t in tensors if "float" in t.dtype), tensors[0].dtype if tensors else "float32")

    @property
    def cost(self) -> Cost:
        """Work and traffic; tensors that stay inside cause none."""
        return kernel_cost(self)

    @property
    def digest(self) -> str:
        """Identity of the description: equal kernels have equal digests on every machine."""
        return kernel_digest(self)

    def to_json(self) -> str:
        """Canonical JSON: the same kernel always gives the same text."""
        return json.dumps([_op_out(op) for op in self.ops], separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Kernel:
        """Read `to_json`'s text.

        Raises:
            KernelError: the text is no kernel description; the message says where.
        """
        try:
            return cls(tuple(_op_in(op) for op in json.loads(text)))
        except KernelError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise KernelError(
                f"a kernel is a JSON list of ops with kind, inputs and outputs, but got {text[:80]!r} ({error})"
            ) from error


@lru_cache(maxsize=200_000)
def kernel_cost(kernel: Kernel) -> Cost:
    """Cost of a kernel, remembered."""
    return sum((cost_of(op)[0] for op in kernel.ops), Cost())


@lru_cache(maxsize=200_000)
def kernel_digest(kernel: Kernel) -> str:
    """First 20 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(kernel.to_json().encode()).hexdigest()[:20]


def _op_out(op: OpSpec) -> dict[str, Any]:
    out: dict[str, Any] = {
        "kind": op.kind,
        "in": [_tensor_out(t) for t in op.inputs],
        "out": [_tensor_out(t) for t in op.outputs],
    }
    if op.params:
        out["params"] = dict(op.params)
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
    return tuple(TensorSpec(**{**t, "shape": tuple(t["shape"])}) for t in data)


def _param(value: Any) -> Param:
    return tuple(_param(v) for v in value) if isinstance(value, list) else value
