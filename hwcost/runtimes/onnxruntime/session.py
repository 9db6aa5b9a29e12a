"""Running networks with ONNX Runtime on the CPU.

A module is exported, optimised for this CPU by ONNX Runtime itself, and run from the optimised graph, whose nodes are
the kernels. Times per node come from ONNX Runtime's own profile, in whole microseconds. Each profile is taken in a
session of its own, since ONNX Runtime profiles a session only once.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hwcost.graph import TensorSpec
from hwcost.runtimes.base import Between, Network, Placed, RuntimeUnavailable, nothing, vanishing
from hwcost.runtimes.onnxruntime.lowering import OnnxRuntime
from hwcost.runtimes.onnxruntime.nodes import Node, dtype_of, kernel_of
from hwcost.runtimes.onnxruntime.run_order import file_order
from hwcost.runtimes.reuse import Reuse
from hwcost.tracing.fast_path import by_parts

try:
    import onnx
    import onnxruntime as ort
except ImportError as error:
    raise RuntimeUnavailable(f"runtime onnxruntime needs the package {error.name}; install hwcost[onnx]") from error

_OPSET = 17
_PROVIDERS = ["CPUExecutionProvider"]


def prepare(module: Any, inputs: Sequence[Any], *, threads: int) -> OnnxSession:
    """A session of the exported and optimised module."""
    return OnnxSession(module, inputs, threads)


def environment() -> dict[str, str]:
    """Versions of ONNX Runtime, of onnx, and of torch, which exports the module, and the opset of the export."""
    import torch

    return {
        "onnxruntime": ort.__version__,
        "onnx": onnx.__version__,
        "torch": torch.__version__,
        "opset": str(_OPSET),
    }


def export(module: Any, inputs: Sequence[Any]) -> bytes:
    """The module as an ONNX file, with torch's attention layers by their parts."""
    import torch

    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad(), by_parts():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, tuple(inputs), cast(Any, buffer), dynamo=False, opset_version=_OPSET)
    return buffer.getvalue()


class OnnxSession:
    """A module exported and optimised, on a stated number of threads."""

    sleeps, warm_ups = False, 2

    def __init__(self, module: Any, inputs: Sequence[Any], threads: int) -> None:
        self._threads = threads
        self._folder = Path(tempfile.mkdtemp(prefix="hwcost-"))  # ONNX Runtime writes its profiles there
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        model = self._optimised(export(module, inputs))
        self._model = model.SerializeToString()
        self._session = ort.InferenceSession(self._model, self._options(), providers=_PROVIDERS)
        names = [i.name for i in self._session.get_inputs()]
        self._feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        nodes = read_nodes(model, self._last(json.loads(self._profiled(1)), 1))
        self._names = [n.name for n in nodes]
        self._timed = np.array([kernel_of(n) is not None for n in nodes], dtype=bool)
        self.network = network_of(nodes, model)

    def run(self) -> Any:
        """One inference; returns a tensor, or a tuple of them."""
        import torch

        outputs = tuple(torch.from_numpy(x) for x in self._session.run(None, self._feeds))
        return outputs[0] if len(outputs) == 1 else outputs

    def profile(self, runs: int = 1, between: Between = nothing) -> NDArray[np.float64]:
        """Seconds of each kernel in `runs` inferences, [runs, kernels].

        Raises:
            RuntimeError: the profiled inferences ran other nodes than the first one.
        """
        events = self._last(without_arguments(self._profiled(runs, between)), runs)
        if [e["name"] for e in events] != [f"{n}_kernel_time" for n in self._names] * runs:
            raise RuntimeError("a profiled run must run the nodes of the optimised graph, but it ran others")
        seconds = np.array([e["dur"] for e in events], dtype=np.float64).reshape(runs, -1) * 1e-6
        times: NDArray[np.float64] = seconds[:, self._timed]
        return times

    def _options(self) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", str(int(vanishing())))  # of threads it starts
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def _optimised(self, exported: bytes) -> Any:
        """The graph as ONNX Runtime optimises it for this CPU, its nodes in a fixed order and each with a name."""
        options = self._options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        with tempfile.TemporaryDirectory() as folder:
            options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
            ort.InferenceSession(exported, options, providers=_PROVIDERS)
            model = onnx.load(options.optimized_model_filepath)
        nodes = in_order(model.graph)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}#{number}"  # functions that were inlined have none
        return model

    def _profiled(self, runs: int, between: Between = nothing) -> str:
        """The profile, in JSON, that a new session writes in the inferences that warm up and `runs` more."""
        options = self._options()
        options.enable_profiling, options.profile_file_prefix = True, str(self._folder / "profile")
        session = ort.InferenceSession(self._model, options, providers=_PROVIDERS)
        for _ in range(self.warm_ups):
            session.run(None, self._feeds)
        for _ in range(runs):
            between()
            session.run(None, self._feeds)
        between()
        written = Path(session.end_profiling())
        profile = written.read_text(encoding="utf-8")
        written.unlink()
        return profile

    def _last(self, events: Sequence[Mapping[str, Any]], runs: int) -> Sequence[Mapping[str, Any]]:
        """Of the events of a profile of `runs` inferences, those of nodes, without the inferences that warm up."""
        nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
        return nodes[len(nodes) // (self.warm_ups + runs) * self.warm_ups :]


def without_arguments(profile: str) -> list[dict[str, Any]]:
    """The events of a profile without their arguments (tensors and threads).

    Arguments are most of the text, and only the first profile of a session needs them. ONNX Runtime writes each event
    on a line of its own, with the arguments last, so that they can be cut off before the text is parsed.
    """
    events = (line.rstrip(",").partition(',"args" :')[0] for line in profile.split("\n") if line.startswith("{"))
    found: list[dict[str, Any]] = json.loads("[" + ",".join(e if e.endswith("}") else e + "}" for e in events) + "]")
    return found


# -- the optimised graph ----------------------------------------------------------------------------


def in_order(graph: Any) -> list[Any]:
    """Copies of the nodes of an ONNX graph in a fixed order (`run_order.file_order`)."""
    made = {name: number for number, node in enumerate(graph.node) for name in node.output}
    reads = [[made[name] for name in _reads(node) if name in made] for node in graph.node]
    order = file_order(reads, [made[output.name] for output in graph.output if output.name in made])
    return [type(graph.node[number]).FromString(graph.node[number].SerializeToString()) for number in order]


def _reads(node: Any) -> Iterator[str]:
    """Names of the values that a node reads, itself or in a subgraph that it holds."""
    yield from node.input
    for attribute in node.attribute:
        for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            for each in inner.node:
                yield from _reads(each)


def read_nodes(model: Any, events: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Nodes in the order they ran; shapes of activations are read from the events, of weights from the model."""
    weights = {i.name: tuple(i.dims) for i in model.graph.initializer}
    by_name = {n.name: n for n in model.graph.node}
    return [_node(by_name[e["name"].removesuffix("_kernel_time")], e["args"], weights) for e in events]


def _node(node: Any, args: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> Node:
    seen = iter(_tensors(args.get("input_type_shape", [])))
    inputs = []
    for name in node.input:
        if not name:
            continue
        tensor = next(seen, None)
        if name in weights:  # the profile has no shape for a weight that was packed: the next shape is another input's
            shape = weights[name]
            if tensor is not None and tensor.shape != shape:
                seen = iter([tensor, *seen])
            inputs.append(TensorSpec(name, shape, "float32" if tensor is None else tensor.dtype, weight=True))
        elif tensor is not None:
            inputs.append(replace(tensor, name=name))
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    outputs = tuple(_tensors(args.get("output_type_shape", [])))
    return Node(node.name, node.op_type, "nchwc" in node.domain, tuple(inputs), outputs, attributes)


def _tensors(described: Sequence[Mapping[str, Sequence[int]]]) -> list[TensorSpec]:
    return [TensorSpec("x", tuple(shape), dtype_of(dtype)) for each in described for dtype, shape in each.items()]


def network_of(nodes: Sequence[Node], model: Any) -> Network:
    """The network of the nodes of a model, in the order they ran."""
    raw = {n.name: n for n in model.graph.node}
    given = [i.name for i in model.graph.input]
    made = [name for node in nodes for name in raw[node.name].output]
    number = {name: place for place, name in enumerate(dict.fromkeys([*given, *made]))}
    reuse, placed = Reuse([number[name] for name in given], 0), list[Placed]()
    for node in nodes:
        kernel = kernel_of(node)
        reads = [(number[t.name], t.bytes) for t in node.inputs if t.name in number]
        writes = [number[name] for name in raw[node.name].output]
        if kernel is not None:
            placed.append(Placed(kernel, module_path(node.name), reuse.step(reads, kernel.cost.bytes, writes)))
        elif reads:
            reuse.view(reads[0][0], writes)
        else:
            reuse.step((), 0, writes)
    return Network(tuple(placed), len(nodes), OnnxRuntime.name)


def module_path(name: str) -> str:
    """The path of the module that a node comes from: "stages.0.body.1" for "/stages/stages.0/body/body.1/Conv"."""
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        if parts and part.startswith(parts[-1] + "."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)
