"""Vocabulary of the ONNX Runtime lowering: which torch op is which node, and what a step of it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hwcost.graph import Op, TensorSpec

BLOCK = 8  # channels of a block on AVX2; 16 with AVX-512
ALIGNED = 4  # input channels of a dense convolution must be a multiple of this
FUSED = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "leaky_relu": "LeakyRelu", "hardsigmoid": "HardSigmoid",
          "hardtanh": "Clip", "relu6": "Clip"}  # fmt: skip
BLOCKED_FUSED = FUSED | {"hardswish": "HardSwish"}
PLAIN = {
    "add": "Add", "mul": "Mul", "sub": "Sub", "div": "Div", "elu": "Elu", "softplus": "Softplus", "gelu": "Gelu",
    "softmax": "Softmax", "layer_norm": "LayerNormalization", "batch_norm": "BatchNormalization", "cat": "Concat",
    "silu": "QuickGelu", "mean": "ReduceMean", "erf": "Erf", "conv_transpose2d": "ConvTranspose", "matmul": "MatMul",
    "upsample_nearest2d": "Resize", "upsample_bilinear2d": "Resize", "transpose": "Transpose", "permute": "Transpose",
    "flip": "Slice",
} | FUSED  # fmt: skip
AFTER_ADD = {"relu", "sigmoid", "tanh"}  # what is fused into a convolution that adds already
IN_BLOCKS = {"relu", "sigmoid", "tanh", "silu", "gelu"}
APART = {"hardswish": ("HardSigmoid",), "mish": ("Softplus", "Tanh")}  # and the product with the argument
SCALARS = {"hardtanh": 2, "relu6": 2}  # numbers that are inputs in ONNX
POOLS = {"max_pool2d": "MaxPool", "avg_pool2d": "AveragePool", "adaptive_avg_pool2d": "GlobalAveragePool"}


@dataclass(slots=True)
class Step:
    """A node in the making: reads and writes are value numbers."""

    kind: str
    reads: list[int]
    write: int
    weights: list[TensorSpec]
    module: str
    attributes: dict[str, object] = field(default_factory=dict)
    blocked: bool = False
    also: list[int] = field(default_factory=list)  # further outputs


def scalars(op: Op) -> list[TensorSpec]:
    """Numbers among the arguments, which ONNX gives as inputs."""
    if op.spec.kind == "flip":
        return [TensorSpec("other", (1,), "int64", weight=True)] * 4
    count = SCALARS.get(op.spec.kind, int(op.spec.kind in ("add", "sub", "mul", "div") and len(op.reads) == 1))
    return [TensorSpec("other", (), weight=True)] * count


def attributes_of(op: Op) -> dict[str, object]:
    """Attributes of the node that an op becomes."""
    spec, rank = op.spec, len(op.spec.outputs[0].shape)
    if spec.kind == "conv_transpose2d":
        return {
            "strides": pair(spec.param("stride", 1)), "pads": 2 * pair(spec.param("padding", 0)),
            "dilations": pair(spec.param("dilation", 1)), "group": spec.param("groups", 1),
        }  # fmt: skip
    if spec.kind == "transpose":
        axes = list(range(rank))
        a, b = (int(str(spec.param(name))) % rank for name in ("dim0", "dim1"))
        axes[a], axes[b] = b, a
        return {"perm": tuple(axes)}
    if spec.kind == "permute":
        return {"perm": spec.param("dims", ())}
    if spec.kind in ("softmax", "cat"):
        return {"axis": spec.param("dim", 0)}
    return {"mode": b"linear" if "bilinear" in spec.kind else b"nearest"}


@dataclass(frozen=True, slots=True)
class Form:
    """A convolution in blocks: its padded weight, and whether its input is in blocks too."""

    weight: tuple[int, ...]
    reorders: bool


def blocked_form(weight: Sequence[int], groups: int) -> Form | None:
    """How a convolution runs in blocks, None where its channels do not allow it."""
    out, into, *kernel = weight
    padded = -(-out // BLOCK) * BLOCK
    if groups > 1:
        if out % BLOCK:
            return None
        if into == 1 and out == groups:
            return Form(tuple(weight), reorders=True)
        whole = into % BLOCK == 0 and out % groups == 0 and out // groups % BLOCK == 0
        return Form(tuple(weight), reorders=True) if whole else None
    if into < BLOCK:
        return Form((padded, into, *kernel), reorders=False)
    if into % ALIGNED:
        return None
    return Form((padded, -(-into // BLOCK) * BLOCK, *kernel), reorders=True)


def pair(value: object) -> tuple[object, ...]:
    """A size of both axes, from one number or two."""
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return sides * 2 if len(sides) == 1 else sides
