"""Rules: from the description of an op to its work. Rules know shapes; they know no engine.

    @rule("my_lib.my_op")
    def my_op(op: OpSpec) -> Work:        # [n] = my_op([n], [n])
        return Work(macs=op.outputs[0].numel)

An op is in one of three states: it has a rule; it is *free*, listed with the reason; or it is
unknown, and then it is reported by name, its bytes are counted and nothing is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import TypeVar

from hwcost.cost import Cost
from hwcost.graph import ITEMSIZE, OpSpec, State, TensorSpec

FAMILIES = (
    "convolution", "matmul", "attention", "normalisation", "pointwise", "pooling", "indexing", "recurrent", "fourier",
    "vision", "loss", "free_ops",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a rule returns.

    Traffic follows from the tensors themselves; `touched` overrides the number of elements read of
    an input (by argument name) where an op does not read all of it, as an embedding does not.
    `workspace` is what the op allocates and releases while it runs (byte).
    """

    macs: int = 0
    other_flops: int = 0
    touched: Mapping[str, int] = field(default_factory=dict)
    workspace: int = 0


_NOTHING = Work()

Rule = Callable[[OpSpec], Work]
R = TypeVar("R", bound=Rule)

_RULES: dict[str, Rule] = {}
_FREE: dict[str, str] = {}


class RuleError(ValueError):
    """A rule that cannot be registered, or a kind without one."""


def rule(*kinds: str) -> Callable[[R], R]:
    """Register a function as the rule of the given op kinds.

    Raises:
        RuleError: a kind has a rule already, or is listed as free.
    """

    def register(function: R) -> R:
        for kind in kinds:
            _claim(kind)
            _RULES[kind] = function
        _changed()
        return function

    return register


def free(reason: str, *kinds: str) -> None:
    """List op kinds as free, with the reason that `Op.reason` will give."""
    for kind in kinds:
        _claim(kind)
        _FREE[kind] = reason
    _changed()


def _claim(kind: str) -> None:
    _load()
    taken = _RULES.get(kind) or _FREE.get(kind)
    if taken is not None:
        where = taken if isinstance(taken, str) else f"{taken.__module__}.{taken.__qualname__}"
        raise RuleError(f"a kind has one rule, but {kind!r} is taken already ({where})")


_revision = 0


def _changed() -> None:
    """What was concluded from the rules so far no longer holds."""
    global _revision
    _revision += 1
    cost_of.cache_clear()


def revision() -> int:
    """A number that changes with the rules: what was concluded under another one must be forgotten."""
    _load()
    return _revision


_loading = False


def _load() -> None:
    """Import the rule files on first use; they register themselves."""
    global _loading
    if _loading:
        return
    _loading = True
    for family in FAMILIES:
        import_module(f"hwcost.rules.{family}")


def known_kinds() -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Kinds that have a rule, and free kinds with their reason."""
    _load()
    return tuple(sorted(_RULES)), dict(_FREE)


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the rules say of a described op."""

    cost: Cost
    state: State
    reason: str  # why it is free, or unknown
    workspace: int  # bytes held besides inputs and outputs while it runs


def assess(op: OpSpec) -> Assessment:
    """Apply the rule of a described op, without remembering it."""
    _load()
    if op.kind in _FREE:
        return Assessment(Cost(), "free", _FREE[op.kind], 0)
    found = _RULES.get(op.kind)
    work = found(op) if found else _NOTHING
    weights = activations = written = 0
    for t in op.inputs:
        if not (t.internal or t.repeat):
            touched = _touched(t, work.touched) * ITEMSIZE[t.dtype]
            if t.weight:
                weights += touched
            else:
                activations += touched
    for t in op.outputs:
        if not (t.internal or t.repeat):
            written += t.bytes
    cost = Cost(
        macs=work.macs,
        other_flops=work.other_flops,
        bytes_weights=weights,
        bytes_activations=activations,
        bytes_written=written,
    )
    if found:
        return Assessment(cost, "costed", "", work.workspace)
    return Assessment(cost, "unknown", f"no cost rule for {op.kind}", 0)


@lru_cache(maxsize=200_000)
def cost_of(op: OpSpec) -> tuple[Cost, State, str]:
    """Cost of a described op, its state, and the reason where it is free or unknown; remembered."""
    found = assess(op)
    return found.cost, found.state, found.reason


def _touched(tensor: TensorSpec, touched: Mapping[str, int]) -> int:
    return min(tensor.elements, touched.get(tensor.name, tensor.elements))
