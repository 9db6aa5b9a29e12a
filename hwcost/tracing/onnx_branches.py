"""Nodes of an ONNX model that hold graphs: functions, branches (If) and loops.

A function is put in place of each call. Of the two branches of an If, one is put in its place: the one that runs, where
the file says which, or else the dearer one. How often the body of a loop runs may depend on values, so a model with a
loop is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})


def without_functions(model: Any) -> Any:
    """The model with the nodes of its functions in place of the calls."""
    if not model.functions:
        return model
    from onnx.inliner import inline_local_functions

    return inline_local_functions(model)


def first_branching(graph: Any) -> Any:
    """The first If of a graph, None where there is none."""
    return next((node for node in graph.node if node.op_type == "If"), None)


def first_loop(graph: Any) -> Any:
    """The first loop of a graph or of a branch in it, None where there is none."""
    for node in graph.node:
        if node.op_type in LOOPS:
            return node
        if node.op_type == "If":
            for branch in _graphs(node):
                found = first_loop(branch)
                if found is not None:
                    return found
    return None


def branch_of(node: Any, name: str) -> Any:
    """The graph of the branch of an If that has that name, "then_branch" or "else_branch"."""
    return next(a.g for a in node.attribute if a.name == name)


def put_in_place(graph: Any, node: Any, branch: Any) -> tuple[str, ...]:
    """Replace an If of a graph by the nodes of one of its branches, in place.

    Values of the branch get names of their own, its outputs those of the If's outputs. Returns the names of all values
    that the branch's nodes write.
    """
    prefix = f"{node.output[0]}/{branch.name}/"
    own = [name for n in branch.node for name in n.output if name] + [w.name for w in branch.initializer]
    names = {name: prefix + name for name in own}
    written = [name for n in branch.node for name in n.output]
    passed = list[tuple[str, str]]()  # outputs that the branch takes from outside, or gives twice
    for inner, outer in zip(branch.output, node.output, strict=True):
        if inner.name in written and names[inner.name].startswith(prefix):
            names[inner.name] = outer
        else:
            passed.append((names.get(inner.name, inner.name), outer))
    copies = []
    for each in branch.node:
        copy = type(each)()
        copy.CopyFrom(each)
        _rename(copy, names)
        copies.append(copy)
    for inner, outer in passed:
        identity = type(node)(op_type="Identity", input=[inner], output=[outer])
        copies.append(identity)
    for weight in branch.initializer:
        graph.initializer.add().CopyFrom(weight)
        graph.initializer[-1].name = names[weight.name]
    for value in branch.value_info:
        if value.name in names:
            graph.value_info.add().CopyFrom(value)
            graph.value_info[-1].name = names[value.name]
    at = list(graph.node).index(node)
    kept = [*list(graph.node)[:at], *copies, *list(graph.node)[at + 1 :]]
    nodes = [type(node).FromString(n.SerializeToString()) for n in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    return tuple(name for n in copies for name in n.output)


def _rename(node: Any, names: dict[str, str]) -> None:
    """Give the values that a node reads and writes their new names, also in graphs that it holds."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in _graphs(node):
        inside = {i.name for i in graph.input} | {w.name for w in graph.initializer}
        inside |= {name for n in graph.node for name in n.output}
        outer = {old: new for old, new in names.items() if old not in inside}
        for each in graph.node:
            _rename(each, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def _graphs(node: Any) -> Iterable[Any]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g
