"""A graph in the making: nodes of ONNX kinds that read and write values, without any data.

Passes (`onnx_fusions`, `onnx_transposes`, `onnx_blocks`) change it as ONNX Runtime changes the graph of
that shape. A value knows which node makes it and which read it, so a pass needs no search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hwcost.graph import ITEMSIZE


@dataclass(slots=True, eq=False)
class Value:
    """A tensor: an activation, or a constant (a weight, or what follows from constants alone)."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: bool = False
    number: object = None  # what the constant holds, where that is known
    kept: bool = False  # an output of the network
    maker: Step | None = None
    readers: list[Step] = field(default_factory=list)  # once for each time it is read

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]

    @property
    def uses(self) -> int:
        """How often it is read, the outside included."""
        return len(self.readers) + self.kept


@dataclass(slots=True, eq=False)
class Step:
    """A node."""

    kind: str  # ONNX operator
    reads: list[Value]
    writes: list[Value]
    module: str
    attributes: dict[str, Any] = field(default_factory=dict)
    blocked: bool = False  # in the blocked layout
    dead: bool = False

    @property
    def out(self) -> Value:
        """The first output."""
        return self.writes[0]


class Sketch:
    """The graph: nodes in an order in which they can run."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.outputs: list[Value] = []

    def __iter__(self) -> Iterator[Step]:
        """The nodes as they are now; those that go while one looks at them are left out."""
        return (step for step in list(self.steps) if not step.dead)

    def add(self, kind: str, reads: Sequence[Value], shape: Sequence[int], module: str, **attributes: Any) -> Value:
        """A new node with one output of that shape, of the dtype of its first input."""
        dtype = reads[0].dtype if reads else "float32"
        return self.put(Step(kind, list(reads), [Value(tuple(shape), dtype)], module, attributes)).out

    def put(self, step: Step) -> Step:
        """Take a node in."""
        for value in step.reads:
            value.readers.append(step)
        for value in step.writes:
            value.maker = step
        self.steps.append(step)
        return step

    def drop(self, step: Step) -> None:
        """Take a node out, and what only it needed."""
        if step.dead:
            return
        step.dead = True
        for value in step.reads:
            value.readers.remove(step)
            maker = value.maker
            if maker is not None and not any(v.uses for v in maker.writes):
                self.drop(maker)

    def read(self, step: Step, index: int, value: Value) -> None:
        """Let a node read another value."""
        old = step.reads[index]
        old.readers.remove(step)
        step.reads[index] = value
        value.readers.append(step)

    def replace(self, old: Value, new: Value) -> None:
        """Let everybody read `new` instead of `old`."""
        for reader in old.readers:
            reader.reads = [new if v is old else v for v in reader.reads]
            new.readers.append(reader)
        old.readers = []
        if old.kept:
            new.kept, old.kept = True, False
            self.outputs = [new if v is old else v for v in self.outputs]

    def bypass(self, step: Step) -> None:
        """Take out a node that hands on its first input."""
        self.replace(step.out, step.reads[0])
        self.drop(step)

    def clean(self) -> None:
        """Leave out what nobody reads."""
        for step in reversed(self.steps):
            if not any(v.uses for v in step.writes):
                self.drop(step)
        self.steps = list(self)

    def sort(self) -> None:
        """Bring the nodes into an order in which they can run; new ones as late as their readers allow."""
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
    """The node of that kind that makes a value which is read once."""
    maker = value.maker
    return maker if maker is not None and maker.kind == kind and value.uses == 1 else None
