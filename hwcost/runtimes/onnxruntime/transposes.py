"""How ONNX Runtime moves transpositions behind the nodes that read them, so that some cancel.

A node can work on the order of axes before a transposition, and its output be transposed instead of its inputs. Here a
transposition costs as many units as its tensor has axes longer than 1. ONNX Runtime moves one where two things hold:
the transpositions of the inputs then cost less, and the new transposition of the output meets another one further on,
with which it may cancel, or costs less than what was saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwcost.runtimes.onnxruntime.mutable_graph import Sketch, Step, Value

# Elementwise operators of one input.
ALIKE = frozenset({
    "Cast", "Exp", "Identity", "LeakyRelu", "Log", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh", "Abs", "Not",
    "Ceil", "Floor", "Neg", "Erf", "HardSigmoid", "Round", "IsNaN", "Selu", "Sign", "Softplus", "Softsign", "Celu",
    "HardSwish", "Sin", "Cos", "Gelu", "FastGelu",
})  # fmt: skip
# Elementwise operators of several inputs, which broadcast.
BROADCAST = frozenset({
    "Add", "Max", "Min", "Mul", "Sub", "Div", "And", "Or", "PRelu", "Equal", "Greater", "Less", "GreaterOrEqual",
    "LessOrEqual", "Pow", "Where",
})  # fmt: skip
REDUCING = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2"})
# Operators of which only the first input holds data; the others are numbers, sizes or indices.
FIRST = (
    frozenset({"Clip", "Split", "Slice", "Softmax", "LogSoftmax", "Pad", "Squeeze", "Unsqueeze", "Gather"}) | REDUCING
)
# Operators that ONNX Runtime counts as ones it can move a transposition past; not every one is moved past here.
HANDLED = ALIKE | BROADCAST | FIRST | {"Concat", "Transpose", "Reshape", "Tile", "ArgMax"}
Perm = tuple[int, ...]  # axis i of the output is axis perm[i] of the input


def push_transposes(sketch: Sketch) -> bool:
    """Visit all nodes once, and move transpositions behind them; returns whether anything changed."""
    if not any(step.kind == "Transpose" for step in sketch.steps):
        return False
    changed, leading = False, _leading(sketch)
    for step in sketch:
        for index, value in enumerate(step.reads):
            maker = value.maker
            if maker is None or maker.kind != "Transpose" or step.dead:
                continue
            if _process(sketch, maker, step, index, leading):
                changed = True
                break
    if changed:
        sketch.sort()
    return changed


def _leading(sketch: Sketch) -> set[int]:
    """Ids of the values that lead to a transposition: one reads them, or reads what handled nodes make of them."""
    found = set[int]()
    for step in reversed(sketch.steps):
        if step.kind == "Transpose":
            found.add(id(step.reads[0]))
        elif step.kind in HANDLED and step.kind != "Reshape" and any(id(v) in found for v in step.writes):
            found |= {id(step.reads[i]) for i in _inputs(step)}
    return found


def _inputs(step: Step) -> list[int]:
    """Indices of the inputs that have the axes of the output."""
    if step.kind in BROADCAST:
        return [i for i, v in enumerate(step.reads) if v.shape]
    return list(range(len(step.reads))) if step.kind == "Concat" or step.kind in ALIKE else [0]


def _turning_cost(value: Value) -> int:
    """What a transposition of a value costs: its number of axes longer than 1."""
    return sum(n != 1 for n in value.shape)


def _removable(value: Value) -> bool:
    """Whether a transposition that makes this value would be gone once it has moved past all readers of the value."""
    return not value.kept and all(r.kind in HANDLED for r in value.readers)


def _process(sketch: Sketch, turn: Step, step: Step, index: int, leading: set[int]) -> bool:
    """Move the transposition `turn`, which is input `index` of a node, behind that node, where ONNX Runtime would.

    Returns whether the graph changed.
    """
    perm: Perm = turn.attributes["perm"]
    if step.kind == "Transpose":
        return _merge(sketch, turn, step)
    if step.kind not in HANDLED or step.kind in ("Tile", "ArgMax"):
        return False
    if step.kind == "Reshape":
        return step.reads[0].uses == 1 and _split_before(sketch, turn, step)
    if step.kind == "Gather" and "at" not in step.attributes:
        return False
    indices = _inputs(step)
    if index not in indices or any(len(step.reads[i].shape) > len(perm) for i in indices):
        return False
    cost = 0
    for i in indices:
        value = step.reads[i]
        if value.constant:
            continue
        if value.maker is not None and value.maker.kind == "Transpose":
            cost -= _turning_cost(value) if value.maker.attributes["perm"] == perm and _removable(value) else 0
        else:
            cost += _turning_cost(value)
    if cost < 0 and not any(id(v) in leading for v in step.writes):
        cost += max(_turning_cost(v) for v in step.writes)
    if cost >= 0:
        return False
    _push(sketch, step, perm, indices)
    return True


def _split_before(sketch: Sketch, turn: Step, step: Step) -> bool:
    """Move a reshape that only splits axes before the transposition that it reads; returns whether that was done.

    It is where another transposition reads the result, or a convolution for which the axes come back from channels
    last.
    """
    perm: Perm = turn.attributes["perm"]
    rest, groups = list(step.out.shape), list[list[int]]()
    for size in turn.out.shape:
        group = list[int]()
        while rest and (not group or math.prod(group) < size):
            group.append(rest.pop(0))
        if math.prod(group) != size:
            return False
        groups.append(group)
    if rest:
        return False
    inverse = [perm.index(i) for i in range(len(perm))]
    start, starts = 0, dict[int, int]()
    for axis in inverse:  # in the order of the axes before the transposition
        starts[axis], start = start, start + len(groups[axis])
    full = tuple(starts[axis] + i for axis, group in enumerate(groups) for i in range(len(group)))
    reader = step.out.readers[0].kind if step.out.uses == len(step.out.readers) == 1 else ""
    if reader != "Transpose" and not (reader == "Conv" and full == (0, 3, 1, 2)):
        return False
    shape = tuple(n for axis in inverse for n in groups[axis])
    split = sketch.add("Reshape", [turn.reads[0]], shape, step.module)
    sketch.replace(step.out, sketch.add("Transpose", [split], step.out.shape, turn.module, perm=full))
    sketch.drop(step)
    return True


def _merge(sketch: Sketch, turn: Step, step: Step) -> bool:
    """Two transpositions in a row become one, or none where they cancel."""
    perm = tuple(turn.attributes["perm"][p] for p in step.attributes["perm"])
    source = turn.reads[0]
    if perm == tuple(range(len(perm))):
        sketch.replace(step.out, source)
        sketch.drop(step)
    else:
        sketch.read(step, 0, source)
        step.attributes["perm"] = perm
    if not turn.out.uses:
        sketch.drop(turn)
    return True


def _push(sketch: Sketch, step: Step, perm: Perm, indices: Sequence[int]) -> None:
    """Undo `perm` on the inputs of these indices, and transpose the outputs of the node instead."""
    inverse = tuple(perm.index(i) for i in range(len(perm)))
    for i in indices:
        _turn_input(sketch, step, i, inverse)
    after = _turned_attributes(step, perm)
    if after == tuple(range(len(after))):
        return
    back = tuple(after.index(i) for i in range(len(after)))
    for old in list(step.writes):
        new = Value(tuple(old.shape[p] for p in back), old.dtype, maker=step)
        step.writes[step.writes.index(old)] = new
        old.maker = None
        turn = Step("Transpose", [new], [old], step.module, {"perm": after})
        sketch.put(turn)


def _turn_input(sketch: Sketch, step: Step, index: int, perm: Perm) -> None:
    """Transpose an input of a node by `perm`, merged with the transposition that makes it where there is one."""
    value = step.reads[index]
    if len(value.shape) < len(perm):  # broadcast: the leading axes become explicit
        shape = (*(1 for _ in range(len(perm) - len(value.shape))), *value.shape)
        longer = Value(shape, value.dtype, constant=value.constant, number=value.number)
        if not value.constant:
            longer = sketch.add("Unsqueeze", [value], shape, step.module)
        sketch.read(step, index, longer)
        value = longer
    shape = tuple(value.shape[p] for p in perm)
    maker = value.maker
    if value.constant:
        sketch.read(step, index, Value(shape, value.dtype, constant=True, number=(value.number, perm)))
        return
    source, full = value, perm
    if maker is not None and maker.kind == "Transpose":
        source, full = maker.reads[0], tuple(maker.attributes["perm"][p] for p in perm)
    if full == tuple(range(len(full))):
        new = source
    else:
        known = (r.out for r in source.readers if r.kind == "Transpose" and r.attributes["perm"] == full)
        new = next(known, None) or sketch.add("Transpose", [source], shape, step.module, perm=full)
    sketch.read(step, index, new)
    if maker is not None and maker.kind == "Transpose" and not value.uses:
        sketch.drop(maker)


def _turned_attributes(step: Step, perm: Perm) -> Perm:
    """Change the attributes of a node whose input is no longer transposed by `perm`.

    Returns the transposition that its outputs then need.
    """
    attributes = step.attributes
    if "axis" in attributes:
        attributes["axis"] = perm[attributes["axis"] % len(perm)]
    axes: Perm = attributes.get("axes", ())
    if step.kind == "Gather":  # of a single index, so that the output lacks the axis
        gone, axis = attributes["axis"], perm.index(attributes["axis"])
        return tuple(p - (gone < p) for i, p in enumerate(perm) if i != axis)
    if step.kind == "Unsqueeze":
        rank = len(perm) + len(axes)
        rest = [i for i in range(rank) if i not in axes]
        turned = iter(rest[p] for p in perm)
        return tuple(i if i in axes else next(turned) for i in range(rank))
    if axes:
        attributes["axes"] = away = tuple(sorted(perm[a] for a in axes))
        if step.kind == "Squeeze" or (step.kind in REDUCING and not attributes["keep"]):
            return tuple(p - sum(g < p for g in away) for i, p in enumerate(perm) if i not in axes)
    return perm
