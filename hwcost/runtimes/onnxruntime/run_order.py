"""The order in which nodes stand in a file for ONNX Runtime, and that in which it runs them.

ONNX Runtime's optimiser places new nodes, such as copies between layouts, in the order of a hash table of pointers, so
that the same module comes out in another order each time. The bytes that move between two kernels, and so what they
find in caches, depend on that order. A file with its nodes in a fixed order mends that. Loaded without being optimised
again, the nodes are run depth first from those that nobody reads; of the inputs of a node, the one that comes last in
the file is followed first (`Graph::ReverseDFSFrom` in onnxruntime/core/graph/graph.cc).

Nodes are numbers; `reads` names for each which others it reads, in the order of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Reads = Sequence[Sequence[int]]


def file_order(reads: Reads, outputs: Iterable[int]) -> list[int]:
    """Depth first from the makers of the graph's outputs, each node after its inputs, the first input first."""
    return _after_inputs(reads, [*outputs, *range(len(reads))])


def run_order(reads: Reads, file: Sequence[int]) -> list[int]:
    """The order in which ONNX Runtime runs the nodes of a file that holds them in the order `file`."""
    place = {node: number for number, node in enumerate(file)}
    read = {node for nodes in reads for node in nodes}
    last_first = [sorted(set(nodes), key=place.__getitem__, reverse=True) for nodes in reads]
    return _after_inputs(last_first, [node for node in reversed(file) if node not in read])


def _after_inputs(reads: Reads, roots: Sequence[int]) -> list[int]:
    """All nodes that the roots read, depth first, each once and after all that it reads."""
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
