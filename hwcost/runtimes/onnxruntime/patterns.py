"""Patterns of several nodes that ONNX Runtime replaces by one on its second level of optimisation (see `fusions`).

A pass changes the graph that it is given, and returns whether it changed anything.
"""

from __future__ import annotations

import math

from hwcost.runtimes.onnxruntime.mutable_graph import Sketch, Step, Value, sole_maker


def scale_in_matmul(sketch: Sketch) -> bool:
    """Scaling an operand or the result of a matrix product by a number is fused into the product."""
    changed = False
    for step in sketch:
        if step.kind not in ("MatMul", "FusedMatMul") or step.out.dtype != "float32":
            continue
        for index, value in enumerate(step.reads):
            maker = value.maker
            if maker is not None and _scales(maker):
                sketch.read(step, index, maker.reads[_scaled(maker)])
                if not value.uses:
                    sketch.drop(maker)
                step.kind, changed = "FusedMatMul", True
        after = step.out.readers[0] if step.out.uses == 1 and step.out.readers else None
        if after is not None and _scales(after) and after.reads[_scaled(after)] is step.out:
            sketch.bypass(after) if _scaled(after) == 0 else sketch.replace(after.out, step.out)
            sketch.drop(after)
            step.kind, changed = "FusedMatMul", True
    return changed


def _scales(step: Step) -> bool:
    """Whether a node multiplies a tensor by one constant number, or divides it by one."""
    numbers = [v for v in step.reads[: 2 if step.kind == "Mul" else 0] if v.constant] or (
        step.reads[1:] if step.kind == "Div" and step.reads[1].constant else []
    )
    return len(numbers) == 1 and math.prod(numbers[0].shape) == 1 and len(numbers[0].shape) < 2


def _scaled(step: Step) -> int:
    """Index of the input that such a node scales."""
    return 1 if step.reads[0].constant else 0


def product_before_gelu(sketch: Sketch) -> bool:
    """A GELU of an elementwise product is run by its parts, x (1 + erf(x / sqrt(2))) / 2, as in ONNX Runtime 1.32."""
    changed = False
    for step in sketch:
        maker = step.reads[0].maker if step.kind == "Gelu" else None
        if maker is None or maker.kind != "Mul":
            continue
        x, number = maker.out, Value((), step.out.dtype, constant=True)
        shape, module = step.out.shape, step.module
        erf = sketch.add("Erf", [sketch.add("Div", [x, number], shape, module)], shape, module)
        product = sketch.add("Mul", [x, sketch.add("Add", [erf, number], shape, module)], shape, module)
        sketch.replace(step.out, sketch.add("Mul", [product, number], shape, module))
        sketch.drop(step)
        changed = True
    if changed:
        sketch.sort()
    return changed


def bias_into_gelu(sketch: Sketch) -> bool:
    """The addition of a bias before a GELU is fused into it."""
    changed = False
    for step in sketch:
        total = sole_maker(step.reads[0], "Add") if step.kind == "Gelu" and len(step.reads) == 1 else None
        if total is None:
            continue
        for x, bias in (total.reads, total.reads[::-1]):
            if bias.constant and bias.shape == step.out.shape[-1:]:
                sketch.replace(step.out, sketch.add("BiasGelu", [x, bias], step.out.shape, step.module))
                sketch.drop(step)
                changed = True
                break
    if changed:
        sketch.sort()
    return changed


def add_into_norm(sketch: Sketch) -> bool:
    """An addition is fused into the layer norm of its result."""
    changed = False
    for step in sketch:
        total = sole_maker(step.reads[0], "Add") if step.kind == "LayerNormalization" else None
        if total is None or len(total.out.shape) != 3 or any(v.shape != total.out.shape for v in total.reads):
            continue
        norm = sketch.add("SkipLayerNormalization", [*total.reads, *step.reads[1:]], step.out.shape, step.module)
        sketch.replace(step.out, norm)
        sketch.drop(step)
        changed = True
    if changed:
        sketch.sort()
    return changed


def gate_to_silu(sketch: Sketch) -> bool:
    """x * sigmoid(x) and x * sigmoid(c x), c a number, become one node."""
    changed = False
    for step in sketch:
        if step.kind != "Mul":
            continue
        for x, gate in (step.reads, step.reads[::-1]):
            sigmoid = sole_maker(gate, "Sigmoid")
            if sigmoid is not None and x in (sigmoid.reads[0], unscaled(sigmoid.reads[0])):
                sketch.replace(step.out, sketch.add("QuickGelu", [x], step.out.shape, step.module))
                sketch.drop(step)
                changed = True
                break
    if changed:
        sketch.sort()
    return changed


def unscaled(value: Value) -> Value | None:
    """x, where a value is a constant number times x and read once; else None."""
    maker = sole_maker(value, "Mul")
    return maker.reads[_scaled(maker)] if maker is not None and _scales(maker) else None


def parts_to_gelu(sketch: Sketch) -> bool:
    """The GELU approximated by tanh, x (1 + tanh(c (x + d x^3))) / 2 with the cube as a power, becomes one node."""
    changed = False
    for step in sketch:
        cubic = unscaled(step.reads[0]) if step.kind == "Tanh" else None
        total = sole_maker(cubic, "Add") if cubic is not None else None
        if total is None or step.out.uses != 1:
            continue
        x = total.reads[0]
        one = step.out.readers[0]
        product = one.out.readers[0] if one.kind == "Add" and one.out.uses == len(one.out.readers) == 1 else None
        if product is None or product.kind != "Mul" or not any(v.constant for v in one.reads):
            continue
        other = product.reads[1 - product.reads.index(one.out)]
        if other is x:  # halved afterwards
            product = product.out.readers[0] if product.out.uses == len(product.out.readers) == 1 else product
        elif unscaled(other) is not x:
            continue
        if _power(total.reads[1]) is not x:
            continue
        sketch.replace(product.out, sketch.add("FastGelu", [x], product.out.shape, product.module))
        sketch.drop(product)
        changed = True
    if changed:
        sketch.sort()
    return changed


def _power(value: Value) -> Value | None:
    """x, where a value is a number times a power of x; else None."""
    raised = unscaled(value)
    power = sole_maker(raised, "Pow") if raised is not None else None
    return power.reads[0] if power is not None else None


def parts_to_norm(sketch: Sketch) -> bool:
    """The root-mean-square norm, written w * (x * (1 / sqrt(mean(x^2) + e))), becomes one node."""
    changed = False
    for step in sketch:
        if step.kind != "Mul" or not any(v.constant for v in step.reads):
            continue
        weight, scaled = step.reads if step.reads[0].constant else step.reads[::-1]
        product = sole_maker(scaled, "Mul")
        root = None if product is None else _chain(product.reads[1], "Div", "Sqrt", "Add", "ReduceMean", "Pow")
        if product is None or root is None or root is not product.reads[0]:
            continue
        norm = sketch.add("SimplifiedLayerNormalization", [root, weight], step.out.shape, step.module)
        sketch.replace(step.out, norm)
        sketch.drop(step)
        changed = True
    if changed:
        sketch.sort()
    return changed


def _chain(value: Value, *kinds: str) -> Value | None:
    """Follow a chain of nodes back from the value that its last node makes.

    Returns the input of its first node; None where the nodes are not of these `kinds`, named from the last to the
    first, or where a value that they make is read more than once.
    """
    for kind in kinds:
        maker = sole_maker(value, kind)
        if maker is None:
            return None
        value = next(v for v in maker.reads if not v.constant)
    return value
