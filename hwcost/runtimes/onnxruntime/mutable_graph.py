"""A mutable graph of ONNX nodes and the values that they read and write; values have shapes and no data.

Passes (`fusions`, `transposes`, `blocked_layout`) change it as ONNX Runtime changes its own graph. A value knows which
node makes it and which nodes read it, so that a pass need not search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hwcost.graph import ITEMSIZE


@dataclass(slots=True, eq=False)
class Value:
    """A tensor without data: an activation, or a constant, which is a weight or is computed from constants alone.

    Values and nodes are compared by identity.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: bool = False
    number: object = None  # stands for what a constant holds; equal ones hold the same. None where that is not known
    kept: bool = False  # whether it is an output of the network
    maker: Step | None = None  # the node that writes it; None for constants and inputs of the network
    readers: list[Step] = field(default_factory=list)  # once for each time it is read

    @property
    def bytes(self) -> int:
        """Its size (byte)."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]

    @property
    def uses(self) -> int:
        """How often it is read; being an output of the network counts once."""
        return len(self.readers) + self.kept


@dataclass(slots=True, eq=False)
class Step:
    """A node of the graph."""

    kind: str  # ONNX operator
    reads: list[Value]
    writes: list[Value]
    module: str  # path of the torch module that it comes from
    attributes: dict[str, Any] = field(default_factory=dict)  # those of ONNX, and notes that passes leave for others
    blocked: bool = False  # whether it runs in the blocked layout
    dead: bool = False  # whether it was removed from the graph

    @property
    def out(self) -> Value:
        """The first output."""
        return self.writes[0]


class Sketch:
    """A graph that can be changed: its nodes (`steps`), after `sort` in an order in which they can run, and outputs."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.outputs: list[Value] = []

    def __iter__(self) -> Iterator[Step]:
        """The nodes that are there now; those that are dropped during the iteration are skipped."""
        return (step for step in list(self.steps) if not step.dead)

    def add(self, kind: str, reads: Sequence[Value], shape: Sequence[int], module: str, **attributes: Any) -> Value:
        """Add a node at the end, with one output of that shape and its first input's dtype; returns the output."""
        dtype = reads[0].dtype if reads else "float32"
        return self.put(Step(kind, list(reads), [Value(tuple(shape), dtype)], module, attributes)).out

    def put(self, step: Step) -> Step:
        """Add a node at the end, and make its inputs and outputs know it; returns the node."""
        for value in step.reads:
            value.readers.append(step)
        for value in step.writes:
            value.maker = step
        self.steps.append(step)
        return step

    def drop(self, step: Step) -> None:
        """Remove a node, and those before it whose outputs then nobody reads."""
        if step.dead:
            return
        step.dead = True
        for value in step.reads:
            value.readers.remove(step)
            maker = value.maker
            if maker is not None and not any(v.uses for v in maker.writes):
                self.drop(maker)

    def read(self, step: Step, index: int, value: Value) -> None:
        """Let a node read `value` as its input of that index, instead of what it reads there now."""
        old = step.reads[index]
        old.readers.remove(step)
        step.reads[index] = value
        value.readers.append(step)

    def replace(self, old: Value, new: Value) -> None:
        """Let all readers of `old` read `new` instead, which also takes its place as an output of the network."""
        for reader in old.readers:
            reader.reads = [new if v is old else v for v in reader.reads]
            new.readers.append(reader)
        old.readers = []
        if old.kept:
            new.kept, old.kept = True, False
            self.outputs = [new if v is old else v for v in self.outputs]

    def bypass(self, step: Step) -> None:
        """Remove a node; its readers read its first input instead."""
        self.replace(step.out, step.reads[0])
        self.drop(step)

    def clean(self) -> None:
        """Remove the nodes whose outputs nobody reads; afterwards `steps` holds no removed node."""
        for step in reversed(self.steps):
            if not any(v.uses for v in step.writes):
                self.drop(step)
        self.steps = list(self)

    def sort(self) -> None:
        """Sort the nodes so that each comes after the nodes it reads from.

        Nodes keep their order where they can; one added at the end moves to just before its first reader.
        """
        done, ordered = set[int](), list[Step]()
        for first in self.steps:
            stack = [first]
            while stack:
                step = stack[-1]
                if step.dead or id(step) in done:
                    stack.pop()
                    continue
                waiting = [v.maker for v in step.reads if v.maker is not None and id(v.maker) not in done]
                if waiting:
                    stack.extend(reversed(waiting))
                else:
                    done.add(id(step))
                    ordered.append(step)
                    stack.pop()
        self.steps = ordered


def sole_maker(value: Value, kind: str) -> Step | None:
    """The node that makes a value, where it is of that kind and nothing else uses the value; else None."""
    maker = value.maker
    return maker if maker is not None and maker.kind == kind and value.uses == 1 else None
