"""The order in which nodes stand in an ONNX file written for ONNX Runtime, and the order in which it runs them.

ONNX Runtime's optimiser places new nodes, such as copies between layouts, in the order of a hash table of pointers, so
that the same module comes out in another order each time. The bytes that move between two kernels, and so what they
find in caches, depend on that order. So the optimised graph is written to a file with its nodes in a fixed order
(`file_order`), and loaded without being optimised again. ONNX Runtime then runs the nodes depth first from those that
no other node reads; of the inputs of a node, the one that comes last in the file is followed first
(`Graph::ReverseDFSFrom` in onnxruntime/core/graph/graph.cc).

Nodes are numbers from 0; `reads` holds for each node the nodes that it reads, in the order of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Reads = Sequence[Sequence[int]]


def file_order(reads: Reads, outputs: Iterable[int]) -> list[int]:
    """All nodes, depth first from `outputs`, those that make the outputs of the graph.

    Each node comes after those that it reads, of which the first is followed first. Nodes that lead to no output come
    last.
    """
    return _after_inputs(reads, [*outputs, *range(len(reads))])


def run_order(reads: Reads, file: Sequence[int]) -> list[int]:
    """The order in which ONNX Runtime runs the nodes of a file that holds them in the order `file`."""
    place = {node: number for number, node in enumerate(file)}
    read = {node for nodes in reads for node in nodes}
    last_first = [sorted(set(nodes), key=place.__getitem__, reverse=True) for nodes in reads]
    return _after_inputs(last_first, [node for node in reversed(file) if node not in read])


def _after_inputs(reads: Reads, roots: Sequence[int]) -> list[int]:
    """The roots and all nodes that they read, directly or through others: depth first, each once and after those that
    it reads."""
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
