"""How recurrent ops are written in an ONNX export: a node per layer, time first, with a copy on either side.

LSTM, GRU and RNN nodes of ONNX read [time, batch, in] and write [time, directions, batch, hidden], so
that inputs whose batch comes first are turned, and outputs of two directions are brought together.
"""

from __future__ import annotations

from itertools import islice

from hwcost.graph import Op
from hwcost.runtimes.onnxruntime.export import Export, constant, exports, whole
from hwcost.runtimes.onnxruntime.mutable_graph import Step, Value

_NODES = {"lstm": ("LSTM", 2), "gru": ("GRU", 1), "rnn_tanh": ("RNN", 1), "rnn_relu": ("RNN", 1)}  # and how many states


@exports(*_NODES)
def _recurrent(e: Export, op: Op, reads: list[Value]) -> None:
    if op.name.startswith("onnx."):  # of a file, which says no more of it than its weights
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
    """Time and batch in the other order."""
    return e.sketch.add("Transpose", [x], (x.shape[1], x.shape[0], *x.shape[2:]), op.module, perm=(1, 0, 2))


def _joined(own: list[Value], directions: int) -> list[Value]:
    """What a node reads of a layer's weights: the directions stacked, the two biases in a row."""
    into, back, *biases = own[: len(own) // directions]
    joined = [constant((directions, *into.shape)), constant((directions, *back.shape))]
    return joined + ([constant((directions, 2 * biases[0].shape[0]))] if biases else [])


def _layer_state(e: Export, op: Op, state: Value, number: int, layers: int) -> Value:
    """The state that a layer begins with, out of those of all layers."""
    shape = (state.shape[0] // layers, *state.shape[1:])
    if layers == 1:
        return state
    if state.constant:
        return constant(shape, state.dtype)
    bounds = [constant((1,), "int64", place) for place in (number, number + 1, 0, 1)]
    return e.sketch.add("Slice", [state, *bounds], shape, op.module)


def _layer(e: Export, op: Op, kind: str, reads: list[Value], states: int) -> tuple[Value, list[Value]]:
    """A node, what it writes as [time, batch, directions x hidden], and the states it ends with."""
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
