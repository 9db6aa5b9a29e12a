"""Runtimes that run op by op: every op that is not free is a kernel of its own; nothing folds, nothing fuses."""

from __future__ import annotations

from collections.abc import Sequence

from hwcost.graph import Graph, Op
from hwcost.kernel import Kernel
from hwcost.runtimes.base import Network, Placed, Runtime
from hwcost.runtimes.reuse import Bytes, Reuse


class OpByOp(Runtime):
    """A runtime that fuses nothing.

    Latency tables need not lower block by block for it: `step` gives the reuse distances of many blocks at once.
    """

    one_kernel_an_op = True

    def kernel_of(self, op: Op) -> Kernel:
        """The kernel that runs an op."""
        return Kernel((op.spec,))

    def calls_of(self, ops: Sequence[Op]) -> int:
        """Calls that running these ops takes, as in `Network.calls`."""
        return len(ops)

    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """One kernel for every op that is not free, whatever stands beside it."""
        reuse, placed = Reuse(graph.input_values, graph.since), list[Placed]()
        for op in graph.ops:
            distance = step(reuse, op, [t.bytes for t in op.spec.inputs], op.cost.bytes)
            if op.state != "free":
                placed.append(Placed(self.kernel_of(op), op.module, distance))
        return Network(tuple(placed), self.calls_of(graph.ops), self.name)


def step(reuse: Reuse[Bytes], op: Op, sizes: Sequence[Bytes], moves: Bytes) -> Bytes:
    """Move `reuse` on by an op, which runs as a kernel, or makes views of its first input where it is free.

    Args:
        reuse: after the ops before this one.
        op: the op. Of many networks that differ in their sizes alone, that of any of them.
        sizes: of its inputs (byte), in their order.
        moves: its compulsory traffic (byte).

    Returns:
        Its reuse distance (byte), see `Reuse.step`; -1 for an op that makes views.
    """
    if op.state == "free" and op.reads:
        reuse.view(op.reads[0], op.writes)
        return reuse.step((), moves, ())
    tensors = zip(op.reads, op.spec.inputs, sizes, strict=True)
    return reuse.step([(value, size) for value, t, size in tensors if not t.weight], moves, op.writes)
