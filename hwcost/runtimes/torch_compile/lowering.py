"""How inductor, torch.compile's compiler, groups the ops of a traced graph on a CPU: rules, without a compiler.

1. Convolutions, matrix products, attention, recurrent layers, sorting and cumulative sums are calls of a library, one
   kernel each; so is a whole attention layer of torch that is one op. All other work between two such calls is one
   generated kernel.
2. Pointwise work waits until it is read by a library call, by a reduction or by the output; then it joins the generated
   kernel that is being filled. Reductions join at once.
3. Two-dimensional convolutions run in the channels-last layout. Generated kernels write that layout themselves. Inputs
   of the network and what other library calls wrote are copied into it in every run, and so are the weights of
   convolutions with windows wider than one pixel that are not depthwise. A convolution's result is copied where a
   matrix product or the caller wants it in another layout.
4. Small products are generated: of a single row with a matrix of at most 16 rows and columns, or of one column, plus a
   bias. So are pools whose windows have at most 25 elements. Attention whose shapes or mask the fused kernel does not
   support is two products with a softmax between.

The rules hold for the version named in `VERSION`; tests compare them with generated code.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

from hwcost.graph import FUSED_ATTENTION, Graph, Op, OpSpec, TensorSpec
from hwcost.rules.registry import cost_of
from hwcost.runtimes.base import Network, Runtime
from hwcost.runtimes.groups import Copy, Flow, Group, network_of
from hwcost.runtimes.registry import register_runtime

VERSION = "2.13"  # of torch
_CONVOLUTIONS = frozenset(f"conv{kind}{n}d" for n in (1, 2, 3) for kind in ("", "_transpose"))
_PRODUCTS = frozenset({"linear", "matmul", "mm", "bmm", "addmm", "baddbmm"})
_LIBRARY = _CONVOLUTIONS | _PRODUCTS | {
    "scaled_dot_product_attention", "sort", "topk", "cumsum", "cumprod", "lstm", "gru", "rnn_tanh", "rnn_relu",
} | FUSED_ATTENTION  # fmt: skip
_REDUCTIONS = frozenset({  # reductions, and what else joins the open kernel at once: pools, concatenation
    "softmax", "log_softmax", "layer_norm", "group_norm", "instance_norm", "rms_norm", "mean", "sum", "amax", "amin",
    "max", "min", "var", "std", "argmax", "argmin", "prod", "norm", "linalg_vector_norm", "adaptive_avg_pool2d",
    "max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "cat",
})  # fmt: skip
_WINDOW = 25  # elements of a pool's window above which it is a library call
_SMALL = 16  # rows and columns of a matrix that multiplies a single row in generated code


class TorchCompile(Runtime):
    """torch.compile on a CPU; has no state."""

    name = "torch-compile"
    keeps_heap = True
    on_torch_threads = True
    runs_fused_attention = True
    session = "hwcost.runtimes.torch_compile.session"

    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """Group ops as inductor does on a CPU; a part is lowered as if it were a whole network."""
        whole, _ = expanded(graph)
        return network_of(groups_of(whole), whole, self.name)


register_runtime(TorchCompile())


def groups_of(graph: Graph) -> list[Group]:
    """Groups of ops in the order in which they run; numbers refer to the graph."""
    grouping = _Grouping(graph)
    for number in range(len(graph.ops)):
        grouping.visit(number)
    return grouping.end()


class _Grouping:
    """The state of one lowering: the groups so far, the generated kernel being filled (`open`), and the ops that wait
    for a reader."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.flow = graph, Flow(graph)
        self.groups: list[Group] = []
        self.open = Group()
        self.makers: defaultdict[int, list[int]] = defaultdict(list)  # of a value, several where it is changed in place
        for number, op in enumerate(graph.ops):
            for value in op.writes if op.state != "free" else ():
                self.makers[value].append(number)
        self.waiting: set[int] = set()
        self.called: set[int] = set()  # ops that a library runs

    def visit(self, number: int) -> None:
        """Take the next op of the graph: call a library, join the open group, or wait."""
        op = self.graph.ops[number]
        if op.state == "free":
            return
        if is_library_call(op.spec):
            self.call(number)
        else:
            self.waiting.add(number)
            if op.spec.kind in _REDUCTIONS:
                self.emit(number)

    def maker(self, value: int, reader: int) -> int | None:
        """The op that wrote a value last before the op `reader` reads it; None for inputs and weights."""
        written = self.makers[self.flow.origin.get(value, value)]
        return max((n for n in written if n < reader), default=None)

    def need(self, value: int, reader: int) -> None:
        """Make a value ready for an op: the op that writes it joins the open group, where it still waits."""
        maker = self.maker(value, reader)
        if maker in self.waiting:
            self.emit(maker)

    def emit(self, number: int) -> None:
        """Put an op into the open group, after the waiting ops that it reads."""
        self.waiting.discard(number)
        for value in self.graph.ops[number].reads:
            self.need(value, number)
        self.open.ops.append(number)

    def call(self, number: int) -> None:
        """Make a library call of an op: what it reads, and copies that it needs, complete the open group before it."""
        op = self.graph.ops[number]
        for value in op.reads:
            self.need(value, number)
        for value, tensor in zip(op.reads, op.spec.inputs, strict=True):
            if self.copied(op.spec, self.maker(value, number), tensor):
                self.open.copies.append(Copy(number, tensor.shape, tensor.dtype, tensor.weight))
        self.close()
        self.called.add(number)
        self.groups.append(Group([number]))

    def close(self) -> None:
        """End the open group, where it holds anything, and begin an empty one."""
        if self.open.ops or self.open.copies:
            self.groups.append(self.open)
            self.open = Group()

    def copied(self, spec: OpSpec, maker: int | None, tensor: TensorSpec) -> bool:
        """Whether a library call needs `tensor`, which the op `maker` wrote, copied into another layout."""
        generated = maker is not None and maker not in self.called
        if spec.kind in _CONVOLUTIONS:
            if len(tensor.shape) != 4 or tensor.shape[1] == 1 or math.prod(tensor.shape[2:]) == 1:
                return False
            turned = self.channels_last(maker) or tensor.layout == "channels_last"
            return tensor.weight or not (generated or turned)
        if tensor.weight or generated or maker is None:
            return False
        return self.reshaped(maker, tensor.shape)

    def channels_last(self, maker: int | None) -> bool:
        """Whether an op is a convolution, which writes channels last."""
        return maker in self.called and self.graph.ops[maker].spec.kind in _CONVOLUTIONS

    def reshaped(self, maker: int, shape: tuple[int, ...]) -> bool:
        """Whether an argument of that shape is a convolution's result that was reshaped, where its layout matters."""
        made = self.graph.ops[maker].spec.outputs[0].shape
        return self.channels_last(maker) and len(made) == 4 and made != shape and math.prod(made[2:]) > 1 < made[1]

    def end(self) -> list[Group]:
        """Make the outputs of the network ready, close the open group, and return all groups."""
        last = len(self.graph.ops)
        for value in self.graph.output_values:
            self.need(value, last)
        for value in self.graph.output_values:
            maker = self.maker(value, last)
            if maker is None or not self.channels_last(maker):
                continue
            made = self.graph.ops[maker].spec.outputs[0]
            if len(made.shape) == 4 and made.shape[1] > 1 < math.prod(made.shape[2:]):
                self.open.copies.append(Copy(maker, made.shape, made.dtype))
        self.close()
        return self.groups


def is_library_call(spec: OpSpec) -> bool:
    """Whether inductor calls a library for an op, rather than generate code (rules 1 and 4)."""
    if spec.kind in ("max_pool2d", "avg_pool2d"):
        return math.prod(_pair(spec.param("kernel_size"))) > _WINDOW
    if spec.kind in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        given, wanted = spec.inputs[0].shape[-2:], spec.outputs[0].shape[-2:]
        whole = wanted == (1, 1) and spec.kind == "adaptive_avg_pool2d"
        return not whole and math.prod(-(-(g + w - 1) // w) for g, w in zip(given, wanted, strict=True)) > _WINDOW
    if spec.kind in ("linear", "addmm") and len(spec.inputs) > 2:
        rows, columns = math.prod(spec.outputs[0].shape[:-1]), spec.outputs[0].shape[-1]
        return not (rows == 1 and (columns == 1 or max(columns, spec.inputs[0].shape[-1]) <= _SMALL))
    return spec.kind in _LIBRARY


def _pair(value: object) -> tuple[int, ...]:
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(str(s)) for s in (sides * 2 if len(sides) == 1 else sides))


# -- attention that is no library call ------------------------------------------------------------


def expanded(graph: Graph) -> tuple[Graph, list[list[int]]]:
    """The graph with each attention that `is_taken_apart` replaced by its parts.

    Also returned are, for each op of the graph that was given, the numbers of the ops that it became.
    """
    fresh = 1 + max([v for op in graph.ops for v in (*op.reads, *op.writes)], default=0)
    ops, numbers = list[Op](), list[list[int]]()
    for op in graph.ops:
        parts = _parts(op, fresh) if is_taken_apart(op.spec) else [op]
        fresh += 8  # the parts of an op make five new values at most
        numbers.append(list(range(len(ops), len(ops) + len(parts))))
        ops += parts
    return replace(graph, ops=tuple(ops)), numbers


def is_taken_apart(spec: OpSpec) -> bool:
    """Whether an op is attention with shapes or a mask that the fused kernel does not support, so that parts run."""
    if spec.kind != "scaled_dot_product_attention":
        return False
    mask = spec.input("attn_mask")
    plain = all(len(t.shape) == 4 for t in spec.inputs[:3]) and spec.inputs[0].shape[-1] == spec.inputs[2].shape[-1]
    return not plain or (mask is not None and len(mask.shape) not in (2, 4))


def _parts(op: Op, fresh: int) -> list[Op]:
    """The parts of attention: scaling of q and of k, product, mask, softmax, product.

    Values that they make are numbered from `fresh` on; the last one is the output of the attention.
    """
    (q, k, v, *mask), (out,) = op.spec.inputs, op.spec.outputs
    scores = replace(out, name="out", shape=(*out.shape[:-1], k.shape[-2]), overlapping=0, layout="contiguous")
    turned = replace(k, name="other", shape=(*k.shape[:-2], k.shape[-1], k.shape[-2]), layout="strided")
    scale = [
        _op(op, "mul", [t], [r], replace(t, name="out", layout="contiguous"), fresh + i)
        for i, (t, r) in enumerate(zip((q, k), op.reads, strict=False))
    ]
    product = _op(op, "matmul", [q, turned], [fresh, fresh + 1], scores, fresh + 2)
    masked = [_op(op, "add", [scores, mask[0]], [fresh + 2, op.reads[3]], scores, fresh + 3)] if mask else []
    softmax = _op(op, "softmax", [scores], [fresh + 2 + len(mask[:1])], scores, fresh + 4, (("dim", -1),))
    last = _op(op, "matmul", [scores, v], [fresh + 4, op.reads[2]], out, op.writes[0])
    return [*scale, product, *masked, softmax, last]


def _op(
    like: Op,
    kind: str,
    inputs: list[TensorSpec],
    reads: list[int],
    output: TensorSpec,
    write: int,
    params: tuple[tuple[str, int], ...] = (),
) -> Op:
    named = tuple(replace(t, name=name) for t, name in zip(inputs, ("self", "other"), strict=False))
    spec = OpSpec(kind, named, (replace(output, name="out"),), params)
    cost, state, reason = cost_of(spec)
    return Op(f"aten.{kind}.default", spec, like.module, tuple(reads), (write,), cost, state, reason)
