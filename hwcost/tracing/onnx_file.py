"""From an ONNX file to a Graph, counted by the rules that count a torch module.

A node becomes the ops that it corresponds to (`onnx_nodes`): "Conv" becomes "conv2d". A node without a counterpart gets
its own name, as "onnx.NonMaxSuppression", and is reported as uncounted where no rule has that name. Shapes come from
ONNX's shape inference (`onnx_shapes`); the caller gives the sizes that a file leaves open. Initialisers count as
weights. Their data is not read, but for the few numbers that shapes follow from, so that a file whose weights lie in
another file can be counted without that.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hwcost.tracing.onnx_compound
import hwcost.tracing.onnx_readers  # noqa: F401 - these two register their functions
from hwcost.cost import Cost
from hwcost.foreign import one_line
from hwcost.graph import Graph, Life, Op, Param, TensorSpec
from hwcost.rules.registry import cost_of
from hwcost.tracing.onnx_branches import branch_of, first_branching, first_loop, put_in_place, without_functions
from hwcost.tracing.onnx_inputs import OnnxError, load, set_inputs, tensor_of, weight_of, weights_of
from hwcost.tracing.onnx_nodes import NodeView, Operand, Part, parts_of
from hwcost.tracing.onnx_shapes import constants, settle, unsettled

__all__ = ["OnnxError", "onnx_graph"]


def onnx_graph(path: str | Path, inputs: Sequence[Sequence[int]] = ()) -> Graph:
    """The graph of the network in an ONNX file.

    Args:
        path: the file.
        inputs: shape of each input, in order; needed where the file leaves a size open.

    Raises:
        OnnxError: there is no such file, it is no ONNX model, the size of an input is open, shape inference does not
            find the shape of a value, or the network holds a loop or a value that is no tensor of numbers.
    """
    model = load(path)
    notes = [f"read from {Path(path).name}; batch norm's statistics count as parameters there"]
    try:
        model = without_functions(model)
        set_inputs(model, inputs)
        weights = weights_of(model.graph)
        model = _infer(model)
        loop = first_loop(model.graph)
        if loop is not None:
            raise OnnxError(
                f"{loop.op_type} {loop.name or loop.output[0]}: loops are not counted, since how often a body runs may "
                "depend on values; export the network with its loops unrolled"
            )
        while (node := first_branching(model.graph)) is not None:
            model, own = _decided(model, node, notes)
            weights |= own
        return _Reader(model, weights, notes).graph()
    except OnnxError:
        raise
    except Exception as error:
        raise OnnxError(
            f"{path} must be an ONNX model, but could not be read ({one_line(error) or type(error).__name__})"
        ) from error


def _decided(model: Any, node: Any, notes: list[str]) -> tuple[Any, set[str]]:
    """The model with one branch in place of an If, and the names of the weights that came with it.

    Where the file does not say which branch runs, it is the dearer one, and a note says so.
    """
    known = constants(model.graph).get(node.input[0])
    names: tuple[str, ...] = ("then_branch", "else_branch")
    if known is not None:
        names = names[:1] if bool(known.reshape(-1)[0]) else names[1:]
    tried = []
    for name in names:
        copy = type(model)()
        copy.CopyFrom(model)
        same = next(n for n in copy.graph.node if n.output == node.output)
        branch = branch_of(same, name)
        own = {f"{node.output[0]}/{branch.name}/{name}" for name in weights_of(branch)}
        written = put_in_place(copy.graph, same, branch)
        copy = _infer(copy)
        tried.append((_Reader(copy, own, []).cost_of(written), copy, own, name))
    _, dearer, own, name = max(tried, key=lambda each: (each[0].flops, each[0].bytes))
    if known is None:
        notes.append(f"If {node.name or node.output[0]} runs one of two branches: the dearer one is counted ({name})")
    return dearer, own


def _infer(model: Any) -> Any:
    """The model with the shapes that follow from sizes which the network computes.

    Constants are folded first; ONNX Runtime's symbolic inference is asked for what is missing then, if installed.
    """
    model = settle(model)
    if not unsettled(model) or first_branching(model.graph) is not None or first_loop(model.graph) is not None:
        return model
    try:
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
    except ImportError:
        return model  # the reader names the first shape that is missing
    left_behind = Path("sym_shape_infer_temp.onnx")  # what it writes into the working folder where it gives up
    was_there = left_behind.exists()
    try:
        return SymbolicShapeInference.infer_shapes(model, auto_merge=True) or model  # None for old opsets
    except Exception:  # it knows fewer kinds of nodes than ONNX has: the reader names the first shape that is missing
        return model
    finally:
        if not was_there:
            left_behind.unlink(missing_ok=True)


class _Reader:
    """Makes a graph in one pass over the nodes of a model.

    `weights` are the names of the initialisers that are the network's own; others hold arithmetic on shapes.
    """

    def __init__(self, model: Any, weights: set[str], notes: Sequence[str]) -> None:
        self._graph, self._own, self._notes = model.graph, set(weights), tuple(notes)
        self._opsets = {o.domain: o.version for o in model.opset_import}
        self._values = constants(model.graph)
        self._weights = {w.name: weight_of(w) for w in self._graph.initializer}
        self._shapes: dict[str, TensorSpec | str] = dict(self._weights)  # a text says why there is no description
        for value in (*self._graph.input, *self._graph.value_info, *self._graph.output):
            spec = tensor_of(value)
            if spec is not None and value.name not in self._weights:
                self._shapes[value.name] = spec
        self._used = {name for node in self._graph.node for name in node.input} | {o.name for o in self._graph.output}
        self._read = set[str]()  # what an op reads
        self._numbers: dict[str, int] = {}  # of values, by name
        self._homes: dict[str, str] = {}  # from the name of a view to that of the value whose memory it shares
        self._ops: list[Op] = []

    def graph(self) -> Graph:
        """The graph of all nodes."""
        for node in self._graph.node:
            self._ops += self._node(node)
        inputs = [i.name for i in self._graph.input if i.name not in self._weights]
        weights = {n: w for n, w in self._weights.items() if n in self._read and isinstance(w, TensorSpec)}
        return Graph(
            ops=tuple(self._ops),
            inputs=tuple(replace(self._spec(name, "the input"), name="input") for name in inputs),
            input_values=tuple(self._number(name) for name in inputs),
            output_values=tuple(self._number(o.name) for o in self._graph.output),
            params=sum(w.numel for name, w in weights.items() if name in self._own and _is_parameter(w)),
            weight_bytes=sum(w.bytes for w in weights.values()),
            lives=self._lives(inputs),
            notes=self._notes,
        )

    def cost_of(self, written: Sequence[str]) -> Cost:
        """The cost of the nodes that write these values, as far as their shapes are known."""
        found, names = Cost(), set(written)
        for node in self._graph.node:
            if names & set(node.output) and all(isinstance(self._shapes.get(n), TensorSpec) for n in node.output if n):
                found = sum((op.cost for op in self._node(node)), found)
        return found

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _spec(self, name: str, what: str) -> TensorSpec:
        """The description of a value.

        Raises:
            OnnxError: its shape is not known, or it is no tensor of numbers.
        """
        found = self._shapes.get(name)
        if isinstance(found, TensorSpec):
            return found
        if found is None:
            raise OnnxError(
                f"{what}: the shape of {name} does not follow from the inputs; "
                "give every input size, or export with static shapes"
            )
        raise OnnxError(f"{what}: {name} {found}")

    def _operand(self, name: str, what: str) -> Operand | None:
        return Operand(name, self._spec(name, what), self._values.get(name)) if name else None

    def _node(self, node: Any) -> list[Op]:
        """The ops of a node."""
        what = f"{node.op_type} {node.name or next(filter(None, node.output), '')}"
        written = [
            name if name in self._used or isinstance(self._shapes.get(name), TensorSpec) else "" for name in node.output
        ]
        view = NodeView(
            node.op_type,
            node.domain,
            {a.name: _attribute(a) for a in node.attribute},
            tuple(self._operand(name, what) for name in node.input),
            tuple(self._operand(name, what) for name in _kept(node, written, self._used)),
            self._opsets.get(node.domain, self._opsets.get("", 1)),
        )
        return [self._op(node, part) for part in parts_of(view)]

    def _op(self, node: Any, part: Part) -> Op:
        cost, state, reason = cost_of(part.spec)
        if part.view:
            self._homes.update(dict.fromkeys(part.writes[:1], self._homes.get(part.reads[0], part.reads[0])))
            source = self._shapes.get(part.reads[0])
            if isinstance(source, TensorSpec) and source.weight:  # a view of a weight is a weight
                spec = self._spec(part.writes[0], node.op_type)
                self._shapes[part.writes[0]] = replace(spec, weight=True)
        if state != "free":
            self._read.update(self._homes.get(name, name) for name in part.reads)
        reads, writes = (tuple(self._number(name) for name in names) for names in (part.reads, part.writes))
        return Op(f"onnx.{node.op_type}", part.spec, _module(node), reads, writes, cost, state, reason)

    def _lives(self, inputs: list[str]) -> tuple[Life, ...]:
        """Lives of all activations: from the op that writes one to the last op that reads it or a view of it."""
        end = max(len(self._ops) - 1, 0)
        names = {number: name for name, number in self._numbers.items()}
        born = dict.fromkeys(inputs, -1)
        dies = dict.fromkeys((self._homes.get(o.name, o.name) for o in self._graph.output), end)
        for i, op in enumerate(self._ops):
            for value in (*op.reads, *op.writes):
                home = self._homes.get(names[value], names[value])
                if home not in self._weights:
                    born.setdefault(home, i)
                    dies[home] = max(i, dies.get(home, i))
        dies.update(dict.fromkeys(inputs, end))
        shapes = {name: spec for name, spec in self._shapes.items() if isinstance(spec, TensorSpec) and not spec.weight}
        return tuple(Life(shapes[name].bytes, born.get(name, 0), at) for name, at in dies.items() if name in shapes)


def _kept(node: Any, written: Sequence[str], used: set[str]) -> list[str]:
    """The outputs of a node; the mask of a Dropout is left out where nobody reads it, since it is not made then."""
    return [
        "" if i and node.op_type in ("Dropout", "MaxPool") and name not in used else name
        for i, name in enumerate(written)
    ]


def _is_parameter(weight: TensorSpec) -> bool:
    """Whether an initialiser counts as parameters: numbers, also quantised ones that have an axis, but no indices."""
    quantised = weight.dtype in ("int8", "uint8") and bool(weight.shape)
    return quantised or "float" in weight.dtype or "complex" in weight.dtype


def _attribute(attribute: Any) -> Param:
    """The value of a node's attribute; None for a tensor or a graph."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (int, float, str)):
        return value
    if not hasattr(value, "__iter__"):
        return None
    items = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in value]
    return tuple(items) if all(isinstance(v, (int, float, str)) for v in items) else None


def _module(node: Any) -> str:
    """Path of the torch module that a node came from: as torch's exporter notes it, or else from the node's name."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = ast.literal_eval(entry.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    path = ""
    for part in node.name.strip("/").split("/")[:-1]:
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
    return path
