"""The order of nodes in a file for ONNX Runtime, and that in which it runs them.

ONNX Runtime's optimiser leaves new nodes, such as copies between layouts, where its tables of pointers had them, so
that the same module comes out in another order each time. What moves between two kernels, and so the caches they
find, depends on it. A file in an order of its own mends that: loaded without being optimised again, its nodes are run
depth first from those that nobody reads, of what a node reads the one that comes last in the file first (`Graph::
ReverseDFSFrom` in onnxruntime/core/graph/graph.cc).

Nodes are numbers; `reads` names for each which others it reads, in the order of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Reads = Sequence[Sequence[int]]


def file_order(reads: Reads, outputs: Iterable[int]) -> list[int]:
    """Each node after what it reads, first inputs first, from the makers of the graph's outputs back."""
    return _after_inputs(reads, [*outputs, *range(len(reads))])


def run_order(reads: Reads, file: Sequence[int]) -> list[int]:
    """In which order ONNX Runtime runs the nodes of a file."""
    place = {node: number for number, node in enumerate(file)}
    read = {node for nodes in reads for node in nodes}
    last_first = [sorted(set(nodes), key=place.__getitem__, reverse=True) for nodes in reads]
    return _after_inputs(last_first, [node for node in reversed(file) if node not in read])


def _after_inputs(reads: Reads, roots: Sequence[int]) -> list[int]:
    """Depth first, each node once and after all it reads."""
    order: dict[int, None] = {}
    waiting = list(reversed(roots))
    while waiting:
        node = waiting[-1]
        before = [] if node in order else [n for n in reads[node] if n not in order]
        if before:
            waiting += reversed(before)
        else:
            order.setdefault(waiting.pop())
    return list(order)
