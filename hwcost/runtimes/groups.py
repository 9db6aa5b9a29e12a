"""Groups of traced ops that run as one kernel, and the network that they make.

A compiler decides which ops go together. The rest is the same for every compiler: a tensor that is only read inside the
group that writes it causes no traffic. Copies that the compiler adds, of an activation or a weight into another layout,
are ops of kind "clone".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hwcost.graph import Graph, OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.runtimes.base import Network, Placed
from hwcost.runtimes.reuse import Reuse


@dataclass(frozen=True, slots=True)
class Copy:
    """A tensor that is copied into another layout: what an op reads, or, at the end of a network, what an op wrote."""

    op: int  # number of that op in the graph
    shape: tuple[int, ...]
    dtype: str = "float32"
    weight: bool = False

    @property
    def spec(self) -> OpSpec:
        """The copy as an op."""
        source = TensorSpec("self", self.shape, self.dtype, weight=self.weight)
        return OpSpec("clone", (source,), (TensorSpec("out", self.shape, self.dtype),))


@dataclass(slots=True)
class Group:
    """What becomes one kernel: ops of a graph, by their numbers in it, and copies."""

    ops: list[int] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)


def network_of(groups: Sequence[Group], graph: Graph, runtime: str) -> Network:
    """The network of groups in the order they run; empty groups are left out.

    Args:
        groups: of ops of the graph.
        graph: what the numbers of ops in the groups refer to.
        runtime: its name.
    """
    flow, reuse = Flow(graph), Reuse(graph.input_values, graph.since)
    placed: list[Placed] = []
    for group in groups:
        if group.ops or group.copies:
            kernel = flow.kernel(group)
            writes = [flow.origin[v] for i in group.ops for v in graph.ops[i].writes]
            distance = reuse.step(flow.reads(group), kernel.cost.bytes, writes)
            placed.append(Placed(kernel, flow.module(group), distance))
    return Network(tuple(placed), len(placed), runtime)


class Flow:
    """Which ops read each value of a graph. A view is no value of its own here: reading it reads what it is a view of.

    `origin` maps each value to the one whose memory it is a view of, or to itself; `readers` maps such an origin to the
    numbers of the ops that read it; `outputs` are the origins of the outputs of the graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.origin: dict[int, int] = {v: v for v in graph.input_values}
        self.readers: defaultdict[int, set[int]] = defaultdict(set)
        for number, op in enumerate(graph.ops):
            view = op.state == "free" and op.reads
            for value in op.reads:
                self.origin.setdefault(value, value)
                if not view:
                    self.readers[self.origin[value]].add(number)
            for value in op.writes:
                self.origin[value] = self.origin[op.reads[0]] if view else value
        self.outputs = {self.origin.get(v, v) for v in graph.output_values}

    def kernel(self, group: Group) -> Kernel:
        """The kernel of a group: its ops in the order of the graph, then its copies."""
        inside = set(group.ops)
        made = {v for i in inside for v in self.graph.ops[i].writes}
        specs = [self._spec(i, inside, made) for i in sorted(inside)]
        copies = sorted(group.copies, key=lambda c: (c.shape, c.dtype, c.weight))
        return Kernel((*specs, *(c.spec for c in copies)))

    def _spec(self, number: int, inside: set[int], made: set[int]) -> OpSpec:
        op = self.graph.ops[number]
        inputs = tuple(
            replace(t, internal=True) if self.origin[v] in made else t
            for t, v in zip(op.spec.inputs, op.reads, strict=True)
        )
        outputs = tuple(
            replace(t, internal=True) if self._stays(self.origin[v], inside) else t
            for t, v in zip(op.spec.outputs, op.writes, strict=True)
        )
        return replace(op.spec, inputs=inputs, outputs=outputs)

    def _stays(self, value: int, inside: set[int]) -> bool:
        """Whether only ops of the group `inside` read a value, and no output of the graph needs it."""
        readers = self.readers[value]
        return bool(readers) and value not in self.outputs and readers <= inside

    def reads(self, group: Group) -> list[tuple[int, int]]:
        """The activations that a group reads from memory, each with its size (byte).

        Of a copy these are the activations that its op reads, all of them, even where it copies a weight or what that
        op wrote.
        """
        inside = {*group.ops, *(c.op for c in group.copies)}
        made = {v for i in group.ops for v in self.graph.ops[i].writes}
        return [
            (self.origin[v], t.bytes)
            for i in sorted(inside)
            for t, v in zip(self.graph.ops[i].spec.inputs, self.graph.ops[i].reads, strict=True)
            if not t.weight and self.origin[v] not in made
        ]

    def module(self, group: Group) -> str:
        """Path of the module that calls the op with most macs in a group, the first where several have as many."""
        ops = [self.graph.ops[i] for i in sorted(group.ops or [c.op for c in group.copies])]
        return max(ops, key=lambda op: op.cost.macs).module
