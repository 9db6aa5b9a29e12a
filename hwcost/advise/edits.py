"""Edits: the traced graph of a network as it would be with one thing changed.

An edit is made from the graph of the network by replacing ops. Ops that an edit adds get their cost by the same rules
as any other (`hwcost.rules`). Nothing here knows a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from hwcost.graph import Graph, Op, OpSpec, TensorSpec
from hwcost.rules.registry import cost_of

Replacements = Mapping[int, Sequence[Op]]  # by the index of an op in `Graph.ops`, the ops that take its place


@dataclass(frozen=True)
class Edit:
    """A changed graph."""

    change: str  # what was changed, for a person
    where: tuple[str, ...]  # module paths
    graph: Graph
    same: bool = False  # the changed network computes what the network did, so that no training is needed
    times: int = 1  # inputs that the changed network takes at once for one of the original; its time is divided by it


def remake(op: Op, spec: OpSpec, reads: tuple[int, ...] | None = None, writes: tuple[int, ...] | None = None) -> Op:
    """An op that takes the place of `op`, in the same module; it reads and writes the same values by default."""
    cost, state, reason = cost_of(spec)
    reads = op.reads if reads is None else reads
    writes = op.writes if writes is None else writes
    return Op(f"aten.{spec.kind}.default", spec, op.module, reads, writes, cost, state, reason)


def reshape(tensor: TensorSpec, *shape: int) -> TensorSpec:
    """The same tensor in another shape, dense."""
    return replace(tensor, shape=shape, overlapping=0)


def rewrite(graph: Graph, changed: Replacements) -> Graph:
    """The graph with some of its ops replaced, each by none, one or several."""
    ops = tuple(new for i, op in enumerate(graph.ops) for new in changed.get(i, (op,)))
    return replace(graph, ops=ops)


def unused_values(graph: Graph) -> Iterator[int]:
    """Numbers that no value of the graph has, without end, for the values that added ops write."""
    return count(1 + max((v for op in graph.ops for v in (*op.reads, *op.writes)), default=0))


def together(graph: Graph, change: Callable[[int, Op], tuple[str, Replacements] | None]) -> Iterator[Edit]:
    """One edit for each group of ops that are equal, so that equal layers are changed together.

    Args:
        graph: of the network.
        change: for an op and its index, what the change is called and the ops that it replaces; None where the op
            does not allow it.
    """
    groups: dict[tuple[str, OpSpec], list[tuple[str, Replacements]]] = {}
    for i, op in enumerate(graph.ops):
        found = change(i, op)
        if found is not None:
            text, replacements = found
            groups.setdefault((text, op.spec), []).append((op.module, replacements))
    for (text, _), members in groups.items():
        merged: dict[int, Sequence[Op]] = {}
        for _, replacements in members:
            merged.update(replacements)
        yield Edit(text, tuple(module for module, _ in members), rewrite(graph, merged))
