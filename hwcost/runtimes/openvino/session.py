"""OpenVINO on the CPU.

A module is converted by OpenVINO's own PyTorch front end, in float32. The graph that runs can be read
after compiling: every node that is executed is a kernel, and names the traced ops that it holds by module
and kind; a convolution that a batch norm was folded into has lost its name and is known by its shapes.
Executed nodes that name no op are copies: changes of layout, transpositions, scalings of weights. Times
come from OpenVINO's counters, which are means over inferences in whole microseconds.

`lower` needs neither a module nor OpenVINO: it folds batch norms and fuses what follows a convolution or
a matrix product, and copies into the channels-last layout and out of it. It does not foresee how shuffled
channels and other costed views are taken apart.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcost.graph import Graph, Op, TensorSpec
from hwcost.rules.registry import cost_of
from hwcost.runtimes.base import Between, Network, RuntimeUnavailable, by_parts, nothing, vanishing
from hwcost.runtimes.groups import Copy, Flow, Group, network_of

try:
    import openvino as ov
except ImportError as error:
    raise RuntimeUnavailable("runtime openvino needs the package openvino; install hwcost[openvino]") from error

_LEAST = 3  # inferences that a profile counts
_CUT = 0.5e-6  # s, that a count of whole microseconds lacks on average
_HEADS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "matmul"})  # what others are fused into
_FUSED = frozenset({
    "relu", "relu6", "hardtanh", "sigmoid", "tanh", "elu", "gelu", "silu", "hardswish", "hardsigmoid", "leaky_relu",
    "softplus", "mish", "clamp", "exp", "abs", "sqrt",
})  # fmt: skip
_POINTWISE = _FUSED | {"add", "sub", "mul", "div", "pow", "neg", "maximum", "minimum", "where"}
_NAMED = re.compile(r"(?:__module(?:\.(?P<path>[^/]*))?/)?aten::(?P<kind>\w+)/")
_ALIASES = {"_convolution": "conv", "convolution": "conv"}
_RUNS = frozenset({"Pooling", "Reduce", "Softmax", "MVN", "Eltwise"})  # below a microsecond not "executed", and run


class OpenVino:
    """The runtime; stateless."""

    name = "openvino"
    on_torch_threads = False

    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """Fold and fuse as OpenVINO does on a CPU; a part as if it were the whole."""
        whole = folded(graph)
        return network_of(groups_of(whole), whole, self.name)

    def prepare(self, module: Any, inputs: Sequence[Any], *, threads: int) -> OpenVinoSession:
        """Convert and compile."""
        return OpenVinoSession(module, inputs, threads)

    def environment(self) -> dict[str, str]:
        """Versions, of torch too: it makes the graph that is converted."""
        import torch

        return {"openvino": ov.get_version(), "torch": torch.__version__, "precision": "f32"}


RUNTIME = OpenVino()


class OpenVinoSession:
    """A module converted and compiled, on a stated number of threads."""

    sleeps, warm_ups = False, 2

    def __init__(self, module: Any, inputs: Sequence[Any], threads: int) -> None:
        import torch

        from hwcost.tracing.trace import trace

        settings = {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False, "CPU_DENORMALS_OPTIMIZATION": vanishing(),
        }  # fmt: skip
        with warnings.catch_warnings(), torch.no_grad(), by_parts():
            warnings.simplefilter("ignore")
            shapes = [tuple(x.shape) for x in inputs]
            model = ov.convert_model(module.eval(), example_input=tuple(inputs), input=shapes)
        self._feeds = [ov.Tensor(x.numpy(), shared_memory=True) for x in inputs]
        self._plain = self._bound(ov.Core().compile_model(model, "CPU", settings))
        outputs = range(len(model.outputs))
        self._outputs = tuple(torch.from_numpy(self._plain.get_output_tensor(i).data) for i in outputs)
        self._model, self._settings = model, settings | {"PERF_COUNT": True}
        compiled = self._counted()
        request = self._bound(compiled)
        request.infer(share_outputs=True)
        every = read_nodes(compiled.get_runtime_model())
        executed = {p.node_name for p in request.profiling_info if p.status.name == "EXECUTED"}
        self._places = [i for i, node in enumerate(every) if node.name in executed or node.kind in _RUNS]
        nodes = [every[i] for i in self._places]
        with by_parts():
            graph = folded(trace(module, tuple(inputs)))
        self.network = network_of(matched(nodes, graph), graph, RUNTIME.name)

    def run(self) -> Any:
        """One inference; a tensor, or a tuple of them, in memory that the next run overwrites."""
        self._plain.infer(share_outputs=True)
        return self._outputs[0] if len(self._outputs) == 1 else self._outputs

    def profile(self, runs: int = 1, between: Between = nothing) -> NDArray[np.float64]:
        """Seconds of each kernel, [runs, kernels]; every row is the mean over at least `runs` inferences, less what
        the quickest of them took less than the mean.

        Counters are averages since compiling, in whole microseconds: a profile compiles anew and takes
        the first inferences out, which leaves an error of a microsecond a kernel. All of it lies
        between the first two calls of `between`. What OpenVINO cuts off is put back in the mean (`_whole`).
        """
        compiled, counted = self._counted(), max(runs, _LEAST)
        request = self._bound(compiled)
        before, _ = self._means(request, self.warm_ups)
        between()
        total, quickest = self._means(request, counted)
        for _ in range(runs):
            between()
        # By place: each compiling numbers copies anew, and a node below a microsecond counts as not executed.
        every = read_nodes(compiled.get_runtime_model())
        names = [every[i].name for i in self._places]
        warm = self.warm_ups
        seconds = [(total[n] * (warm + counted) - before[n] * warm) / counted for n in names]
        return np.tile(_whole(np.array(seconds, dtype=np.float64)) * quickest, (runs, 1))

    def _means(self, request: Any, runs: int) -> tuple[dict[str, float], float]:
        """Mean seconds of each node in all inferences of a request so far, after `runs` more, and what the quickest of
        these took over what they took in the mean."""
        walls = []
        for _ in range(runs):
            start = time.perf_counter()
            request.infer(share_outputs=True)
            walls.append(time.perf_counter() - start)
        means = {p.node_name: p.real_time.total_seconds() for p in request.profiling_info}
        return means, min(walls) / float(np.mean(walls))

    def _bound(self, compiled: Any) -> Any:
        """A request that reads the inputs where they are, so that a run hands nothing over."""
        request = compiled.create_infer_request()
        for place, feed in enumerate(self._feeds):
            request.set_input_tensor(place, feed)
        return request

    def _counted(self) -> Any:
        return ov.Core().compile_model(self._model, "CPU", self._settings)


def _whole(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times (s) of which OpenVINO cut off the fraction of a microsecond, of each inference and of their mean
    (`PerfCount` in its CPU plugin): half a microsecond each on average; what reads 0 or less was below
    one every time."""
    return np.where(counted > 0.0, counted + 2 * _CUT, _CUT)


# -- the graph that runs --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the compiled graph."""

    name: str
    kind: str  # OpenVINO's layer type
    origins: tuple[str, ...]  # names of the layers that it holds
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]


def read_nodes(model: Any) -> list[Node]:
    """Nodes of a compiled graph in the order they run."""
    nodes = []
    for op in model.get_ordered_ops():
        info = {key: _text(value) for key, value in op.get_rt_info().items()}
        origins = tuple(o for o in info.get("originalLayersNames", "").split(",") if o)
        shapes = tuple(tuple(i.get_shape()) for i in op.inputs())
        output = tuple(op.outputs()[0].get_shape()) if op.outputs() else ()
        nodes.append(Node(op.get_friendly_name(), info.get("layerType", ""), origins, shapes, output))
    return nodes


def _text(value: Any) -> str:
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def matched(nodes: Sequence[Node], graph: Graph) -> list[Group]:
    """The ops of a graph by the nodes that hold them, in the order the nodes run.

    An op that no node names is in the node of what reads it, or else of what it reads.
    """
    finder, homes = _Finder(graph), dict[int, int]()
    for home, node in enumerate(nodes):
        for number in finder.find(node):
            homes.setdefault(number, home)
    _adopt(graph, homes)
    groups = [Group() for _ in nodes]
    for number, home in homes.items():
        groups[home].ops.append(number)
    last = 0
    for group, node in zip(groups, nodes, strict=True):
        last = max(group.ops, default=last)
        if not group.ops:
            group.copies.append(Copy(min(last, len(graph.ops) - 1), node.output))
    return groups


class _Finder:
    """Finds the ops of a node; each op is found once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._named: defaultdict[tuple[str, str], deque[int]] = defaultdict(deque)
        self._found: set[int] = set()
        for number, op in enumerate(graph.ops):
            if op.state != "free":
                self._named[op.module, _common(op.spec.kind)].append(number)

    def find(self, node: Node) -> list[int]:
        names = [m for m in map(_NAMED.match, node.origins) if m]
        named = dict.fromkeys((m.group("path") or "", _common(m.group("kind"))) for m in names)
        found = [n for path, kind in named for n in self._next(path, kind)]
        if node.kind in ("Convolution", "Deconvolution") and not any(self._is_convolution(n) for n in found):
            found += self._by_shape(node)
        self._found.update(found)
        return found

    def _next(self, path: str, kind: str) -> list[int]:
        waiting = self._named[path, kind]
        while waiting and waiting[0] in self._found:
            waiting.popleft()
        return [waiting.popleft()] if waiting else []

    def _is_convolution(self, number: int) -> bool:
        return _common(self._graph.ops[number].spec.kind) == "conv"

    def _by_shape(self, node: Node) -> list[int]:
        for number, op in enumerate(self._graph.ops):
            if self._is_convolution(number) and number not in self._found:
                weight = int(np.prod(node.inputs[1])) if len(node.inputs) > 1 else 0
                if op.spec.outputs[0].shape == node.output and op.spec.inputs[1].numel == weight:
                    return [number]
        return []


def _common(kind: str) -> str:
    """One word for what the two sides call differently."""
    kind = _ALIASES.get(kind, kind).rstrip("_")
    return "conv" if kind.startswith("conv") and kind[-1] == "d" else kind


def _adopt(graph: Graph, homes: dict[int, int]) -> None:
    """Give ops without a node to that of a neighbour, from the outputs to the inputs and back."""
    flow = Flow(graph)
    maker = {v: i for i, op in enumerate(graph.ops) if op.state != "free" for v in op.writes}
    numbers = [i for i, op in enumerate(graph.ops) if op.state != "free"]
    for number in numbers:
        reads = [maker[flow.origin[v]] for v in graph.ops[number].reads if flow.origin[v] in maker]
        near = [homes[r] for r in reads if r in homes]
        if number not in homes and near:
            homes[number] = max(near)
    for number in reversed(numbers):
        readers = [homes[r] for v in graph.ops[number].writes for r in flow.readers[v] if r in homes]
        if number not in homes and readers:
            homes[number] = min(readers)


# -- lowering -------------------------------------------------------------------------------------


def folded(graph: Graph) -> Graph:
    """The graph with batch norms folded into the convolutions whose only readers they are."""
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
        del ops[number]
    return replace(graph, ops=tuple(ops[i] for i in sorted(ops)))


def _with_bias(op: Op, writes: tuple[int, ...]) -> Op:
    spec, reads = op.spec, op.reads
    if spec.input("bias") is None:
        bias = TensorSpec("bias", (spec.inputs[1].shape[0],), spec.inputs[1].dtype, weight=True)
        spec, reads = replace(spec, inputs=(*spec.inputs[:2], bias)), (*reads[:2], -1)
    cost, state, reason = cost_of(spec)
    return replace(op, spec=spec, reads=reads, writes=writes, cost=cost, state=state, reason=reason)


def groups_of(graph: Graph) -> list[Group]:
    """Groups by rule: one a head with what follows it and is read nowhere else, chains of pointwise ops
    together, all else alone; copies into the channels-last layout and out of it, and for attention."""
    flow = Flow(graph)
    home: dict[int, Group] = {}  # value -> the group that writes it
    groups, turned = list[Group](), set[int]()  # values that are in channels-last
    for number, op in enumerate(graph.ops):
        groups += [Group(copies=[c]) for c in _copies(op, number, graph, turned)]
        if _turns(op, turned):
            turned.update(op.writes)
        if op.state == "free":
            continue
        group = _joined(op, number, graph, flow, home) or Group()
        groups = [g for g in groups if g is not group] + [group]  # it runs when the last of what it reads is there
        group.ops.append(number)
        home |= dict.fromkeys(op.writes, group)
    outputs = [
        t for op in graph.ops for t, v in zip(op.spec.outputs, op.writes, strict=True) if v in graph.output_values
    ]
    wide = [t for t, v in zip(outputs, graph.output_values, strict=False) if v in turned and _is_wide(t)]
    return groups + [Group(copies=[Copy(len(graph.ops) - 1, t.shape, t.dtype)]) for t in wide]


def _turns(op: Op, turned: set[int]) -> bool:
    """Whether an op writes channels-last."""
    if op.spec.kind in ("conv2d", "conv_transpose2d"):
        return True
    return bool(op.reads) and op.reads[0] in turned and len(op.spec.outputs[0].shape) == 4 and op.state != "free"


def _is_wide(tensor: TensorSpec) -> bool:
    """Whether a layout makes a difference."""
    return len(tensor.shape) == 4 and tensor.shape[1] > 1 and tensor.shape[2] * tensor.shape[3] > 1


def _copies(op: Op, number: int, graph: Graph, turned: set[int]) -> list[Copy]:
    """What is copied before an op runs."""
    inputs = op.spec.inputs
    if op.spec.kind == "conv2d" and op.reads[0] not in turned and _is_wide(inputs[0]):
        return [Copy(number, inputs[0].shape, inputs[0].dtype)]
    before = graph.ops[number - 1] if number else None
    if op.spec.kind == "unbind" and before is not None and before.spec.kind == "permute":
        return [Copy(number, inputs[0].shape, inputs[0].dtype)]  # heads first
    if op.spec.kind == "scaled_dot_product_attention":
        k = inputs[1]
        of_whole = any(o.spec.kind == "unbind" and op.reads[1] in o.writes for o in graph.ops)
        scaled = (1, *k.shape) if of_whole else k.shape
        return [Copy(number, scaled, k.dtype), Copy(number, (*k.shape[:-2], k.shape[-1], k.shape[-2]), k.dtype)]
    return []


def _joined(op: Op, number: int, graph: Graph, flow: Flow, home: Mapping[int, Group]) -> Group | None:
    """The group that an op joins, if what it reads is read by it alone."""
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
