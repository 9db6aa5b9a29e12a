"""Blocks that differ only in sizes, traced once.

A table of a million blocks holds a few dozen structures (kernel size, stride, squeeze-excite or not) at many widths and
resolutions. A structure is traced three times, each time with other primes as its sizes: the *probes*. Every number in
the graph is then expressed as a function of the sizes,

    constant * product of up to three factors,   each a size v or ceil(v / 2), ceil(v / 4), ...     (1)

and the graph for any other sizes is computed from these functions instead of traced. Because the sizes are primes, at
most one function (1) fits the numbers of all probes. A structure with a number that no function (1) fits has no
template; its blocks are traced one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hwcost.graph import ITEMSIZE, Graph, Life, Op, OpSpec, Param, TensorSpec
from hwcost.model.lowering import Lowering
from hwcost.rules.registry import cost_of

if TYPE_CHECKING:
    from torch import nn

Explanations = dict[tuple[int, ...], tuple[tuple[int, int], ...]]  # values at the probes -> factors
_Actual = tuple[tuple[int, ...], int, bool]  # shape, bytes of an element, whether a parameter
Make = Callable[[tuple[int, ...]], tuple["nn.Module", tuple[int, ...]]]

_PROBES = 3
_PRIMES = (
    67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113,
    127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181,
)  # fmt: skip
_KEPT = 2_000  # ops that one template caches
_HALVINGS = 3
_DEGREE = 3
_ITEMSIZES = (1, 4, 8, 2)  # constants to try besides the greatest common divisor; some numbers are bytes


class NoTemplate(Exception):
    """A structure some number of which is no function (1) of its sizes."""


@dataclass(frozen=True, slots=True)
class Monomial:
    """A number of a graph as a function of the sizes, eq. (1)."""

    constant: int
    factors: tuple[tuple[int, int], ...] = ()  # (which size, how often halved, rounding up)

    def __call__(self, sizes: Sequence[Any]) -> Any:
        """The number for these sizes; sizes that are arrays give an array."""
        value: Any = self.constant
        for size, halvings in self.factors:
            value *= _halved(sizes[size], halvings)
        return value


def _halved(value: Any, times: int) -> Any:
    return -(-value // (1 << times)) if times else value


@dataclass(frozen=True, slots=True)
class _Weight:
    """A parameter or buffer."""

    shape: tuple[Monomial, ...]
    itemsize: int
    parameter: bool


class Template:
    """A structure as a function of its sizes; make one with `Template.of`."""

    def __init__(
        self, graph: Graph, numbers: Sequence[Monomial], weights: Sequence[_Weight], by_parts: Template | None = None
    ) -> None:
        self._graph = graph
        self._by_parts = by_parts
        self._numbers = tuple(numbers)
        self._weights = tuple(weights)
        self._ops: dict[tuple[int, tuple[int, ...]], Op] = {}
        values = iter(self._numbers)
        self._lives, self._inputs, *self._of_ops = [tuple(itertools.islice(values, n)) for n in _slots(graph)]
        self._uses = [tuple(sorted({size for n in numbers for size, _ in n.factors})) for numbers in self._of_ops]

    @classmethod
    def of(cls, make: Make, sizes: int) -> Template:
        """The template of a structure, from traces of it at three probes.

        Args:
            make: from the sizes to (module, input shape).
            sizes: how many sizes there are.

        Raises:
            NoTemplate: the ops depend on the sizes, a number is no function (1) of them, or tracing fails.
        """
        if sizes * _PROBES > len(_PRIMES):
            raise NoTemplate(f"{sizes} sizes are more than there are primes for")
        probes = [tuple(_PRIMES[i * _PROBES + p] for i in range(sizes)) for p in range(_PROBES)]
        graphs, weights = zip(*(_trace(make, probe) for probe in probes), strict=True)
        return cls._explained(graphs, weights, probes)

    @classmethod
    def _explained(
        cls, graphs: Sequence[Graph], weights: Sequence[list[_Actual]], probes: Sequence[tuple[int, ...]]
    ) -> Template:
        """The template of the graphs, and of the parameters and buffers, that the probes have."""
        if len({_skeleton(graph, own) for graph, own in zip(graphs, weights, strict=True)}) > 1:
            raise NoTemplate("the ops depend on the sizes")
        table = _explanations(tuple(probes))
        parts = [graph.by_parts for graph in graphs if graph.by_parts is not None]
        template = cls(
            graphs[0],
            [_explain(values, table) for values in zip(*map(_walk, graphs), strict=True)],
            [_weight(column, table) for column in zip(*weights, strict=True)],
            cls._explained(parts, weights, probes) if parts else None,
        )
        if any(template.graph(probe) != graph for probe, graph in zip(probes, graphs, strict=True)):
            raise NoTemplate("the graphs at the probes are not what the explanation says")
        return template

    def form(self, lowering: Lowering) -> Template:
        """The template as a model lowers it: itself, or with its fused attention layers by their parts."""
        if self._by_parts is None or not lowering.takes_apart({op.spec.kind for op in self._graph.ops}):
            return self
        return self._by_parts

    @property
    def ops(self) -> tuple[Op, ...]:
        """The ops at the first probe; their names, modules, states, reads and writes are the same for all sizes."""
        return self._graph.ops

    @property
    def input_values(self) -> tuple[int, ...]:
        """Value numbers of the inputs."""
        return self._graph.input_values

    @property
    def output_values(self) -> tuple[int, ...]:
        """Value numbers of the outputs."""
        return self._graph.output_values

    def graph(self, sizes: Sequence[int]) -> Graph:
        """The graph for these sizes, as tracing would give it."""
        lives = [number(sizes) for number in self._lives]
        inputs = iter([number(sizes) for number in self._inputs])
        return replace(
            self._graph,
            ops=tuple([self._remembered(i, sizes) for i in range(len(self._of_ops))]),
            inputs=_tensors(self._graph.inputs, inputs),
            params=self.params(sizes),
            weight_bytes=self.weight_bytes(sizes),
            by_parts=None if self._by_parts is None else self._by_parts.graph(sizes),
            lives=tuple([Life(b, o.born, o.dies) for b, o in zip(lives, self._graph.lives, strict=True)]),
        )

    def params(self, sizes: Sequence[Any]) -> Any:
        """Number of parameters; sizes that are arrays give an array, here and below."""
        return sum(math.prod(n(sizes) for n in w.shape) for w in self._weights if w.parameter)

    def weight_bytes(self, sizes: Sequence[Any]) -> Any:
        """Bytes of parameters and buffers."""
        return sum(math.prod(n(sizes) for n in w.shape) * w.itemsize for w in self._weights)

    def input_bytes(self, sizes: Sequence[Any]) -> Any:
        """Bytes of the inputs."""
        numbers = iter([number(sizes) for number in self._inputs])
        total: Any = 0
        for t in self._graph.inputs:
            _, elements = [next(numbers) for _ in t.shape], next(numbers)
            total = total + elements * ITEMSIZE[t.dtype]
        return total

    def input_shape(self, sizes: Sequence[Any]) -> tuple[Any, ...]:
        """Shape of the first input."""
        return tuple(number(sizes) for number in self._inputs[: len(self._graph.inputs[0].shape)])

    def activations(self, sizes: Sequence[Any]) -> list[Any]:
        """Bytes of activations that are live while each op runs, in the order of the ops."""
        change: list[Any] = [0] * (len(self._of_ops) + 2)
        for number, life in zip(self._lives, self._graph.lives, strict=True):
            held = number(sizes)
            change[max(life.born, 0)] = change[max(life.born, 0)] + held
            change[life.dies + 1] = change[life.dies + 1] - held
        return list(itertools.accumulate(change[: max(len(self._of_ops), 1)]))

    def uses(self, index: int) -> tuple[int, ...]:
        """The positions of the sizes that an op depends on."""
        return self._uses[index]

    def op(self, index: int, sizes: Sequence[int]) -> Op:
        """The op at `index` for these sizes."""
        return self._filled(index, tuple([int(number(sizes)) for number in self._of_ops[index]]))

    def _remembered(self, index: int, sizes: Sequence[int]) -> Op:
        """As `op`, from a cache: equal ops are the same object."""
        numbers = tuple([number(sizes) for number in self._of_ops[index]])
        found = self._ops.get((index, numbers))
        if found is None:
            if len(self._ops) >= _KEPT:
                self._ops.clear()
            found = self._ops[index, numbers] = self._filled(index, numbers)
        return found

    def _filled(self, index: int, numbers: tuple[int, ...]) -> Op:
        op, values = self._graph.ops[index], iter(numbers)
        inputs, outputs = _tensors(op.spec.inputs, values), _tensors(op.spec.outputs, values)
        params = tuple((name, _fill(value, values)) for name, value in op.spec.params)
        spec = OpSpec(op.spec.kind, inputs, outputs, params)
        cost = cost_of(spec)[0] if op.state != "free" else op.cost
        return Op(op.name, spec, op.module, op.reads, op.writes, cost, op.state, op.reason)


def _sorted_lives(graph: Graph) -> Graph:
    """Lives in an order that does not depend on when memory is freed, so that those of the probes correspond."""
    return replace(graph, lives=tuple(sorted(graph.lives, key=lambda life: (life.born, life.dies, life.bytes))))


def _trace(make: Make, sizes: tuple[int, ...]) -> tuple[Graph, list[_Actual]]:
    import torch

    from hwcost.tracing.trace import TraceError, trace

    try:
        with torch.device("meta"):
            module, shape = make(sizes)
        # Outside of the block above: torch's attention layers do not take their fast path in it.
        graph = trace(module, (torch.empty(shape, device="meta"),))
    except (TraceError, ValueError, RuntimeError) as error:
        raise NoTemplate(f"no trace at sizes {sizes}: {error}") from error
    graph = graph.changed(_sorted_lives)
    parameters = [(tuple(p.shape), p.element_size(), True) for p in module.parameters()]
    return graph, parameters + [(tuple(b.shape), b.element_size(), False) for b in module.buffers()]


def _weight(column: Sequence[_Actual], table: Explanations) -> _Weight:
    """A parameter or buffer as a function of the sizes, from what it is at each probe."""
    shapes = zip(*(shape for shape, _, _ in column), strict=True)
    return _Weight(tuple(_explain(values, table) for values in shapes), column[0][1], column[0][2])


def _skeleton(graph: Graph, weights: Sequence[_Actual]) -> Any:
    """What must be equal at all probes."""
    return (
        tuple((op.name, op.module, op.reads, op.writes, op.state, _flags(op)) for op in graph.ops),
        tuple((life.born, life.dies) for life in graph.lives),
        graph.input_values,
        graph.output_values,
        tuple((len(shape), itemsize, parameter) for shape, itemsize, parameter in weights),
    )


def _flags(op: Op) -> Any:
    tensors = (*op.spec.inputs, *op.spec.outputs)
    return tuple((t.name, t.dtype, t.weight, t.repeat, t.layout, len(t.shape)) for t in tensors)


# -- the numbers of a graph, in a fixed order -------------------------------------------------------------


def _walk(graph: Graph) -> list[int]:
    """All numbers of a graph that may depend on the sizes."""
    numbers = [life.bytes for life in graph.lives]
    numbers += _of_tensors(graph.inputs)
    for op in graph.ops:
        numbers += _of_op(op)
    return numbers


def _slots(graph: Graph) -> list[int]:
    """How many of `_walk`'s numbers belong to the lives, to the inputs and to each op, in its order."""
    return [len(graph.lives), len(_of_tensors(graph.inputs)), *(len(_of_op(op)) for op in graph.ops)]


def _of_op(op: Op) -> list[int]:
    numbers = _of_tensors(op.spec.inputs) + _of_tensors(op.spec.outputs)
    for _, value in op.spec.params:
        numbers += _of_param(value)
    return numbers


def _of_tensors(tensors: Sequence[TensorSpec]) -> list[int]:
    return [n for t in tensors for n in (*t.shape, t.elements)]


def _of_param(value: Param) -> list[int]:
    if isinstance(value, tuple):
        return [n for v in value for n in _of_param(v)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def _tensors(like: Sequence[TensorSpec], values: Iterator[int]) -> tuple[TensorSpec, ...]:
    """The tensors `like` with the next of `values` as their numbers. (`replace` would take three times as long.)"""
    filled = []
    for t in like:
        shape = tuple([next(values) for _ in t.shape])
        overlapping = math.prod(shape) - next(values)
        filled.append(TensorSpec(t.name, shape, t.dtype, t.weight, t.internal, t.repeat, t.layout, overlapping))
    return tuple(filled)


def _fill(value: Param, values: Iterator[int]) -> Param:
    """A parameter like `value` with the next of `values` as its integers."""
    if isinstance(value, tuple):
        return tuple(_fill(v, values) for v in value)
    return next(values) if isinstance(value, int) and not isinstance(value, bool) else value


# -- the functions (1) -------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _explanations(probes: tuple[tuple[int, ...], ...]) -> Explanations:
    """Products of factors: values at the probes -> the factors, the fewest and least halved that give them."""
    atoms = [(size, halvings) for halvings in range(_HALVINGS + 1) for size in range(len(probes[0]))]
    found: Explanations = {}
    for degree in range(1, _DEGREE + 1):
        for factors in itertools.combinations_with_replacement(atoms, degree):
            values = tuple(math.prod(_halved(p[s], h) for s, h in factors) for p in probes)
            found.setdefault(values, factors)
    return found


def _explain(values: tuple[int, ...], table: Explanations) -> Monomial:
    """The function (1) that has these values at the probes.

    Raises:
        NoTemplate: there is none.
    """
    if len(set(values)) == 1:
        return Monomial(values[0])
    divisor = math.gcd(*values)
    for constant in sorted({divisor, *_ITEMSIZES}):
        if divisor % constant == 0 and (factors := table.get(tuple(v // constant for v in values))) is not None:
            return Monomial(constant, factors)
    raise NoTemplate(f"{values} at the probes is no constant times a product of sizes")
