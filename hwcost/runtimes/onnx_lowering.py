"""What ONNX Runtime makes of a traced graph on an x86 CPU: rules, without ONNX Runtime.

In the order in which they apply:

1. A batch norm after a convolution is folded into it, where nothing else reads the convolution.
2. An activation after a convolution is fused into it, under the same condition.
3. Convolutions whose channels allow it run in a blocked layout ("nchwc", eight channels together);
   so do pools of such channels. Data enter that layout and leave it by a copy, once per value.
4. An addition of two blocked tensors is fused into the convolution that made one of them.
5. Functions without a kernel of their own are taken apart; reshapes are free, transpositions copy.

The rules hold for the version named in `VERSION`; tests compare them with its optimised graphs.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace

from hwcost.graph import Graph, Op, TensorSpec
from hwcost.runtimes.base import Network, Placed
from hwcost.runtimes.onnx_nodes import Node, kernel_of
from hwcost.runtimes.onnx_steps import (
    AFTER_ADD,
    APART,
    BLOCK,
    BLOCKED_FUSED,
    FUSED,
    IN_BLOCKS,
    PLAIN,
    POOLS,
    Step,
    attributes_of,
    blocked_form,
    pair,
    scalars,
)

VERSION = "1.32"


class _Lowering:
    """The state of one lowering: steps so far, shapes and layouts of values."""

    def __init__(self, graph: Graph) -> None:
        self.uses = Counter(v for op in graph.ops for v in op.reads) + Counter(graph.output_values)
        self.shapes = {v: t for op in graph.ops for v, t in zip(op.reads, op.spec.inputs, strict=True)}
        self.shapes |= {v: t for op in graph.ops for v, t in zip(op.writes, op.spec.outputs, strict=True)}
        self.readers: defaultdict[int, list[Op]] = defaultdict(list)
        for op in graph.ops:
            for value in op.reads:
                self.readers[value].append(op)
        self.steps: list[Step] = []
        self.made: dict[int, Step] = {}  # value -> the step that writes it
        self.blocked: dict[int, int] = {}  # value -> its blocked twin
        self.plain: dict[int, int] = {}  # blocked twin -> its value, once reordered
        self.next = 1 + max([*self.shapes, *graph.input_values, 0])
        self.parts: dict[int, tuple[int, tuple[int, ...]]] = {}  # value -> the part it is a view of, its axes
        self.free = 0

    # -- building -----------------------------------------------------------------------------

    def add(self, step: Step) -> Step:
        self.steps.append(step)
        self.made[step.write] = step
        return step

    def value(self, like: int, channels: int | None = None) -> int:
        """A new value of the shape of another, with its channels padded to whole blocks."""
        number, self.next = self.next, self.next + 1
        shape = list(self.shapes[like].shape)
        shape[1] = channels or -(-shape[1] // BLOCK) * BLOCK
        self.shapes[number] = TensorSpec("x", tuple(shape), self.shapes[like].dtype)
        return number

    def into_blocks(self, value: int, module: str) -> int:
        """The blocked twin of a value, copied where there is none."""
        if value not in self.blocked:
            self.blocked[value] = self.value(value)
            self.add(Step("ReorderInput", [value], self.blocked[value], [], module, blocked=True))
        return self.blocked[value]

    def out_of_blocks(self, value: int, module: str) -> int:
        """A value in the plain layout, copied where it has only been made in blocks."""
        twin = self.blocked.get(value)
        if twin is not None and value not in self.made and twin in self.made:
            self.add(Step("ReorderOutput", [twin], value, [], module, blocked=True))
        return value

    # -- ops ----------------------------------------------------------------------------------

    def op(self, op: Op) -> None:
        kind = op.spec.kind
        taken = (
            (kind == "batch_norm" and self.fold_norm(op))
            or (kind in BLOCKED_FUSED and self.fuse_activation(op))
            or (kind in IN_BLOCKS and self.activation(op))
            or (kind == "add" and self.fuse_add(op))
            or (kind in POOLS and self.pool(op))
            or self.split(op)
            or self.attention(op)
        )
        if taken:
            return
        if kind == "conv2d":
            self.convolution(op)
        elif kind == "linear":
            self.linear(op)
        elif kind in APART:
            self.apart(op)
        elif kind == "layer_norm" and self.skip_norm(op):
            return
        elif (op.state == "free" and kind not in ("transpose", "permute")) or kind in ("clone", "reshape"):
            self.alias(op)
        else:
            self.plain_op(op)

    def convolution(self, op: Op) -> None:
        x, (weight, *bias) = op.reads[0], [t for t in op.spec.inputs if t.weight]
        groups = int(op.spec.param("groups", 1) or 1)  # type: ignore[arg-type]
        form = blocked_form(weight.shape, groups)
        attributes: dict[str, object] = {
            "strides": op.spec.param("stride", (1, 1)), "dilations": op.spec.param("dilation", (1, 1)), "group": groups,
        }  # fmt: skip
        padding = op.spec.param("padding", (0, 0))
        attributes["pads"] = (*padding, *padding) if isinstance(padding, tuple) else (0, 0, 0, 0)
        if form is None:
            weights = [weight, *bias]
            self.add(Step("Conv", [self.out_of_blocks(x, op.module)], op.writes[0], weights, op.module, attributes))
            return
        source = self.into_blocks(x, op.module) if form.reorders else self.out_of_blocks(x, op.module)
        out = self.blocked[op.writes[0]] = self.value(op.writes[0])
        padded = [replace(weight, shape=form.weight, elements=-1)]
        padded += [replace(b, shape=(form.weight[0],), elements=-1) for b in bias]
        self.add(Step("Conv", [source], out, padded, op.module, attributes, blocked=True))

    def producer(self, value: int) -> Step | None:
        """The convolution that makes a value which is read once."""
        step = self.made.get(self.blocked.get(value, value))
        return step if step and step.kind == "Conv" and self.uses[value] == 1 else None

    def renamed(self, op: Op, read: int) -> None:
        """The output of an op becomes what its producer writes."""
        twin = self.blocked.get(read)
        if twin is not None:
            self.blocked[op.writes[0]] = twin
        else:
            self.made[op.writes[0]] = step = self.made[read]
            step.write = op.writes[0]

    def fold_norm(self, op: Op) -> bool:
        conv = self.producer(op.reads[0])
        if conv is None or "activation" in conv.attributes:
            return False
        if len(conv.weights) < 2:
            conv.weights.append(TensorSpec("bias", (conv.weights[0].shape[0],), weight=True))
        self.renamed(op, op.reads[0])
        return True

    def fuse_activation(self, op: Op) -> bool:
        conv = self.producer(op.reads[0])
        if conv is None or "activation" in conv.attributes:
            return False
        known = FUSED if not conv.blocked else AFTER_ADD if len(conv.reads) > 1 else BLOCKED_FUSED
        if op.spec.kind not in known:
            return False
        conv.attributes["activation"] = BLOCKED_FUSED[op.spec.kind].encode()
        self.renamed(op, op.reads[0])
        return True

    def fuse_add(self, op: Op) -> bool:
        if len(op.reads) != 2 or len({self.shapes[v].shape for v in op.reads}) > 1:
            return False
        if not all(v in self.blocked for v in op.reads):
            return self.fuse_plain_add(op)
        for mine, other in (op.reads, op.reads[::-1]):
            conv = self.producer(mine)
            if conv and conv.blocked and len(conv.reads) == 1 and "activation" not in conv.attributes:
                conv.reads.append(self.blocked[other])
                self.steps.remove(conv)  # it runs once both are there
                self.steps.append(conv)
                self.renamed(op, mine)
                return True
        out = self.blocked[op.writes[0]] = self.value(op.writes[0])
        self.add(Step("Add", [self.blocked[v] for v in op.reads], out, [], op.module))
        return True

    def fuse_plain_add(self, op: Op) -> bool:
        """Outside blocks an addition is fused only where an activation follows."""
        after = self.readers[op.writes[0]]
        if [o.spec.kind for o in after] not in [[kind] for kind in FUSED]:
            return False
        for mine, other in (op.reads, op.reads[::-1]):
            conv = self.producer(mine)
            if conv and not conv.blocked and len(conv.reads) == 1 and "activation" not in conv.attributes:
                conv.reads.append(self.out_of_blocks(other, op.module))
                self.steps.remove(conv)
                self.steps.append(conv)
                self.renamed(op, mine)
                return True
        return False

    def activation(self, op: Op) -> bool:
        """An activation that does not care for the layout stays in blocks."""
        x = op.reads[0]
        if x not in self.blocked:
            return False
        out = self.blocked[op.writes[0]] = self.value(op.writes[0])
        kind = PLAIN.get(op.spec.kind) or BLOCKED_FUSED[op.spec.kind]
        self.add(Step(kind, [self.blocked[x]], out, scalars(op), op.module))
        return True

    def pool(self, op: Op) -> bool:
        x, kind = op.reads[0], POOLS[op.spec.kind]
        if kind == "GlobalAveragePool" and self.shapes[op.writes[0]].shape[2:] != (1, 1):
            return False
        blocks = self.shapes[x].shape[1] % BLOCK == 0 and (kind != "GlobalAveragePool" or x in self.blocked)
        attributes: dict[str, object] = {}
        if kind != "GlobalAveragePool":
            size = pair(op.spec.param("kernel_size"))
            stride = pair(op.spec.param("stride")) if op.spec.param("stride") else size
            attributes = {"kernel_shape": size, "strides": stride, "pads": 2 * pair(op.spec.param("padding", 0))}
        if not blocks:
            self.add(Step(kind, [self.out_of_blocks(x, op.module)], op.writes[0], [], op.module, attributes))
            return True
        out = self.blocked[op.writes[0]] = self.value(op.writes[0])
        self.add(Step(kind, [self.into_blocks(x, op.module)], out, [], op.module, attributes, blocked=True))
        return True

    def linear(self, op: Op) -> None:
        x, weights = op.reads[0], [t for t in op.spec.inputs if t.weight]
        x = self.out_of_blocks(x, op.module)
        if len(self.shapes[x].shape) == 2:
            self.add(Step("Gemm", [x], op.writes[0], weights, op.module))
            return
        turned = replace(weights[0], shape=weights[0].shape[::-1])
        if len(weights) == 1:
            self.add(Step("MatMul", [x], op.writes[0], [turned], op.module))
            return
        rows = math.prod(self.shapes[x].shape[:-1])
        flat, product = self.flat(x, rows), self.flat(op.writes[0], rows)
        self.add(Step("Gemm", [flat], product, [turned, weights[1]], op.module))
        self.made[op.writes[0]] = self.made[product]
        self.free += 2

    def flat(self, value: int, rows: int) -> int:
        """A value as a matrix."""
        number, self.next = self.next, self.next + 1
        spec = self.shapes[value]
        self.shapes[number] = TensorSpec("x", (rows, spec.shape[-1]), spec.dtype)
        return number

    def apart(self, op: Op) -> None:
        """A function without a kernel: a chain of others, and the product with its argument."""
        x = link = self.out_of_blocks(op.reads[0], op.module)
        for kind in APART[op.spec.kind]:
            made, self.next = self.next, self.next + 1
            self.shapes[made] = self.shapes[x]
            self.add(Step(kind, [link], made, [], op.module))
            link = made
        self.add(Step("Mul", [x, link], op.writes[0], [], op.module))

    def skip_norm(self, op: Op) -> bool:
        """A layer norm of a sum is one kernel with the addition."""
        total = self.made.get(op.reads[0])
        if total is None or total.kind != "Add" or len(total.reads) != 2 or len(self.shapes[total.write].shape) != 3:
            return False
        if self.uses[op.reads[0]] > 1 or len({self.shapes[v].shape for v in total.reads}) > 1:
            return False
        self.steps.remove(total)
        weights = [t for t in op.spec.inputs if t.weight]
        self.add(Step("SkipLayerNormalization", total.reads, op.writes[0], weights, op.module))
        return True

    def split(self, op: Op) -> bool:
        """Parts of a transposed value: split first, then each part is transposed where it is read."""
        turned = self.made.get(op.reads[0])
        if op.spec.kind != "unbind" or turned is None or turned.kind != "Transpose" or op.spec.param("dim", 0) != 0:
            return False
        source, perm = turned.reads[0], turned.attributes["perm"]
        assert isinstance(perm, tuple)
        self.steps.remove(turned)
        whole = self.shapes[source]
        part = tuple(1 if axis == perm[0] else n for axis, n in enumerate(whole.shape))
        parts = [self.fresh(part, whole.dtype) for _ in op.writes]
        sizes = TensorSpec("other", (len(parts),), "int64", weight=True)
        self.add(Step("Split", [source], parts[0], [sizes], op.module, also=parts[1:]))
        self.parts |= {written: (made, perm) for written, made in zip(op.writes, parts, strict=True)}
        self.free += len(parts)
        return True

    def part(self, value: int, module: str, *, turned: bool = False) -> int:
        """A part in the order it is read in: heads first; `turned` swaps its last two axes as well."""
        if value not in self.parts:
            return self.out_of_blocks(value, module)
        made, perm = self.parts[value]
        shape = self.shapes[made].shape
        if turned:  # the axis of length one has gone before
            rest = tuple(n for axis, n in enumerate(shape) if axis != perm[0])
            axes = tuple(p - (p > perm[0]) for p in (*perm[1:-2], perm[-1], perm[-2]))
            flat = self.fresh(rest, "float32")
            out = self.fresh(tuple(rest[a] for a in axes), "float32")
            self.add(Step("Transpose", [flat], out, [], module, {"perm": axes}))
            return out
        out = self.fresh(tuple(shape[a] for a in perm), "float32")
        self.add(Step("Transpose", [made], out, [], module, {"perm": perm}))
        squeezed = self.fresh(self.shapes[out].shape[1:], "float32")
        return squeezed

    def attention(self, op: Op) -> bool:
        """Fused attention is taken apart: two products and a softmax; the scale goes into the first."""
        if op.spec.kind != "scaled_dot_product_attention" or len(op.reads) != 3 or op.spec.param("is_causal"):
            return False
        if not all(v in self.parts for v in op.reads):
            return False
        q, v = (self.part(op.reads[i], op.module) for i in (0, 2))
        k = self.part(op.reads[1], op.module, turned=True)
        scores = self.fresh((*self.shapes[q].shape[:-1], self.shapes[k].shape[-1]), "float32")
        shares = self.fresh(self.shapes[scores].shape, "float32")
        self.add(Step("MatMul", [q, k], scores, [], op.module))
        self.add(Step("Softmax", [scores], shares, [], op.module, {"axis": -1}))
        self.add(Step("MatMul", [shares, v], op.writes[0], [], op.module))
        return True

    def fresh(self, shape: tuple[int, ...], dtype: str) -> int:
        """A new value."""
        number, self.next = self.next, self.next + 1
        self.shapes[number] = TensorSpec("x", shape, dtype)
        return number

    def alias(self, op: Op) -> None:
        """A view: a node without a kernel."""
        for v in op.reads:
            self.out_of_blocks(v, op.module)
        self.free += 1
        for written in op.writes:
            if op.reads and op.reads[0] in self.made:
                self.made.setdefault(written, self.made[op.reads[0]])

    def plain_op(self, op: Op) -> None:
        reads = [
            self.out_of_blocks(v, op.module) for v, t in zip(op.reads, op.spec.inputs, strict=True) if not t.weight
        ]
        weights = [t for t in op.spec.inputs if t.weight] + scalars(op)
        kind = PLAIN.get(op.spec.kind, op.spec.kind)
        self.add(Step(kind, reads, op.writes[0], weights, op.module, attributes_of(op)))


def lower(graph: Graph, runtime: str) -> Network:
    """Kernels of a traced graph, in the order they run."""
    state = _Lowering(graph)
    for op in graph.ops:
        state.op(op)
    for value in graph.output_values:
        state.out_of_blocks(value, "")
    moved, written, placed = 0, dict.fromkeys(graph.input_values, 0), list[Placed]()
    for step in state.steps:
        kernel = kernel_of(_node(step, state))
        if kernel is None:
            continue
        source = next((v for v in step.reads if v in written), None)
        placed.append(Placed(kernel, step.module, moved - written[source] if source is not None else -1))
        moved += kernel.cost.bytes
        written[step.write] = moved
        written |= dict.fromkeys(step.also, moved)
    return Network(tuple(placed), len(state.steps) + state.free, runtime)


def _node(step: Step, state: _Lowering) -> Node:
    values = [replace(state.shapes[v], name="x", weight=False, elements=-1, layout="contiguous") for v in step.reads]
    inputs = (values[0], *step.weights, *values[1:]) if step.kind == "Conv" else (*values, *step.weights)
    output = replace(state.shapes[step.write], name="x", elements=-1, layout="contiguous")
    outputs = (output,) * (1 + len(step.also))
    return Node("", step.kind, step.blocked, tuple(inputs), outputs, step.attributes)
