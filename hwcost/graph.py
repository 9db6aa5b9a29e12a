"""What a network does, as values: tensors, ops, and the graph they form. Knows no torch.

An op is described by its kind, the tensors it reads and writes, and its parameters; the
description (`OpSpec`) is complete: its cost follows from it alone, so that it can be written to a
file on one machine and read on another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from hwcost.cost import Cost, total

if TYPE_CHECKING:
    import pandas as pd

Scalar = int | float | bool | str | None
Param = Scalar | tuple["Param", ...]
State = Literal["costed", "free", "unknown"]

ITEMSIZE: Mapping[str, int] = {
    "bool": 1, "uint8": 1, "int8": 1, "qint8": 1, "quint8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "uint32": 4, "qint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8, "complex32": 4, "complex64": 8, "complex128": 16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as an op sees it; no data.

    `name` is the argument's name in the op's signature ("weight", "bias"). `elements` is how many
    distinct elements the tensor has: fewer than its shape says where an axis has stride 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    weight: bool = False  # a parameter, buffer or constant, not an activation
    internal: bool = False  # lives inside a fused kernel and causes no traffic
    repeat: bool = False  # the same tensor as an earlier argument of the op: read once
    layout: str = "contiguous"  # or "channels_last", "strided"
    elements: int = -1

    def __post_init__(self) -> None:
        if self.dtype not in ITEMSIZE:
            raise ValueError(f"dtype must be one of {', '.join(ITEMSIZE)}, but got {self.dtype!r}")
        if self.elements < 0:
            object.__setattr__(self, "elements", self.numel)

    @property
    def numel(self) -> int:
        """Number of elements that the shape spans."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the distinct elements."""
        return self.elements * ITEMSIZE[self.dtype]


@dataclass(frozen=True, slots=True)
class OpSpec:
    """The description of an op: equal descriptions cost the same.

    `kind` is the aten name without overload or in-place mark ("conv2d", "add"); ops of another
    library keep its name before it ("torchvision.nms").
    """

    kind: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    params: tuple[tuple[str, Param], ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)  # descriptions are looked up far more often than made

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.kind, self.inputs, self.outputs, self.params)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[OpSpec], tuple[Any, ...]]:
        # without the hash, since those of text differ from process to process
        return OpSpec, (self.kind, self.inputs, self.outputs, self.params)

    def input(self, name: str) -> TensorSpec | None:
        """The input of that name, or None where the call left it out."""
        for tensor in self.inputs:
            if tensor.name == name:
                return tensor
        return None

    def param(self, name: str, default: Param = None) -> Param:
        """The parameter of that name, or `default`."""
        for known, value in self.params:
            if known == name:
                return value
        return default


@dataclass(frozen=True, slots=True)
class Op:
    """One traced operator call: its description, where it stands and which values it touches."""

    name: str  # with namespace and overload, "aten.conv2d.default"
    spec: OpSpec
    module: str  # path of the module that made the call, "" for the root
    reads: tuple[int, ...]  # value numbers, in the order of spec.inputs
    writes: tuple[int, ...]
    cost: Cost
    state: State
    reason: str = ""  # why it is free, or unknown


@dataclass(frozen=True, slots=True)
class Life:
    """How long one activation storage is held: from op `born` to op `dies`, both included."""

    bytes: int
    born: int  # -1: there before the first op
    dies: int


@dataclass(frozen=True)
class Graph:
    """A traced network: ops in the order of their calls. Values are numbered from 0."""

    ops: tuple[Op, ...]
    inputs: tuple[TensorSpec, ...]
    input_values: tuple[int, ...]
    output_values: tuple[int, ...]
    params: int  # distinct parameters, counted in elements
    weight_bytes: int  # parameters, buffers and constants
    lives: tuple[Life, ...]
    notes: tuple[str, ...] = ()
    since: int = 0  # bytes moved since the inputs were written, of a part that does not follow their maker at once

    @cached_property
    def cost(self) -> Cost:
        """Cost of the whole network."""
        return total(op.cost for op in self.ops)

    @property
    def status(self) -> Literal["complete", "partial"]:
        """Whether every op was either costed or known to be free."""
        return "partial" if self.uncounted else "complete"

    @cached_property
    def uncounted(self) -> tuple[tuple[str, int, str], ...]:
        """(op, calls, module of the first call) of every op without a rule; their bytes count."""
        calls = Counter(op.name for op in self.ops if op.state == "unknown")
        first = {op.name: op.module for op in reversed(self.ops)}
        return tuple((name, n, first[name]) for name, n in calls.items())

    @cached_property
    def _peak(self) -> tuple[int, int]:
        """(byte, op number) of the moment with most live activations."""
        change = [0] * (len(self.ops) + 2)
        for life in self.lives:
            change[max(life.born, 0)] += life.bytes
            change[life.dies + 1] -= life.bytes
        live = most = at = 0
        for i in range(max(len(self.ops), 1)):
            live += change[i]
            if live > most:
                most, at = live, i
        return most, at

    @property
    def peak_memory(self) -> int:
        """Weights plus live activations (byte) at the worst moment of an inference."""
        return self.weight_bytes + self._peak[0]

    @property
    def peak_op(self) -> Op | None:
        """The op that runs when memory peaks."""
        return self.ops[self._peak[1]] if self.ops else None

    def unstacked(self) -> Graph:
        """This graph with the tensors that its first op takes one stacked input apart into as its inputs, as a block
        of several inputs gets them from the blocks before it."""
        first = self.ops[0] if self.ops else None
        if first is None or first.spec.kind != "unbind" or first.reads != self.input_values:
            return self
        return replace(self, ops=self.ops[1:], inputs=first.spec.outputs, input_values=first.writes)

    def blocks(self, depth: int = 2) -> dict[str, Cost]:
        """Cost by module path, cut to `depth` parts, in the order of first call."""
        if depth < 1:
            raise ValueError(f"depth must be at least 1, but got {depth}")
        costs: dict[str, Cost] = {}
        for op in self.ops:
            name = block_name(op.module, depth)
            costs[name] = costs.get(name, Cost()) + op.cost
        return costs

    def repeated(self, depth: int = 2) -> tuple[Repeat, ...]:
        """Blocks that do the same ops on the same shapes, together, in the order of first call."""
        content: dict[str, list[OpSpec]] = {}
        for op in self.ops:
            content.setdefault(block_name(op.module, depth), []).append(op.spec)
        groups: dict[tuple[OpSpec, ...], list[str]] = {}
        for name, specs in content.items():
            groups.setdefault(tuple(specs), []).append(name)
        costs = self.blocks(depth)
        return tuple(Repeat(tuple(names), costs[names[0]]) for names in groups.values())

    def to_frame(self) -> pd.DataFrame:
        """One row per op: name, kind, module, state, its cost by part, intensity and output shape."""
        import pandas as pd

        columns = ("macs", "other_flops", "flops", "bytes_weights", "bytes_activations", "bytes_written", "bytes")
        rows = [
            {"op": op.name, "kind": op.spec.kind, "module": op.module, "state": op.state, "reason": op.reason}
            | {column: getattr(op.cost, column) for column in columns}
            | {"intensity": op.cost.intensity, "shape": op.spec.outputs[0].shape if op.spec.outputs else ()}
            for op in self.ops
        ]
        names = ["op", "kind", "module", "state", "reason", *columns, "intensity", "shape"]
        return pd.DataFrame(rows, columns=names)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Blocks that are equal, and the cost of one of them."""

    blocks: tuple[str, ...]
    cost: Cost


def block_name(module: str, depth: int) -> str:
    """The first `depth` parts of a module path."""
    return ".".join(module.split(".")[:depth])


def traffic(tensors: Iterable[TensorSpec]) -> int:
    """Bytes of the tensors that come from or go to memory, each once."""
    return sum(t.bytes for t in tensors if not (t.internal or t.repeat))
