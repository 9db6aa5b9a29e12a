"""Recurrent layers: at each time step, the input and the hidden state are projected onto the gates.

An LSTM has four gates, a GRU three, a plain RNN one. Beside these products, a hidden unit takes 24 flop in an LSTM
(4 for each of 4 gates and a tanh, 3 products, 1 sum), 20 in a GRU and 4 in an RNN, and two additions per gate for the
two biases.
"""

from __future__ import annotations

from hwcost.graph import ITEMSIZE, OpSpec
from hwcost.rules.registry import Work, rule

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1, "quantized_lstm": 4, "quantized_gru": 3}
_GATE_FLOPS = {4: 24, 3: 20, 1: 4}


# [T, B, H*d] = lstm([T, B, I], hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
@rule("lstm", "gru", "rnn_tanh", "rnn_relu", "quantized_lstm", "quantized_gru")
def recurrent(op: OpSpec) -> Work:
    """All layers and directions: every weight matrix is multiplied at each time step of each sequence."""
    first = op.inputs[0]
    steps = first.numel // first.shape[-1]  # time steps of all sequences
    matrices = [t for t in op.inputs if t.name == "params" and len(t.shape) == 2]
    biases = sum(t.numel for t in op.inputs if t.name == "params" and len(t.shape) == 1)
    gates = _GATES[op.kind]
    hidden = sum(t.shape[0] // gates for t in matrices if t.shape[0] % gates == 0) // 2
    gate_bytes = [steps * t.shape[0] * ITEMSIZE[first.dtype] for t in matrices]  # of all time steps
    return Work(
        macs=steps * sum(t.numel for t in matrices),
        other_flops=steps * (biases + hidden * _GATE_FLOPS[gates]),
        workspace=2 * max(gate_bytes, default=0),
    )


# [B, H] = lstm_cell([B, I], hx, w_ih, w_hh, b_ih?, b_hh?)
@rule(
    "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "quantized.quantized_lstm_cell_dynamic",
    "quantized.quantized_gru_cell_dynamic", "quantized.quantized_rnn_tanh_cell_dynamic",
    "quantized.quantized_rnn_relu_cell_dynamic",
)  # fmt: skip
def cell(op: OpSpec) -> Work:
    """One time step of one layer."""
    first = op.inputs[0]
    batch = first.numel // first.shape[-1]
    gates = _GATES[op.kind.removeprefix("quantized.quantized_").removesuffix("_dynamic").removesuffix("_cell")]
    matrices = [t for t in op.inputs if t.name in ("w_ih", "w_hh", "weight")]  # "weight" of a quantised one
    biases = sum(t.numel for t in op.inputs if t.name in ("b_ih", "b_hh", "bias_ih", "bias_hh"))
    hidden = matrices[1].shape[1]
    return Work(macs=batch * sum(t.numel for t in matrices), other_flops=batch * (biases + hidden * _GATE_FLOPS[gates]))


# [T, d, B, H] = LSTM([T, B, I], [d, g*H, I], [d, g*H, H], [d, 2*g*H]?, ...)      d directions, g gates
@rule("onnx.LSTM", "onnx.GRU", "onnx.RNN")
def onnx_recurrent(op: OpSpec) -> Work:
    """One layer in ONNX: both weight matrices of each direction are multiplied at each time step of each sequence."""
    first, into, back, *more = op.inputs
    steps, hidden = first.numel // first.shape[-1], back.shape[0] * back.shape[-1]
    biases = more[0].numel if more and len(more[0].shape) == 2 else 0
    gates = {"onnx.LSTM": 4, "onnx.GRU": 3, "onnx.RNN": 1}[op.kind]
    return Work(macs=steps * (into.numel + back.numel), other_flops=steps * (biases + hidden * _GATE_FLOPS[gates]))
