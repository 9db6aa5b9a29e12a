"""How OpenVINO groups the ops of a traced graph on a CPU: rules, without OpenVINO.

Batch norms fold into convolutions. Pointwise ops that follow a convolution fuse with it, and activations that follow a
matrix product fuse with that. Tensors are copied into the channels-last layout and out of it. Not foreseen are the
copies that OpenVINO makes for shuffled channels and other views whose result has to be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwcost.graph import Graph, Op, TensorSpec
from hwcost.rules.registry import cost_of
from hwcost.runtimes.base import Network, Runtime
from hwcost.runtimes.groups import Copy, Flow, Group, network_of
from hwcost.runtimes.registry import register_runtime

_HEADS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "matmul"})  # ops into which later ones are fused
_FUSED = frozenset({
    "relu", "relu6", "hardtanh", "sigmoid", "tanh", "elu", "gelu", "silu", "hardswish", "hardsigmoid", "leaky_relu",
    "softplus", "mish", "clamp", "exp", "abs", "sqrt",
})  # fmt: skip
_POINTWISE = _FUSED | {"add", "sub", "mul", "div", "pow", "neg", "maximum", "minimum", "where"}


class OpenVino(Runtime):
    """OpenVINO on a CPU; has no state."""

    name = "openvino"
    session = "hwcost.runtimes.openvino.session"

    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """Fold and fuse as OpenVINO does on a CPU; a part is lowered as if it were a whole network."""
        whole = folded(graph.by_parts or graph)
        return network_of(groups_of(whole), whole, self.name)


register_runtime(OpenVino())


def folded(graph: Graph) -> Graph:
    """The graph without the batch norms that are the only reader of a convolution: those fold into its weights, one
    after the other where several follow.

    The convolution then writes what the last batch norm wrote, and has a bias.
    """
    flow = Flow(graph)
    maker = {v: i for i, op in enumerate(graph.ops) if op.state != "free" for v in op.writes}
    ops: dict[int, Op] = dict(enumerate(graph.ops))
    for number, op in enumerate(graph.ops):
        if op.spec.kind != "batch_norm" or not op.reads:
            continue
        at = maker.get(op.reads[0])
        if (
            at is None
            or ops[at].spec.kind not in ("conv1d", "conv2d", "conv3d")
            or flow.readers[op.reads[0]] != {number}
        ):
            continue
        ops[at] = _with_bias(ops[at], op.writes)
        maker |= dict.fromkeys(op.writes, at)
        del ops[number]
    return replace(graph, ops=tuple(ops[i] for i in sorted(ops)))


def _with_bias(op: Op, writes: tuple[int, ...]) -> Op:
    """A convolution that has a bias and writes these values."""
    spec, reads = op.spec, op.reads
    if spec.input("bias") is None:
        bias = TensorSpec("bias", (spec.inputs[1].shape[0],), spec.inputs[1].dtype, weight=True)
        spec, reads = replace(spec, inputs=(*spec.inputs[:2], bias)), (*reads[:2], -1)
    cost, state, reason = cost_of(spec)
    return replace(op, spec=spec, reads=reads, writes=writes, cost=cost, state=state, reason=reason)


def groups_of(graph: Graph) -> list[Group]:
    """The ops of a graph, grouped by rule, in the order the groups run.

    A convolution is a group with the pointwise ops that follow it, a matrix product with the activations that do, where
    nothing else reads what is between them. A chain of pointwise ops is a group too. Every other op is a group of its
    own, and so is each copy: into the channels-last layout, out of it, and of the keys of attention.
    """
    flow = Flow(graph)
    home: dict[int, Group] = {}  # value -> the group that writes it
    groups, turned = list[Group](), set[int]()  # `turned`: values in the channels-last layout
    for number, op in enumerate(graph.ops):
        groups += [Group(copies=[c]) for c in _copies(op, number, graph, turned)]
        if _turns(op, turned):
            turned.update(op.writes)
        if op.state == "free":
            continue
        group = _joined(op, number, graph, flow, home) or Group()
        groups = [g for g in groups if g is not group] + [group]  # it runs once all that it reads is there
        group.ops.append(number)
        home |= dict.fromkeys(op.writes, group)
    outputs = [
        t for op in graph.ops for t, v in zip(op.spec.outputs, op.writes, strict=True) if v in graph.output_values
    ]
    wide = [t for t, v in zip(outputs, graph.output_values, strict=False) if v in turned and _is_wide(t)]
    return groups + [Group(copies=[Copy(len(graph.ops) - 1, t.shape, t.dtype)]) for t in wide]


def _turns(op: Op, turned: set[int]) -> bool:
    """Whether an op writes the channels-last layout; `turned` are the values in it so far."""
    if op.spec.kind in ("conv2d", "conv_transpose2d"):
        return True
    return bool(op.reads) and op.reads[0] in turned and len(op.spec.outputs[0].shape) == 4 and op.state != "free"


def _is_wide(tensor: TensorSpec) -> bool:
    """Whether a tensor has several channels and pixels, so that channels first and last differ in memory."""
    return len(tensor.shape) == 4 and tensor.shape[1] > 1 and tensor.shape[2] * tensor.shape[3] > 1


def _copies(op: Op, number: int, graph: Graph, turned: set[int]) -> list[Copy]:
    """The copies that are made before an op runs."""
    inputs = op.spec.inputs
    if op.spec.kind == "conv2d" and op.reads[0] not in turned and _is_wide(inputs[0]):
        return [Copy(number, inputs[0].shape, inputs[0].dtype)]
    before = graph.ops[number - 1] if number else None
    if op.spec.kind == "unbind" and before is not None and before.spec.kind == "permute":
        return [Copy(number, inputs[0].shape, inputs[0].dtype)]  # q, k and v, with the axis of heads moved forward
    if op.spec.kind == "scaled_dot_product_attention":
        k = inputs[1]  # it is scaled, then transposed; the scaled one keeps the axis that q, k and v were cut from
        of_whole = any(o.spec.kind == "unbind" and op.reads[1] in o.writes for o in graph.ops)
        scaled = (1, *k.shape) if of_whole else k.shape
        return [Copy(number, scaled, k.dtype), Copy(number, (*k.shape[:-2], k.shape[-1], k.shape[-2]), k.dtype)]
    return []


def _joined(op: Op, number: int, graph: Graph, flow: Flow, home: Mapping[int, Group]) -> Group | None:
    """The group that a pointwise op joins: that of an input which nothing else reads; None where there is none."""
    if op.spec.kind not in _POINTWISE:
        return None
    for value in reversed(op.reads):
        group = home.get(value)
        if group is None or flow.readers[value] != {number}:
            continue
        head, last = (graph.ops[group.ops[i]].spec for i in (0, -1))
        if last.outputs[0].shape != op.spec.outputs[0].shape:
            continue
        if head.kind in _POINTWISE or (
            head.kind in _HEADS and (op.spec.kind in _FUSED or head.kind.startswith("conv"))
        ):
            return group
    return None
