"""What advice recognises in a graph: convolutions, activations, and chains of ops of which each feeds only the next."""

from __future__ import annotations

from dataclasses import dataclass

from hwcost.advise.edits import reshape
from hwcost.graph import Graph, Op, OpSpec, Param, TensorSpec

CONVOLUTIONS = ("conv2d", "convolution")
COSTLY = (
    "gelu",
    "silu",
    "mish",
    "elu",
    "celu",
    "selu",
    "softplus",
    "hardswish",
)  # activations that cost more than ReLU
ACTIVATIONS = (*COSTLY, "relu", "relu6", "hardtanh", "leaky_relu")
Pair = tuple[int, int]


class Chain:
    """Finds the only op that follows another, where there is only one."""

    def __init__(self, graph: Graph) -> None:
        self._ops = graph.ops
        self._readers: dict[int, list[int]] = {}
        for i, op in enumerate(graph.ops):
            for value in set(op.reads):
                self._readers.setdefault(value, []).append(i)
        self._outputs = set(graph.output_values)

    def next(self, i: int) -> int | None:
        """Index of the only op that reads what op `i` wrote, or of the next one that changes it in place.

        None where several ops read it, where it is an output of the network, or where op `i` writes several values.
        """
        op = self._ops[i]
        if len(op.writes) != 1:
            return None
        value = op.writes[0]
        readers = [r for r in self._readers.get(value, ()) if r > i]
        if readers and value in self._ops[readers[0]].writes:
            return readers[0]
        return readers[0] if len(readers) == 1 and value not in self._outputs else None


@dataclass(frozen=True)
class Conv:
    """A two-dimensional convolution with a square window, read from its op."""

    op: Op
    channels: int  # of the input
    out: int  # channels of the output
    window: int  # height and width of the filter
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        return self.groups == self.channels > 1

    def make(self, x: TensorSpec, result: TensorSpec, **other: int | Pair) -> OpSpec:
        """A convolution from `x` to `result` with the settings of this one, except those in `other`."""
        now = {name: getattr(self, name) for name in ("window", "stride", "padding", "dilation", "groups")} | other
        old = self.op.spec
        weight = reshape(old.inputs[1], result.shape[1], x.shape[1] // now["groups"], now["window"], now["window"])
        biases = [reshape(t, result.shape[1]) for t in old.inputs[2:] if t.name == "bias"]
        plain: dict[str, Param] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        params = tuple(sorted((name, now[name]) for name in plain if now[name] != plain[name]))
        return OpSpec("conv2d", (x, weight, *biases), (result,), params)


def conv_of(op: Op) -> Conv | None:
    """The convolution that an op is; None for other ops and for convolutions that are not as `Conv` describes."""
    spec = op.spec
    if spec.kind not in CONVOLUTIONS or spec.param("transposed") or len(spec.inputs) < 2:
        return None
    x, weight = spec.inputs[0].shape, spec.inputs[1].shape
    stride = _pair(spec.param("stride", 1))
    padding = _pair(spec.param("padding", 0))
    dilation = _pair(spec.param("dilation", 1))
    groups = spec.param("groups", 1)
    if len(x) != 4 or len(weight) != 4 or weight[2] != weight[3] or not isinstance(groups, int):
        return None
    if stride is None or padding is None or dilation is None:
        return None
    return Conv(op, x[1], weight[0], weight[2], stride, padding, dilation, groups)


def _pair(value: Param) -> Pair | None:
    """A setting of both axes; one number, or a list of one, counts for both."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
        return (value * 2)[0], (value * 2)[1]  # type: ignore[return-value]
    return None
