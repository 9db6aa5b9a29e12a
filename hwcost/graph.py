"""What a network does, as values: tensors, ops, and the graph they form. This module does not import torch.

The description of an op (`OpSpec`) holds its kind, the shapes and dtypes of the tensors that it reads and writes, and
its parameters. The cost follows from the description alone, so that it can be written to a file on one machine and
read on another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
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
    """A tensor as an op sees it, without its data.

    `name` is the argument's name in the op's signature ("weight", "bias").
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    weight: bool = False  # a parameter, buffer or constant, not an activation
    internal: bool = False  # lives inside a fused kernel and causes no traffic
    repeat: bool = False  # the same tensor as an earlier argument of the op, which counts its bytes
    layout: str = "contiguous"  # or "channels_last", "strided"
    overlapping: int = 0  # elements that share their memory with another one, as along an axis of stride 0

    def __post_init__(self) -> None:
        if self.dtype not in ITEMSIZE:
            raise ValueError(f"dtype must be one of {', '.join(ITEMSIZE)}, but got {self.dtype!r}")

    @property
    def numel(self) -> int:
        """Product of the sizes of all axes."""
        return math.prod(self.shape)

    @property
    def elements(self) -> int:
        """Number of distinct elements in memory: `numel`, less those that share their memory."""
        return math.prod(self.shape) - self.overlapping

    @property
    def bytes(self) -> int:
        """Size of the distinct elements (byte)."""
        return (math.prod(self.shape) - self.overlapping) * ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class OpSpec:
    """The description of an op: equal descriptions cost the same.

    `kind` is the aten name without overload or in-place mark ("conv2d", "add"); ops of another
    library keep its name before it ("torchvision.nms"). `params` are (name, value), sorted by name; a traced op
    leaves out those that have their default value.
    """

    kind: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    params: tuple[tuple[str, Param], ...] = ()

    @cached_property
    def _hash(self) -> int:
        """Computed once: descriptions are keys of the caches of costs and kernels, and looked up very often."""
        return hash((self.kind, self.inputs, self.outputs, self.params))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[OpSpec], tuple[Any, ...]]:
        # A pickle leaves the hash out: Python's hashes of text differ from process to process.
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
    """One traced operator call: its description, the module that made it, and the values it reads and writes."""

    name: str  # with namespace and overload, "aten.conv2d.default"
    spec: OpSpec
    module: str  # path of the module that made the call, "" for the root
    reads: tuple[int, ...]  # value numbers, in the order of spec.inputs
    writes: tuple[int, ...]
    cost: Cost
    state: State
    reason: str = ""  # why it is free, or unknown; "" for an op that is costed


@dataclass(frozen=True, slots=True)
class Life:
    """The memory of one activation and of its views: held from op number `born` to op number `dies`, both included."""

    bytes: int
    born: int  # -1 for an input, which is there before the first op
    dies: int


# The fast path of torch's attention layers calls each of them as a single op.
FUSED_ATTENTION = frozenset({"_native_multi_head_attention", "_transformer_encoder_layer_fwd"})


@dataclass(frozen=True)
class Graph:
    """A traced network: ops in the order of their calls. Values (the tensors between ops) are numbered from 0.

    `by_parts` is the graph of the same forward with the fast path of torch's attention layers turned off, so that
    they call their projections, products and softmax one by one, as runtimes other than torch execute them. It is
    None where the forward calls no op of `FUSED_ATTENTION`, since both graphs would be the same, and in a graph that
    is itself the `by_parts` of another. All counts of this class are those of its own ops; two graphs are compared
    without `by_parts`, which follows from the network.
    """

    ops: tuple[Op, ...]
    inputs: tuple[TensorSpec, ...]
    input_values: tuple[int, ...]
    output_values: tuple[int, ...]  # -1 for an output that no op wrote
    params: int  # elements of the parameters, one that several modules share counted once
    weight_bytes: int  # bytes of parameters, buffers and constants
    lives: tuple[Life, ...]
    notes: tuple[str, ...] = ()  # what a reader of the counts should know, as where a size depends on values
    # Of a part of a network: bytes that other parts move after its inputs are written and before its first op runs.
    # They count in the reuse distances of its inputs.
    since: int = 0
    by_parts: Graph | None = field(default=None, compare=False, repr=False)

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
        """(op, number of calls, module of its first call) of each op without a cost rule.

        Such an op adds the bytes of its tensors to the cost of the network, and no macs or flops.
        """
        calls = Counter(op.name for op in self.ops if op.state == "unknown")
        first = {op.name: op.module for op in reversed(self.ops)}
        return tuple((name, n, first[name]) for name, n in calls.items())

    @cached_property
    def _peak(self) -> tuple[int, int]:
        """(bytes of live activations, op number) at the op during which most bytes are live."""
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
        """Bytes of the weights, plus the most bytes of activations that are live at one time in an inference."""
        return self.weight_bytes + self._peak[0]

    @property
    def peak_op(self) -> Op | None:
        """The op that runs when memory peaks."""
        return self.ops[self._peak[1]] if self.ops else None

    def changed(self, change: Callable[[Graph], Graph]) -> Graph:
        """What `change` makes of this graph, holding as `by_parts` what it makes of `by_parts`."""
        if self.by_parts is None:
            return change(self)
        return replace(change(self), by_parts=change(self.by_parts))

    def unstacked(self) -> Graph:
        """The graph of a block with several inputs, from one that was traced with these inputs stacked in one tensor.

        Such a block begins with ``a, b, ... = x.unbind()``. Inside a network no such op runs: the blocks before it
        hand over separate tensors. The graph returned has those as its inputs, and all ops but the first. A graph
        that does not begin by taking its only input apart is returned as it is.
        """
        return self.changed(_unstacked)

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
        """All blocks in groups of equal ones, which make the same ops on the same shapes, in the order of first call.

        A block that no other equals is a group by itself. Module paths are cut to `depth` parts, as in `blocks`.
        """
        content: dict[str, list[OpSpec]] = {}
        for op in self.ops:
            content.setdefault(block_name(op.module, depth), []).append(op.spec)
        groups: dict[tuple[OpSpec, ...], list[str]] = {}
        for name, specs in content.items():
            groups.setdefault(tuple(specs), []).append(name)
        costs = self.blocks(depth)
        return tuple(Repeat(tuple(names), costs[names[0]]) for names in groups.values())

    def to_frame(self) -> pd.DataFrame:
        """One row per op: name, kind, module, state, reason, counts (mac, flop, byte), intensity and output shape."""
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
    """A group of equal blocks: their module paths, and the cost of one of them."""

    blocks: tuple[str, ...]
    cost: Cost


def _unstacked(graph: Graph) -> Graph:
    """`Graph.unstacked` of the ops of this graph alone."""
    first = graph.ops[0] if graph.ops else None
    if first is None or first.spec.kind != "unbind" or first.reads != graph.input_values:
        return graph
    return replace(graph, ops=graph.ops[1:], inputs=first.spec.outputs, input_values=first.writes)


def block_name(module: str, depth: int) -> str:
    """The first `depth` parts of a module path."""
    return ".".join(module.split(".")[:depth])
