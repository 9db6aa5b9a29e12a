"""Running networks with OpenVINO on the CPU.

A module is converted by OpenVINO's own PyTorch front end, in float32. After compiling, the graph that runs can be
read. Every node that is executed is a kernel, and names the traced ops that it holds by module and kind. A convolution
into which a batch norm was folded has lost its name, and is recognised by its shapes. Executed nodes that hold no op
are copies: changes of layout, transpositions, scalings of weights. Times come from OpenVINO's counters, which are
means over inferences in whole microseconds.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcost.graph import Graph
from hwcost.runtimes.base import Between, RuntimeUnavailable, nothing, vanishing
from hwcost.runtimes.groups import Copy, Flow, Group, network_of
from hwcost.runtimes.openvino.lowering import OpenVino, folded
from hwcost.tracing.fast_path import by_parts

try:
    import openvino as ov
except ImportError as error:
    raise RuntimeUnavailable("runtime openvino needs the package openvino; install hwcost[openvino]") from error

_LEAST = 3  # the fewest inferences that a profile takes means over
_CUT = 0.5e-6  # s; what one rounding down to whole microseconds takes off on average
_NAMED = re.compile(r"(?:__module(?:\.(?P<path>[^/]*))?/)?aten::(?P<kind>\w+)/")
_ALIASES = {"_convolution": "conv", "convolution": "conv"}
# Kinds of nodes that always run. The counters call them not executed where they take less than a microsecond.
_RUNS = frozenset({"Pooling", "Reduce", "Softmax", "MVN", "Eltwise"})


def prepare(module: Any, inputs: Sequence[Any], *, threads: int) -> OpenVinoSession:
    """A session of the converted and compiled module."""
    return OpenVinoSession(module, inputs, threads)


def environment() -> dict[str, str]:
    """Versions of OpenVINO and of torch, whose module is converted, and the precision that OpenVINO computes in."""
    import torch

    return {"openvino": ov.get_version(), "torch": torch.__version__, "precision": "f32"}


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
        whole = trace(module, tuple(inputs))
        graph = folded(whole.by_parts or whole)
        self.network = network_of(matched(nodes, graph), graph, OpenVino.name)

    def run(self) -> Any:
        """One inference; returns a tensor, or a tuple of them, in memory that the next run overwrites."""
        self._plain.infer(share_outputs=True)
        return self._outputs[0] if len(self._outputs) == 1 else self._outputs

    def profile(self, runs: int = 1, between: Between = nothing) -> NDArray[np.float64]:
        """Seconds of each kernel, [runs, kernels]. All rows are the same, since OpenVINO counts no single inferences:
        the mean over `runs` inferences, three at least, times the ratio of the quickest of these to their mean.

        Counters are means since compiling, in whole microseconds. A profile therefore compiles anew and subtracts the
        inferences that warm up, which leaves an error of about a microsecond a kernel; what rounding takes off on
        average is added again (`_whole`). All inferences lie between the first two calls of `between`.
        """
        compiled, counted = self._counted(), max(runs, _LEAST)
        request = self._bound(compiled)
        before, _ = self._means(request, self.warm_ups)
        between()
        total, quickest = self._means(request, counted)
        for _ in range(runs):
            between()
        # Kernels are found by their places among the nodes, which stay. Names of copies change with each compiling, and
        # counters call a node that takes less than a microsecond not executed.
        every = read_nodes(compiled.get_runtime_model())
        names = [every[i].name for i in self._places]
        warm = self.warm_ups
        seconds = [(total[n] * (warm + counted) - before[n] * warm) / counted for n in names]
        return np.tile(_whole(np.array(seconds, dtype=np.float64)) * quickest, (runs, 1))

    def _means(self, request: Any, runs: int) -> tuple[dict[str, float], float]:
        """Run `runs` inferences. Returns the mean seconds of each node, by its name, over all inferences of the request
        so far, and the ratio of the quickest of these `runs` to their mean."""
        walls = []
        for _ in range(runs):
            start = time.perf_counter()
            request.infer(share_outputs=True)
            walls.append(time.perf_counter() - start)
        means = {p.node_name: p.real_time.total_seconds() for p in request.profiling_info}
        return means, min(walls) / float(np.mean(walls))

    def _bound(self, compiled: Any) -> Any:
        """A request that reads the inputs where they lie in memory, so that a run need not pass or copy them."""
        request = compiled.create_infer_request()
        for place, feed in enumerate(self._feeds):
            request.set_input_tensor(place, feed)
        return request

    def _counted(self) -> Any:
        """The model compiled anew, with counters that start at 0."""
        return ov.Core().compile_model(self._model, "CPU", self._settings)


def _whole(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times (s) from the counters' times (s), to which what rounding down took off on average is added.

    OpenVINO rounds the time of each inference down to a whole microsecond, and then their mean (`PerfCount` in its CPU
    plugin), so that half a microsecond is missing twice. A time of 0 or less was below a microsecond in every
    inference, and counts as half a microsecond.
    """
    return np.where(counted > 0.0, counted + 2 * _CUT, _CUT)


# -- the graph that runs --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the compiled graph."""

    name: str
    kind: str  # OpenVINO's layer type
    origins: tuple[str, ...]  # names, before compiling, of the layers that it holds
    inputs: tuple[tuple[int, ...], ...]  # shapes
    output: tuple[int, ...]  # shape of the first output, () where it has none


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
    """The ops of a graph, grouped by the nodes that hold them, in the order the nodes run.

    An op that no node names is put into the node of an op that it reads, or else of one that reads it. A node that
    holds no op is a copy of a tensor with the shape of its output.
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
    """Finds the traced ops that nodes hold; each op is found once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._named: defaultdict[tuple[str, str], deque[int]] = defaultdict(deque)
        self._found: set[int] = set()
        for number, op in enumerate(graph.ops):
            if op.state != "free":
                self._named[op.module, _common(op.spec.kind)].append(number)

    def find(self, node: Node) -> list[int]:
        """Numbers of the ops that a node names; where a convolution names no convolution, one of its shapes too."""
        names = [m for m in map(_NAMED.match, node.origins) if m]
        named = dict.fromkeys((m.group("path") or "", _common(m.group("kind"))) for m in names)
        found = [n for path, kind in named for n in self._next(path, kind)]
        if node.kind in ("Convolution", "Deconvolution") and not any(self._is_convolution(n) for n in found):
            found += self._by_shape(node)
        self._found.update(found)
        return found

    def _next(self, path: str, kind: str) -> list[int]:
        """The first op of that module and kind that was not found yet; none where there is none left."""
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
    """The kind under which both OpenVINO and the trace know an op."""
    kind = _ALIASES.get(kind, kind).rstrip("_")
    return "conv" if kind.startswith("conv") and kind[-1] == "d" else kind


def _adopt(graph: Graph, homes: dict[int, int]) -> None:
    """Put ops without a node into the node of an op that they read, or else of one that reads them."""
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
