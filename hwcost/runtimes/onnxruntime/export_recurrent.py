"""How recurrent ops are written in an ONNX export: one LSTM, GRU or RNN node per layer.

These nodes read [time, batch, in] and write [time, directions, batch, hidden]. Inputs whose first axis is the batch are
therefore transposed before the first layer and after the last, and the outputs of two directions are joined.
"""

from __future__ import annotations

from itertools import islice

from hwcost.graph import Op
from hwcost.runtimes.onnxruntime.export import Export, constant, exports, whole
from hwcost.runtimes.onnxruntime.mutable_graph import Step, Value

_NODES = {
    "lstm": ("LSTM", 2),
    "gru": ("GRU", 1),
    "rnn_tanh": ("RNN", 1),
    "rnn_relu": ("RNN", 1),
}  # operator, number of states


@exports(*_NODES)
def _recurrent(e: Export, op: Op, reads: list[Value]) -> None:
    if op.name.startswith("onnx."):  # read from an ONNX file, where its parameters are not those of the torch op
        e.unknown(op, reads)
        return
    kind, count = _NODES[op.spec.kind]
    x, states, weights = reads[0], reads[1 : 1 + count], iter(reads[1 + count :])
    turned, layers = bool(op.spec.param("batch_first")), whole(op.spec.param("num_layers", 1))
    directions = 2 if op.spec.param("bidirectional") else 1
    each = 4 if op.spec.param("has_biases") else 2
    x = _turned(e, op, x) if turned else x
    ends: list[list[Value]] = []
    for number in range(layers):
        own = list(islice(weights, each * directions))
        first = [_layer_state(e, op, state, number, layers) for state in states]
        x, last = _layer(e, op, kind, [x, *_joined(own, directions), *first], count)
        ends.append(last)
    e.values[op.writes[0]] = _turned(e, op, x) if turned else x
    for index, number in enumerate(op.writes[1:]):
        parts = [last[index] for last in ends]
        e.values[number] = parts[0] if layers == 1 else e.write(op, "Concat", parts, index + 1, axis=0)


def _turned(e: Export, op: Op, x: Value) -> Value:
    """Add a node that swaps the axes of time and batch; returns its output."""
    return e.sketch.add("Transpose", [x], (x.shape[1], x.shape[0], *x.shape[2:]), op.module, perm=(1, 0, 2))


def _joined(own: list[Value], directions: int) -> list[Value]:
    """The weights of a layer (`own`) as a node reads them, [directions, ...] each; the two biases of a direction are
    concatenated."""
    into, back, *biases = own[: len(own) // directions]
    joined = [constant((directions, *into.shape)), constant((directions, *back.shape))]
    return joined + ([constant((directions, 2 * biases[0].shape[0]))] if biases else [])


def _layer_state(e: Export, op: Op, state: Value, number: int, layers: int) -> Value:
    """The part of the initial states of all layers that belongs to the layer of that number; adds a slice for it."""
    shape = (state.shape[0] // layers, *state.shape[1:])
    if layers == 1:
        return state
    if state.constant:
        return constant(shape, state.dtype)
    bounds = [constant((1,), "int64", place) for place in (number, number + 1, 0, 1)]
    return e.sketch.add("Slice", [state, *bounds], shape, op.module)


def _layer(e: Export, op: Op, kind: str, reads: list[Value], states: int) -> tuple[Value, list[Value]]:
    """Add the node of a layer; returns its output [time, batch, directions x hidden] and its last states."""
    time, batch, _ = reads[0].shape
    directions, _, hidden = reads[2].shape
    writes = [Value((time, directions, batch, hidden), reads[0].dtype)]
    writes += [Value((directions, batch, hidden), reads[0].dtype) for _ in range(states)]
    e.sketch.put(Step(kind, reads, writes, op.module))
    out, shape = writes[0], (time, batch, directions * hidden)
    if directions == 1:
        return e.sketch.add("Squeeze", [out], shape, op.module, axes=(1,)), writes[1:]
    sides = e.sketch.add("Transpose", [out], (time, batch, 2, hidden), op.module, perm=(0, 2, 1, 3))
    return e.sketch.add("Reshape", [sides], shape, op.module), writes[1:]
