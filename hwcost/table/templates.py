"""Blocks that differ only in sizes, traced once.

A table of a million blocks holds a few dozen structures (kernel size, stride, squeeze-excite or not)
at many widths and resolutions. A structure is traced at three assignments of distinct primes to its
sizes; every number in the graph is then explained as

    constant * product of up to three factors,   each a size v or ceil(v / 2), ceil(v / 4), ...     (1)

and a graph for other sizes is written down instead of traced. Primes make the explanation
unambiguous. A structure with a number that (1) does not explain has no template, and is traced
every time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hwcost.graph import ITEMSIZE, Graph, Life, Op, OpSpec, Param, TensorSpec
from hwcost.rules.registry import cost_of

if TYPE_CHECKING:
    from torch import nn

Explanations = dict[tuple[int, ...], tuple[tuple[int, int], ...]]  # values at the probes -> factors
_Actual = tuple[tuple[int, ...], int, bool]  # shape, bytes of an element, whether a parameter
Make = Callable[[tuple[int, ...]], tuple["nn.Module", tuple[int, ...]]]

_PROBES = 3
_PRIMES = (
    67,
    71,
    73,
    79,
    83,
    89,
    97,
    101,
    103,
    107,
    109,
    113,
    127,
    131,
    137,
    139,
    149,
    151,
    157,
    163,
    167,
    173,
    179,
    181,
)
_KEPT = 2_000  # ops remembered by one template
_HALVINGS = 3
_DEGREE = 3
_ITEMSIZES = (1, 4, 8, 2)  # lives and weights are in bytes


class NoTemplate(Exception):
    """A structure whose numbers are not all explained by its sizes."""


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
    shape: tuple[Monomial, ...]
    itemsize: int
    parameter: bool


class Template:
    """A structure with its sizes left open; make one with `Template.of`."""

    def __init__(self, graph: Graph, numbers: Sequence[Monomial], weights: Sequence[_Weight]) -> None:
        self._graph = graph
        self._numbers = tuple(numbers)
        self._weights = tuple(weights)
        self._ops: dict[tuple[int, tuple[int, ...]], Op] = {}
        values = iter(self._numbers)
        self._lives, self._inputs, *self._of_ops = [tuple(itertools.islice(values, n)) for n in _slots(graph)]
        self._uses = [tuple(sorted({size for n in numbers for size, _ in n.factors})) for numbers in self._of_ops]

    @classmethod
    def of(cls, make: Make, sizes: int) -> Template:
        """Trace `make` at three probes.

        Args:
            make: from the sizes to (module, input shape).
            sizes: how many sizes there are.

        Raises:
            NoTemplate: the structure does not follow its sizes in the form of (1).
        """
        if sizes * _PROBES > len(_PRIMES):
            raise NoTemplate(f"{sizes} sizes are more than there are primes for")
        probes = [tuple(_PRIMES[i * _PROBES + p] for i in range(sizes)) for p in range(_PROBES)]
        traced = [_trace(make, probe) for probe in probes]
        if len({_skeleton(graph, weights) for graph, weights in traced}) > 1:
            raise NoTemplate("the ops depend on the sizes")
        table = _explanations(tuple(probes))
        columns = zip(*(_walk(graph) for graph, _ in traced), strict=True)
        template = cls(
            traced[0][0],
            [_explain(values, table) for values in columns],
            [_weight(column, table) for column in zip(*(weights for _, weights in traced), strict=True)],
        )
        if any(template.graph(probe) != graph for probe, (graph, _) in zip(probes, traced, strict=True)):
            raise NoTemplate("the graphs at the probes are not what the explanation says")
        return template

    @property
    def ops(self) -> tuple[Op, ...]:
        """The structure: names, modules, states, reads and writes hold for all sizes, the rest for one probe."""
        return self._graph.ops

    @property
    def input_values(self) -> tuple[int, ...]:
        """Value numbers of the inputs."""
        return self._graph.input_values

    @property
    def output_values(self) -> tuple[int, ...]:
        """Value numbers of what is given out."""
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
        """Bytes of activations that are live while each op runs."""
        change: list[Any] = [0] * (len(self._of_ops) + 2)
        for number, life in zip(self._lives, self._graph.lives, strict=True):
            held = number(sizes)
            change[max(life.born, 0)] = change[max(life.born, 0)] + held
            change[life.dies + 1] = change[life.dies + 1] - held
        return list(itertools.accumulate(change[: max(len(self._of_ops), 1)]))

    def uses(self, index: int) -> tuple[int, ...]:
        """Which sizes an op depends on."""
        return self._uses[index]

    def op(self, index: int, sizes: Sequence[int]) -> Op:
        """An op with its numbers filled in."""
        return self._filled(index, tuple([int(number(sizes)) for number in self._of_ops[index]]))

    def _remembered(self, index: int, sizes: Sequence[int]) -> Op:
        """Equal ops are made once."""
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


def _trace(make: Make, sizes: tuple[int, ...]) -> tuple[Graph, list[_Actual]]:
    import torch

    from hwcost.tracing.trace import TraceError, trace

    try:
        with torch.device("meta"):
            module, shape = make(sizes)
            graph = trace(module, (torch.empty(shape),))
    except (TraceError, ValueError, RuntimeError) as error:
        raise NoTemplate(f"no trace at sizes {sizes}: {error}") from error
    graph = replace(graph, lives=tuple(sorted(graph.lives, key=lambda life: (life.born, life.dies, life.bytes))))
    parameters = [(tuple(p.shape), p.element_size(), True) for p in module.parameters()]
    return graph, parameters + [(tuple(b.shape), b.element_size(), False) for b in module.buffers()]


def _weight(column: Sequence[_Actual], table: Explanations) -> _Weight:
    """One parameter or buffer, from what it is at each probe."""
    shapes = zip(*(shape for shape, _, _ in column), strict=True)
    return _Weight(tuple(_explain(values, table) for values in shapes), column[0][1], column[0][2])


def _skeleton(graph: Graph, weights: Sequence[_Actual]) -> Any:
    """What must not depend on the sizes."""
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


# -- the numbers of a graph, always in one order --------------------------------------------------------


def _walk(graph: Graph) -> list[int]:
    """Every number that may depend on the sizes."""
    numbers = [life.bytes for life in graph.lives]
    numbers += _of_tensors(graph.inputs)
    for op in graph.ops:
        numbers += _of_op(op)
    return numbers


def _slots(graph: Graph) -> list[int]:
    """How many numbers the lives, the inputs and each op have."""
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
    """The tensors with their numbers filled in; written out, since `replace` takes three times as long."""
    return tuple([
        TensorSpec(
            t.name, tuple([next(values) for _ in t.shape]), t.dtype, t.weight, t.internal, t.repeat, t.layout,
            next(values),
        )
        for t in like
    ])  # fmt: skip


def _fill(value: Param, values: Any) -> Param:
    if isinstance(value, tuple):
        return tuple(_fill(v, values) for v in value)
    return next(values) if isinstance(value, int) and not isinstance(value, bool) else value


# -- explaining them --------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _explanations(probes: tuple[tuple[int, ...], ...]) -> Explanations:
    """Values at the probes -> factors, the simplest for each."""
    atoms = [(size, halvings) for halvings in range(_HALVINGS + 1) for size in range(len(probes[0]))]
    found: Explanations = {}
    for degree in range(1, _DEGREE + 1):
        for factors in itertools.combinations_with_replacement(atoms, degree):
            values = tuple(math.prod(_halved(p[s], h) for s, h in factors) for p in probes)
            found.setdefault(values, factors)
    return found


def _explain(values: tuple[int, ...], table: Explanations) -> Monomial:
    if len(set(values)) == 1:
        return Monomial(values[0])
    divisor = math.gcd(*values)
    for constant in sorted({divisor, *_ITEMSIZES}):
        if divisor % constant == 0 and (factors := table.get(tuple(v // constant for v in values))) is not None:
            return Monomial(constant, factors)
    raise NoTemplate(f"{values} at the probes is no constant times a product of sizes")
