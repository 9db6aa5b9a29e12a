"""Cost rules: functions from the description of an op to its work. A rule sees shapes and parameters, and no torch.

    # [n] = my_op([n], [n])
    @rule("my_lib.my_op")
    def my_op(op: OpSpec) -> Work:
        return Work(macs=op.outputs[0].numel)

An op is in one of three states: it has a rule ("costed"); it is listed as free, with the reason ("free"); or neither
("unknown"), and then it is reported by name, the bytes of its tensors are counted, and no macs or flops are.

The rules are the modules of this folder, each a family of ops. Those of other packages are the entry points of the
group "hwcost.rules" and the files that the environment variable HWCOST_EXTENSIONS names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from hwcost.cost import Cost
from hwcost.extensions import load
from hwcost.graph import ITEMSIZE, OpSpec, State, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a rule returns.

    Traffic needs no rule: an op reads every element of its inputs and writes every element of its outputs. For an input
    that is read in part, as the table of an embedding, `touched` gives the number of elements read, by argument name.
    """

    macs: int = 0  # multiply-adds
    other_flops: int = 0  # every other arithmetic operation
    touched: Mapping[str, int] = field(default_factory=dict)
    workspace: int = 0  # bytes that the op allocates and frees while it runs


_NOTHING = Work()

Rule = Callable[[OpSpec], Work]
R = TypeVar("R", bound=Rule)

_RULES: dict[str, Rule] = {}
_FREE: dict[str, str] = {}


class RuleError(ValueError):
    """A kind of op that cannot be registered, since it has a rule already or is listed as free."""


def rule(*kinds: str) -> Callable[[R], R]:
    """Decorator that registers a function as the rule of the given op kinds.

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
    """List op kinds as free, with the reason that `Op.reason` will give.

    Raises:
        RuleError: a kind has a rule already, or is listed as free.
    """
    for kind in kinds:
        _claim(kind)
        _FREE[kind] = reason
    _changed()


def _claim(kind: str) -> None:
    load("hwcost.rules")
    taken = _RULES.get(kind) or _FREE.get(kind)
    if taken is not None:
        where = taken if isinstance(taken, str) else f"{taken.__module__}.{taken.__qualname__}"
        raise RuleError(f"a kind has one rule, but {kind!r} is taken already ({where})")


_revision = 0


def _changed() -> None:
    """Forget the costs that were computed under the rules so far."""
    global _revision
    _revision += 1
    cost_of.cache_clear()


def revision() -> int:
    """How often rules were added. Whoever keeps costs forgets them when this number changes."""
    load("hwcost.rules")
    return _revision


def known_kinds() -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The kinds that have a rule, sorted, and the free kinds with the reason of each."""
    load("hwcost.rules")
    return tuple(sorted(_RULES)), dict(_FREE)


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the rules give for one op."""

    cost: Cost
    state: State
    reason: str  # why it is free, or unknown; "" for an op that is costed
    workspace: int  # bytes that the op allocates and frees while it runs


def assess(op: OpSpec) -> Assessment:
    """Apply the rule of an op; the result is not cached."""
    load("hwcost.rules")
    if op.kind in _FREE:
        return Assessment(Cost(), "free", _FREE[op.kind], 0)
    found = _RULES.get(op.kind)
    work = found(op) if found else _NOTHING
    weights = activations = written = 0
    for t in op.inputs:
        if not (t.internal or t.repeat):
            read = _elements_read(t, work.touched) * ITEMSIZE[t.dtype]
            if t.weight:
                weights += read
            else:
                activations += read
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
    """Cost of an op, its state, and the reason where it is free or unknown; cached."""
    found = assess(op)
    return found.cost, found.state, found.reason


def _elements_read(tensor: TensorSpec, touched: Mapping[str, int]) -> int:
    """Elements read of an input: all distinct ones, or the number that the rule gives where that is less."""
    return min(tensor.elements, touched.get(tensor.name, tensor.elements))
