"""`nas-bench-201`: the cells of NAS-Bench-201 as real networks (X. Dong, Y. Yang, ICLR 2020).

A cell has four nodes; each of its six edges (0->1, 0->2, 1->2, 0->3, 1->3, 2->3) carries none, skip, a 1x1 or
3x3 convolution (ReLU - conv - norm) or a 3x3 average pooling, and a node is the sum of its edges. The
network for 32 x 32 images is a stem (16 channels), five cells, a strided residual block (32), five cells,
another (64), five cells, and a head.

The network is built as one would deploy it: an edge `none` is left out instead of multiplying by zero; an edge that is
on no path from the cell's input to its output does not run, though its parameters exist; and the output of a cell
without any such path is zeros. Edges that are on such a path are called *alive*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import nn

from hwcost.kernel import bucket
from hwcost.spaces.base import Block, Decision, Params, Site, Space
from hwcost.spaces.layers import conv_norm
from hwcost.spaces.registry import register_space
from hwcost.tracing.trace import trace

OPS = ("none", "skip", "conv1x1", "conv3x3", "avgpool3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_NAMES = tuple(f"edge.{a}-{b}" for a, b in EDGES)
_PATHS = (((0, 3),), ((0, 1), (1, 3)), ((0, 2), (2, 3)), ((0, 1), (1, 2), (2, 3)))  # from input to output
STAGES, CELLS = (16, 32, 64), 5  # channels of each stage; cells of each
_OUTPUT = 3  # the last node
SIDE = 32


@register_space
class NasBench201(Space):
    """The space `nas-bench-201`; see the module. 15,625 cells."""

    name = "nas-bench-201"
    fine = True  # blocks are single edges and sums, which runtimes fuse with their neighbours
    decisions = tuple(Decision(f"edge.{a}-{b}", OPS) for a, b in EDGES)

    def __init__(self, classes: int = 10) -> None:
        self.classes = classes
        self.sites = (
            Site("stem", (), _stem),
            *(site for s in range(len(STAGES)) for site in _stage(s)),
            Site("head", (), partial(_head, classes)),
        )

    def input_shape(self, params: Params) -> tuple[int, ...]:
        """[1, 3, 32, 32]."""
        return (1, 3, SIDE, SIDE)

    def build(self, params: Mapping[str, Any]) -> nn.Module:
        """The network. Cells are graphs, so the modules of the blocks are connected by their names and the edges."""
        self.validate(params)
        edges = (
            _operation(s, f"stages.{s}.cells.{c}", a, b, dict(params))
            for s in range(len(STAGES)) for c in range(CELLS) for a, b in EDGES
        )  # fmt: skip
        blocks = {b.name: b for b in (*edges, *self.blocks(params)) if b is not None}
        network = _Network({name: block.build() for name, block in blocks.items()}, params)
        network.input_shape = self.input_shape(dict(params))
        return network

    @staticmethod
    def features(params: Mapping[str, Any]) -> dict[str, float]:
        """Counts of the edges that are alive, by op, and of the paths from input to output.

        "deepest" and "shallowest" are the most and the fewest ops other than skip on a path. Edges that are not alive
        do not count: they change no accuracy, so that many cells are the same network.
        """
        paths = [path for path in _PATHS if all(params[f"edge.{a}-{b}"] != "none" for a, b in path)]
        alive = {edge for path in paths for edge in path}
        ops = [[params[f"edge.{a}-{b}"] for a, b in path] for path in paths] or [[]]
        at_work = [params[f"edge.{a}-{b}"] for a, b in alive]
        deep = [sum(op != "skip" for op in path) for path in ops]
        return {
            **{op: float(at_work.count(op)) for op in OPS[2:]},
            "paths": float(len(paths)),
            "deepest": float(max(deep)),
            "shallowest": float(min(deep)),
            "convolutions in a row": float(max(sum(op.startswith("conv") for op in path) for path in ops)),
        }

    @staticmethod
    def digits(params: Mapping[str, Any]) -> str:
        """The cell as the benchmark's tables name it: one digit for each edge, in the order of `EDGES`."""
        return "".join(str(OPS.index(params[f"edge.{a}-{b}"])) for a, b in EDGES)

    @staticmethod
    def from_digits(digits: str) -> Params:
        """The parameters of a cell named by its digits."""
        return {f"edge.{a}-{b}": OPS[int(d)] for (a, b), d in zip(EDGES, digits, strict=True)}


def _alive(params: Mapping[str, Any]) -> frozenset[tuple[int, int]]:
    """The edges that are alive."""
    return _used(_ops(params))


@lru_cache(maxsize=1 << 14)  # all cells
def _used(ops: tuple[str, ...]) -> frozenset[tuple[int, int]]:
    edges = {edge for edge, op in zip(EDGES, ops, strict=True) if op != "none"}
    return frozenset(edge for path in _PATHS if edges.issuperset(path) for edge in path)


def _beside(*edges: tuple[int, int]) -> tuple[str, ...]:
    """The decisions that determine whether any of these edges is alive: those of all paths through them."""
    paths = [path for path in _PATHS if set(path) & set(edges)]
    return tuple(f"edge.{a}-{b}" for a, b in EDGES if any((a, b) in path for path in paths))


def _stage(s: int) -> list[Site]:
    """The sites of a stage: the reduction before it, and its cells, all with the blocks of the first cell."""
    sites = [] if s == 0 else [Site(f"stages.{s}.reduce", (), partial(_reduce, s))]
    first = f"stages.{s}.cells.0"
    for c in range(CELLS):
        place = f"stages.{s}.cells.{c}"
        for node in (1, 2, 3):
            before = [(a, b) for a, b in EDGES if b <= node]  # the traffic of these separates a block from its inputs
            into = [(a, b) for a, b in before if b == node]
            parts = [(f"edge.{a}-{b}", partial(_edge, s, place, a, b)) for a, b in into]
            for name, block in (*parts, (f"node.{node}", partial(_node, s, place, node))):
                like = f"{first}.{name}" if c else ""
                sites.append(Site(f"{place}.{name}", _beside(*before), block, like))
    return sites


_TWICE = " twice"  # marks a sum whose first two terms are the same tensor, which is read once


@cache
def _traffic(s: int, block: str) -> int:
    """Bytes that a block of stage `s` moves; `block` is an op as "conv3x3", or "sum 2", or "sum 2 twice"."""
    _, terms, twice = [*block.split(), "", ""][:3]
    with torch.device("meta"):
        module = _Sum(int(terms), twice=bool(twice)) if terms else _BUILDS[block](STAGES[s])
        inputs = [torch.empty(_shape(s)) for _ in range(int(terms or 1))]
    return trace(module, inputs[:1] * 2 + inputs[2:] if twice else inputs).cost.bytes


@lru_cache(maxsize=1 << 14)  # the cells of a stage
def _since(s: int, ops: tuple[str, ...]) -> tuple[dict[str, int], frozenset[str]]:
    """What the blocks of a cell read, and when that was written.

    A sum adds its first two terms first, so the one of these that was written later counts as what it reads.

    Returns:
        Block -> bytes that the cell moves between the writing of what the block reads and the block, as `_rounded`
        gives them; and the nodes whose sum has the same tensor as its first two terms.
    """
    # `moved` counts the bytes moved so far; `written` and `arrived` hold its value when a tensor had been written.
    alive, moved, written, since = _used(ops), 0, {0: 0}, dict[str, int]()
    doubled = set()
    for node in (1, 2, 3):
        arrived = []
        for (a, b), op in zip(EDGES, ops, strict=True):
            if b != node or (a, b) not in alive:
                continue
            if op != "skip":
                since[f"edge.{a}-{b}"] = _rounded(moved - written[a])
                moved += _traffic(s, op)
            arrived.append(written[a] if op == "skip" else moved)
        if len(arrived) > 1:
            since[f"node.{node}"] = _rounded(moved - max(arrived[:2]))
            if arrived[0] == arrived[1]:  # written at the same time, so they are one tensor
                doubled.add(f"node.{node}")
            moved += _traffic(s, f"sum {len(arrived)}{_TWICE if arrived[0] == arrived[1] else ''}")
        written[node] = arrived[0] if len(arrived) == 1 else moved
    return since, frozenset(doubled)


def _ops(p: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple([p.get(edge, "none") for edge in _NAMES])


def _rounded(distance: int) -> int:
    """The largest distance of the same bucket; cost models cannot tell the two apart, so there are fewer blocks."""
    return (1 << bucket(distance)) - 1


def _shape(s: int) -> tuple[int, int, int, int]:
    return (1, STAGES[s], SIDE >> s, SIDE >> s)


def _stem(p: Params) -> Block:
    return Block("stem", "stem", _build_stem, (1, 3, SIDE, SIDE))


def _build_stem() -> nn.Module:
    return nn.Sequential(*conv_norm(3, STAGES[0], 3))


def _head(classes: int, p: Params) -> Block:
    return Block("head", f"head {classes}", partial(_Head, STAGES[-1], classes), _shape(len(STAGES) - 1))


class _Head(nn.Sequential):
    def __init__(self, channels: int, classes: int) -> None:
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(nn.BatchNorm2d(channels), nn.ReLU(), pool, nn.Flatten(), nn.Linear(channels, classes))


def _reduce(s: int, p: Params) -> Block:
    return Block(
        f"stages.{s}.reduce", f"reduce {_shape(s - 1)}", partial(_Reduce, STAGES[s - 1], STAGES[s]), _shape(s - 1)
    )


class _Reduce(nn.Module):
    """The residual block with stride 2 between two stages."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        first, second = conv_norm(c_in, c_out, 3, 2), conv_norm(c_out, c_out, 3)
        self.body = nn.Sequential(nn.ReLU(), *first, nn.ReLU(), *second)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] -> [n, 2c, h/2, w/2]."""
        out: torch.Tensor = self.shortcut(x) + self.body(x)
        return out


def _edge(s: int, place: str, a: int, b: int, p: Params) -> Block | None:
    return _operation(s, place, a, b, p) if (a, b) in _alive(p) else None


def _operation(s: int, place: str, a: int, b: int, p: Params) -> Block | None:
    """The op of an edge, whether the edge is alive or not."""
    name = f"edge.{a}-{b}"
    if p[name] not in _BUILDS:  # "skip" costs nothing, "none" is left out
        return None
    return _block(s, place, name, p[name], partial(_BUILDS[p[name]], STAGES[s]), _shape(s), p)


def _block(
    s: int, place: str, name: str, what: str, build: Callable[[], nn.Module], shape: tuple[int, ...], p: Params
) -> Block:
    """An op of a cell. Its key holds the distance of its input: it takes longer where that has left the cache."""
    since = _since(s, _ops(p))[0].get(name, 0)
    key = f"{what} {_shape(s)}{f' since {since}' if since else ''}"
    return Block(f"{place}.{name}", key, build, shape, since=since)


def _convolution(kernel: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), *conv_norm(channels, channels, kernel))


def _pooling(channels: int) -> nn.Module:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


_BUILDS: Mapping[str, Callable[[int], nn.Module]] = {
    "conv1x1": partial(_convolution, 1), "conv3x3": partial(_convolution, 3), "avgpool3x3": _pooling,
}  # fmt: skip


def _node(s: int, place: str, node: int, p: Params) -> Block | None:
    """The sum of a node's edges. As a block by itself its input is one tensor, in which the terms are stacked."""
    terms = sum(b == node for _, b in _alive(p))
    if terms == 1 or (terms == 0 and node < _OUTPUT):
        return None
    twice = f"node.{node}" in _since(s, _ops(p))[1]
    shape = (max(terms - twice, 1), 1, *_shape(s)[1:])
    what = f"sum {terms}{_TWICE if twice else ''}"
    return _block(s, place, f"node.{node}", what, partial(_Sum, terms, twice), shape, p)


class _Sum(nn.Module):
    """The sum of `terms` tensors; zeros where `terms` is 0. `twice`: the first two of them are the same tensor."""

    def __init__(self, terms: int, twice: bool = False) -> None:
        super().__init__()
        self.terms, self.twice = terms, twice

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Takes `terms` tensors, or one in which they are stacked; a tensor that comes twice is stacked once."""
        parts = inputs[0].unbind(0) if len(inputs) == 1 and inputs[0].dim() == 5 else inputs
        if self.twice and len(parts) < self.terms:
            parts = (parts[0], *parts)
        if not self.terms:
            return torch.zeros_like(parts[0])
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


class _Cell(nn.Module):
    """Four nodes. An edge without a module of its own is the identity; a node without one is its only edge."""

    def __init__(self, parts: Mapping[str, nn.Module], edges: Mapping[tuple[int, int], str]) -> None:
        super().__init__()
        self.edge = nn.ModuleDict({n.removeprefix("edge."): m for n, m in parts.items() if n.startswith("edge.")})
        self.node = nn.ModuleDict({n.removeprefix("node."): m for n, m in parts.items() if n.startswith("node.")})
        alive = _alive({f"edge.{a}-{b}": op for (a, b), op in edges.items()})
        self.into = {b: [a for a in range(b) if (a, b) in alive] for b in (1, 2, 3)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        nodes = [x]
        for b, sources in self.into.items():
            arrived = [self._along(a, b, nodes[a]) for a in sources]
            arrived = arrived or [x]  # an unused node may be anything; a sum of no terms needs the shape
            nodes.append(self.node[str(b)](*arrived) if str(b) in self.node else arrived[0])
        return nodes[-1]

    def _along(self, a: int, b: int, x: torch.Tensor) -> torch.Tensor:
        name = f"{a}-{b}"
        out: torch.Tensor = self.edge[name](x) if name in self.edge else x
        return out


class _Network(nn.Module):
    """Stem, stages of cells with a reduction between them, head."""

    input_shape: tuple[int, ...]

    def __init__(self, parts: Mapping[str, nn.Module], params: Mapping[str, Any]) -> None:
        super().__init__()
        edges = {(a, b): params[f"edge.{a}-{b}"] for a, b in EDGES}
        self.stem = parts["stem"]
        self.stages = nn.ModuleList()
        for s in range(len(STAGES)):
            stage = nn.Module()
            if s:
                stage.add_module("reduce", parts[f"stages.{s}.reduce"])
            places = [f"stages.{s}.cells.{c}." for c in range(CELLS)]
            stage.add_module("cells", nn.Sequential(*(_Cell(_below(parts, place), edges) for place in places)))
            self.stages.append(stage)
        self.head = parts["head"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, 32, 32] -> [n, classes]."""
        x = self.stem(x)
        for stage in self.stages:
            for part in stage.children():
                x = part(x)
        out: torch.Tensor = self.head(x)
        return out


def _below(parts: Mapping[str, nn.Module], place: str) -> dict[str, nn.Module]:
    return {name.removeprefix(place): m for name, m in parts.items() if name.startswith(place)}
