"""Which nodes ONNX Runtime runs in its blocked layout ("nchwc"), and what it fuses there.

In that layout as many channels as a vector register holds floats form a *block*, and lie together in memory.
Convolutions and pools whose channels allow it run in blocks. What follows them stays in blocks where it can: sums
(fused into a convolution that makes one of their terms), products, activations, concatenations, norms, resizing. A
value is copied into the layout once, and out of it once, where another node needs it so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hwcost.runtimes.onnxruntime.mutable_graph import Sketch, Step, Value

ALIGNED = 4  # a number of channels that is copied into blocks must be a multiple of this
ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"})  # fused in blocks, also after a sum
IMAGE = 4  # an input of a part with at most this many channels is taken for an image, which is not in blocks
INDIFFERENT = frozenset({"Gelu", "QuickGelu"})  # elementwise, and run in either layout
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)  # permutations of a transposition to channels last, and back


@lru_cache(maxsize=8)
def block_size(lanes: int | None = None) -> int:
    """Channels of a block: 16 where a vector register holds 16 floats (AVX-512), else 8; None means this CPU."""
    if lanes is None:
        cpu = Path("/proc/cpuinfo")
        lanes = 16 if cpu.exists() and "avx512f" in cpu.read_text(encoding="utf-8", errors="replace") else 8
    return 16 if lanes >= 16 else 8


@dataclass(slots=True)
class _Twin:
    """The form in blocks of a value, the original, in whose place nodes in blocks read it."""

    value: Value
    step: Step  # the node that makes it
    uses: int  # how often the original was used when this was made
    left: int  # how often the original is still used, by nodes outside blocks
    channels: int  # of the original, without padding


@dataclass(frozen=True, slots=True)
class Form:
    """How a convolution runs in blocks. Its output always is in blocks."""

    weight: tuple[int, ...]  # shape, with the channels padded to whole blocks
    reorders: bool  # whether it reads its input in blocks too


def blocked_form(weight: Sequence[int], groups: int, block: int) -> Form | None:
    """How a convolution with a weight of that shape runs in blocks; None where its channels do not allow it."""
    out, into, *kernel = weight
    padded = -(-out // block) * block
    if groups > 1 and into == 1 and out == groups:
        return Form((padded, 1, *kernel), reorders=True) if out % ALIGNED == 0 else None
    if groups > 1:
        if out % block:
            return None
        fits = into % block == 0 and out % groups == 0 and out // groups % block == 0
        return Form(tuple(weight), reorders=True) if fits else None
    if into < block:
        return Form((padded, into, *kernel), reorders=False)
    if into % ALIGNED:
        return None
    return Form((padded, -(-into // block) * block, *kernel), reorders=True)


class Blocks:
    """The pass that puts nodes of a graph into blocks of `block` channels; `run` does it.

    In a `part` of a network, input maps with more channels than an image are in blocks already, and outputs that are
    made in blocks stay there.
    """

    def __init__(self, sketch: Sketch, block: int, *, part: bool = False) -> None:
        self.sketch, self.block, self.part = sketch, block, part
        self.twins: dict[int, _Twin] = {}  # by the id of the original
        self.originals: list[Value] = []  # the values that have a twin
        self.entered: dict[int, Value] = {}  # by the id of a value made outside blocks, its copy into blocks
        self.order: list[Step | None] = []  # nodes in their new order, None where one moved away
        self.place: dict[int, int] = {}  # by the id of a node, its index in `order`

    def run(self) -> None:
        """Change the graph: visit its nodes in order, then copy out of blocks what is read outside them."""
        if self.part:
            self.receive()
        for step in self.sketch:
            self.order.append(step)
            self.place[id(step)] = len(self.order) - 1
            handler = _HANDLERS.get(step.kind)
            if handler is not None:
                handler(self, step)
        self.sketch.steps = [step for step in self.order if step is not None]
        for original in self.originals:
            twin = self.twins[id(original)]
            if self.part and original.kept:  # the next part reads it in blocks
                original.kept, twin.value.kept = False, True
                self.sketch.outputs = [twin.value if v is original else v for v in self.sketch.outputs]
                twin.left -= 1
            if twin.left > 0:
                leave = Step("ReorderOutput", [twin.value], [original], twin.step.module, blocked=True)
                self.sketch.put(leave)
        self.sketch.sort()

    # -- layout ----------------------------------------------------------------------------------

    def receive(self) -> None:
        """Register the input maps of a part as values in blocks."""
        given = {id(v): v for step in self.sketch for v in step.reads if v.maker is None and not v.constant}
        for value in given.values():
            if len(value.shape) == 4 and value.shape[1] > IMAGE:
                before = Step("", [], [self.padded(value)], "")
                self.twins[id(value)] = _Twin(before.out, before, value.uses, value.uses, value.shape[1])
                self.originals.append(value)

    def padded(self, value: Value) -> Value:
        """A new value like the given one, with channels added up to whole blocks."""
        n, c, *rest = value.shape
        return Value((n, -(-c // self.block) * self.block, *rest), value.dtype)

    def twin(self, value: Value) -> _Twin | None:
        """The form in blocks of a value, None where it is not made in blocks."""
        return self.twins.get(id(value))

    def enter(self, step: Step, index: int) -> None:
        """Let a node read its input of that index in blocks, through a copy where it is not made there."""
        value = step.reads[index]
        twin = self.twin(value)
        if twin is not None:
            self.take(step, index, twin)
            return
        if id(value) not in self.entered:
            copy, source = self.padded(value), value
            turn = value.maker
            if turn is not None and turn.kind == "Transpose" and turn.attributes["perm"] == NCHW and value.uses == 1:
                source = turn.reads[0]  # the copy into blocks can read channels last, and so replaces the transposition
            self.sketch.put(Step("ReorderInput", [source], [copy], step.module, blocked=True))
            self.entered[id(value)] = copy
        self.sketch.read(step, index, self.entered[id(value)])
        if not value.uses and value.maker is not None:
            self.sketch.drop(value.maker)

    def take(self, step: Step, index: int, twin: _Twin) -> None:
        """Let a node read the form in blocks as its input of that index, instead of the original."""
        self.sketch.read(step, index, twin.value)
        twin.left -= 1

    def made(self, step: Step, *, blocked: bool = True) -> None:
        """Register that a node makes its output in blocks.

        `blocked` is whether the node itself is one of the blocked layout; an elementwise one or a concatenation is the
        same in either.
        """
        old = step.out
        new = self.padded(old)
        new.maker, old.maker = step, None
        step.writes = [new]
        step.blocked = blocked
        self.twins[id(old)] = _Twin(new, step, old.uses, old.uses, old.shape[1])
        self.originals.append(old)

    def fused(self, step: Step, twin: _Twin) -> None:
        """Remove a node that was fused into the one that makes `twin`, the form in blocks of one of its inputs."""
        old = step.out
        self.twins[id(old)] = _Twin(twin.value, twin.step, old.uses, old.uses, twin.channels)
        self.originals.append(old)
        for value in step.reads:
            value.readers.remove(step)
        step.dead = True
        # The node that it was fused into moves here, where all that it now reads has been made.
        self.order[self.place[id(step)]] = twin.step
        self.order[self.place[id(twin.step)]] = None
        self.place[id(twin.step)] = self.place[id(step)]

    # -- nodes -----------------------------------------------------------------------------------

    def conv(self, step: Step) -> None:
        """A convolution, with its weights padded to whole blocks."""
        weight = step.reads[1]
        if len(weight.shape) != 4 or not all(v.constant for v in step.reads[1:]):
            return
        form = blocked_form(weight.shape, step.attributes["group"], self.block)
        if form is None:
            return
        if form.reorders:
            self.enter(step, 0)
        if form.weight[0] != weight.shape[0] and step.attributes["group"] > 1:
            step.attributes["group"] = form.weight[0]
        shapes = (form.weight, form.weight[:1])
        weights = [Value(shape, constant=True) for shape, _ in zip(shapes, step.reads[1:], strict=False)]
        step.reads[1:] = weights
        for value in weights:
            value.readers.append(step)
        self.made(step)

    def pool(self, step: Step) -> None:
        """A pool with a window."""
        shape = step.reads[0].shape
        window = step.attributes.get("kernel_shape", shape[2:])
        fits = len(shape) == 4 and all(k <= 2 * n for k, n in zip(window, shape[2:], strict=True))
        if len(shape) == 4 and shape[1] % self.block == 0 and fits:
            self.enter(step, 0)
            self.made(step)

    def global_pool(self, step: Step) -> None:
        """A pool over a whole feature map, where the map is made in blocks or is an input of the network."""
        if self.twin(step.reads[0]) is not None or step.reads[0].maker is None:
            self.pool(step)

    def binary(self, step: Step) -> None:
        """A sum or product of two values of one shape in blocks; a sum is fused into a convolution where possible."""
        twins = [self.twin(v) for v in step.reads]
        known = [t for t in twins if t is not None]
        if len(known) < len(twins) or len({v.shape for v in step.reads}) > 1:
            if step.kind == "Mul" and known:
                self.scale(step)
            return
        for index, twin in enumerate(known):
            self.take(step, index, twin)
        if step.kind == "Add":
            for twin, other in (known, known[::-1]):
                conv = twin.step
                free = conv.kind == "Conv" and "activation" not in conv.attributes and "sum" not in conv.attributes
                if free and twin.uses == 1:
                    conv.attributes["sum"] = True
                    conv.reads.append(other.value)
                    other.value.readers.append(conv)
                    self.fused(step, twin)
                    return
        self.made(step, blocked=False)

    def scale(self, step: Step) -> None:
        """A product with a constant per channel becomes a depthwise convolution."""
        at = int(self.twin(step.reads[0]) is None)
        twin, other = self.twin(step.reads[at]), step.reads[1 - at]
        c = step.out.shape[1]
        if twin is None or not other.constant or other.shape not in ((c, 1, 1), (1, c, 1, 1)):
            return
        self.take(step, at, twin)
        channels = twin.value.shape[1]
        step.reads = [twin.value, Value((channels, 1, 1, 1), constant=True, readers=[step])]
        step.kind, step.attributes = "Conv", {"group": channels}
        self.made(step)

    def concat(self, step: Step) -> None:
        """A concatenation of the channels of values that fill whole blocks."""
        twins = [self.twin(v) for v in step.reads]
        known = [t for t in twins if t is not None and t.channels % self.block == 0]
        if len(known) < len(twins) or step.attributes["axis"] != 1:
            return
        for index, twin in enumerate(known):
            self.take(step, index, twin)
        self.made(step, blocked=False)

    def activation(self, step: Step) -> None:
        """An activation, fused into a convolution that nothing else reads."""
        twin = self.twin(step.reads[0])
        if twin is None:
            return
        conv = twin.step
        free = conv.kind == "Conv" and twin.uses == 1 and "activation" not in conv.attributes
        if free and step.kind in ACTIVATIONS:
            conv.attributes["activation"] = step.kind.encode()
            twin.left -= 1
            self.fused(step, twin)
        elif step.kind != "HardSwish":
            self.take(step, 0, twin)
            self.made(step, blocked=False)

    def norm(self, step: Step) -> None:
        """A batch norm of a value in blocks becomes a depthwise convolution."""
        twin = self.twin(step.reads[0])
        if twin is None:
            return
        self.take(step, 0, twin)
        channels = twin.value.shape[1]
        shapes = ((channels, 1, 1, 1), (channels,))
        step.reads[1:] = [Value(shape, constant=True, readers=[step]) for shape in shapes]
        step.kind, step.attributes = "Conv", {"group": channels}
        self.made(step)

    def transpose(self, step: Step) -> None:
        """A transposition to channels last of a value in blocks becomes the copy out of blocks, which can do it too."""
        twin = self.twin(step.reads[0])
        if twin is not None and step.attributes["perm"] == NHWC:
            self.take(step, 0, twin)
            step.kind, step.blocked, step.attributes = "ReorderOutput", True, {}

    def resize(self, step: Step) -> None:
        """Enlarging by whole factors."""
        twin = self.twin(step.reads[0])
        wanted = step.attributes
        if twin is None or not wanted["scaled"] or wanted["mode"] == b"cubic":
            return
        if any(f != int(f) or f < 1 for f in wanted["factors"]):
            return
        self.take(step, 0, twin)
        step.reads[1].readers.remove(step)
        step.reads[1:] = []
        step.kind = "Upsample"
        self.made(step)


_HANDLERS: Mapping[str, Callable[[Blocks, Step], None]] = {
    "Conv": Blocks.conv, "MaxPool": Blocks.pool, "AveragePool": Blocks.pool, "GlobalAveragePool": Blocks.global_pool,
    "GlobalMaxPool": Blocks.global_pool, "Add": Blocks.binary, "Mul": Blocks.binary, "Concat": Blocks.concat,
    "BatchNormalization": Blocks.norm, "Transpose": Blocks.transpose, "Resize": Blocks.resize,
} | dict.fromkeys(ACTIVATIONS | INDIFFERENT, Blocks.activation)  # fmt: skip
