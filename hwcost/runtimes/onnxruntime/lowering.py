"""How ONNX Runtime lowers a traced graph on an x86 CPU: rules, without ONNX Runtime.

In this order:

1. `export` writes the nodes of the ONNX export.
2. `fusions` fuses them, and moves transpositions (`transposes`).
3. `blocked_layout` puts convolutions and what surrounds them into the blocked layout, in which blocks of channels lie
   together in memory. Nodes and values in it are called *in blocks*.
4. Here, additions are fused into convolutions that are not in blocks, hardswish that is not in blocks is decomposed,
   and the nodes are sorted into the order they run (`run_order`). Each becomes a kernel (`nodes`) unless it moves no
   data.

All this works on a `Sketch`, a graph that can be changed (`mutable_graph`). The rules are those of the version named in
`VERSION`; tests compare them with its optimised graphs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import hwcost.runtimes.onnxruntime.export_layout
import hwcost.runtimes.onnxruntime.export_recurrent  # noqa: F401 - these two register their functions
from hwcost.graph import Graph, OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.runtimes.base import Network, Placed, Runtime
from hwcost.runtimes.onnxruntime.blocked_layout import Blocks, block_size
from hwcost.runtimes.onnxruntime.export import Export
from hwcost.runtimes.onnxruntime.fusions import IN_CONV, fuse
from hwcost.runtimes.onnxruntime.mutable_graph import Sketch, Step, Value, sole_maker
from hwcost.runtimes.onnxruntime.nodes import Node, kernel_of
from hwcost.runtimes.onnxruntime.run_order import file_order, run_order
from hwcost.runtimes.registry import register_runtime
from hwcost.runtimes.reuse import Reuse

VERSION = "1.32"
_DESCRIBING = (  # attributes of nodes that the description of a kernel depends on
    "strides", "pads", "dilations", "group", "kernel_shape", "perm", "axis", "mode", "activation", "equation",
)  # fmt: skip


class OnnxRuntime(Runtime):
    """ONNX Runtime on an x86 CPU; has no state."""

    name = "onnxruntime"
    session = "hwcost.runtimes.onnxruntime.session"

    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """Fold and fuse as ONNX Runtime does; a block has as many channels as a vector register of the target holds.

        A part reads its feature maps in the blocked layout, images excepted, and leaves in it what it makes there.
        """
        sketch = optimised(graph.by_parts or graph, part=part, lanes=lanes)
        return _placed(sketch, self.name, graph.since)


register_runtime(OnnxRuntime())


def optimised(graph: Graph, *, part: bool = False, lanes: int | None = None) -> Sketch:
    """The nodes that ONNX Runtime makes of a traced graph, in the order they run."""
    sketch = Export(graph).sketch
    fuse(sketch)
    if not part:
        decompose(sketch, only_outputs=True)
    Blocks(sketch, block_size(lanes), part=part).run()
    add_into_plain_conv(sketch)
    decompose(sketch)
    sketch.clean()
    as_they_run(sketch)
    return sketch


def as_they_run(sketch: Sketch) -> None:
    """Sort the nodes of a graph in place, into the order in which ONNX Runtime runs them."""
    number = {id(step): place for place, step in enumerate(sketch.steps)}
    makers = [[number[id(v.maker)] for v in step.reads if id(v.maker) in number] for step in sketch.steps]
    outputs = [number[id(v.maker)] for v in sketch.outputs if id(v.maker) in number]
    sketch.steps = [sketch.steps[place] for place in run_order(makers, file_order(makers, outputs))]


def add_into_plain_conv(sketch: Sketch) -> None:
    """Fuse an addition, and an activation after it, into a convolution that has a bias and is not in blocks."""
    for add in sketch:
        if add.kind != "Add" or len({v.shape for v in add.reads}) > 1 or len(add.out.shape) != 4:
            continue
        for mine, other in (add.reads, add.reads[::-1]):
            conv = sole_maker(mine, "Conv")
            if conv is None or conv.blocked or "activation" in conv.attributes or len(conv.reads) != 3:
                continue
            after = add.out.readers[0] if add.out.uses == len(add.out.readers) == 1 else None
            last = add if after is None or after.kind not in IN_CONV else after
            if last is not add:
                conv.attributes["activation"] = last.kind.encode()
            made = Step("Conv", [*conv.reads, other], [Value(mine.shape)], conv.module, conv.attributes)
            sketch.put(made)
            sketch.replace(last.out, made.out)
            sketch.drop(last)
            break
    sketch.sort()


def decompose(sketch: Sketch, *, only_outputs: bool = False) -> None:
    """Decompose hardswish, which has a kernel in blocks only, into x * hardsigmoid(x).

    With `only_outputs`, only where its result is an output of the network: there ONNX Runtime decomposes it before it
    chooses the blocked layout.
    """
    for step in sketch:
        if step.kind == "HardSwish" and (step.out.kept or not only_outputs):
            step.kind = "HardSigmoid"
            product = Step("Mul", [step.reads[0], step.out], [Value(step.out.shape)], step.module)
            sketch.replace(step.out, product.out)
            sketch.put(product)
    sketch.sort()


def _placed(sketch: Sketch, runtime: str, since: int) -> Network:
    """The nodes of an optimised graph as kernels. `since` bytes were moved between the writing of its inputs and the
    first kernel."""
    made = dict.fromkeys(id(v) for step in sketch.steps for v in step.writes)
    read = dict.fromkeys(id(v) for step in sketch.steps for v in step.reads if not v.constant)
    given = [value for value in read if value not in made]
    number = {value: place for place, value in enumerate((*given, *made))}
    reuse, placed = Reuse([number[value] for value in given], since), list[Placed]()
    for step in sketch.steps:
        kernel, moves = _kernel_of(step)
        reads = [(number[id(v)], v.bytes) for v in step.reads if not v.constant]
        writes = [number[id(v)] for v in step.writes]
        if kernel is not None:
            placed.append(Placed(kernel, step.module, reuse.step(reads, moves, writes)))
        elif reads:
            reuse.view(reads[0][0], writes)
        else:
            reuse.step((), 0, writes)
    return Network(tuple(placed), len(sketch.steps), runtime)


def _kernel_of(step: Step) -> tuple[Kernel | None, int]:
    """The kernel of a node and its traffic (byte); None and 0 where it moves no data."""
    if "traced" in step.attributes:
        return _traced(step.attributes["traced"])
    return _kernel(
        step.kind,
        step.blocked,
        tuple([(v.shape, v.dtype, v.constant) for v in step.reads]),
        tuple([(v.shape, v.dtype) for v in step.writes]),
        tuple([(name, step.attributes[name]) for name in _DESCRIBING if name in step.attributes]),
    )


def _traced(spec: OpSpec) -> tuple[Kernel, int]:
    """The kernel of an op that has no ONNX operator, and its traffic (byte)."""
    kernel = Kernel((spec,))
    return kernel, kernel.cost.bytes


@lru_cache(maxsize=1 << 16)
def _kernel(
    kind: str,
    blocked: bool,
    reads: tuple[tuple[tuple[int, ...], str, bool], ...],
    writes: tuple[tuple[tuple[int, ...], str], ...],
    attributes: tuple[tuple[str, Any], ...],
) -> tuple[Kernel | None, int]:
    """As `_kernel_of`, from what describes a node; cached, since networks repeat their blocks."""
    inputs = tuple(TensorSpec("x", shape, dtype, weight=constant) for shape, dtype, constant in reads)
    outputs = tuple(TensorSpec("x", shape, dtype) for shape, dtype in writes)
    kernel = kernel_of(Node("", kind, blocked, inputs, outputs, dict(attributes)))
    return kernel, kernel.cost.bytes if kernel is not None else 0
