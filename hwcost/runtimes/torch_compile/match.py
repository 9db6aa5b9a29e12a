"""Which traced ops each kernel of the compiled function holds, by inductor's record of where its kernels come from.

The record leads from a kernel to decomposed nodes, and from these to nodes of dynamo's graph (see `capture`). Running
that graph and comparing its calls with the trace leads from its nodes to traced ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import accumulate
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hwcost.graph import Graph
from hwcost.runtimes.groups import Copy, Group
from hwcost.runtimes.torch_compile.capture import Captured
from hwcost.runtimes.torch_compile.lowering import expanded, is_library_call


def matched(captured: Captured, graph: Graph) -> tuple[list[Group], Graph]:
    """The ops of a graph, grouped by the kernels they run in, in the order of the calls.

    The numbers of the ops refer to the graph that is returned as well, in which some attention is taken apart
    (`lowering.expanded`).

    Raises:
        RuntimeError: a kernel holds no op of the graph, or attention that is taken apart has not two products.
    """
    ops = _ops_of_decomposed(captured, graph)
    kernels = [_Kernel(name, nodes, captured.views, ops) for name, nodes in captured.kernels.items()]
    homes = _homes(kernels, {n for n, op in enumerate(graph.ops) if is_library_call(op.spec)})
    whole, numbers = expanded(graph)
    groups = [Group() for _ in kernels]
    for number, home in homes.items():
        if len(numbers[number]) > 1:
            _place_parts(numbers[number], number, kernels, groups)
        elif graph.ops[number].state != "free":
            groups[home].ops.append(numbers[number][0])
    for home, copy in _copies(captured, kernels, homes, numbers, ops):
        groups[home].copies.append(_copy_of(whole, *copy))
    for name, group in zip(captured.kernels, groups, strict=True):
        if not (group.ops or group.copies):
            raise RuntimeError(f"every kernel must hold an op, but {name} holds none")
    return groups, whole


class _Kernel:
    """A kernel of the compiled function: whether it is generated, its decomposed nodes (`nodes`), and the numbers of
    the traced ops that these come from, views left out (`work`)."""

    def __init__(self, name: str, nodes: Sequence[str], views: set[str], ops: Callable[[str], set[int]]) -> None:
        self.generated, self.nodes = name.startswith("cpp_"), set(nodes)
        self.work = {o for node in nodes if node not in views for o in ops(node)}


def _homes(kernels: Sequence[_Kernel], calls: set[int]) -> dict[int, int]:
    """The number of the kernel of each op. `calls` are the ops that a library runs.

    Kernels of a library choose before generated ones, and among each those that work for fewer ops. A kernel of a
    library gets one op: its record may also name others, such as the pointwise op before a convolution, so it gets one
    of `calls` where it can. A generated kernel gets all ops it works for that no kernel has yet.
    """
    homes: dict[int, int] = {}
    for i in sorted(range(len(kernels)), key=lambda i: (kernels[i].generated, len(kernels[i].work))):
        free = kernels[i].work - homes.keys()
        first = sorted(free, key=lambda n: (n not in calls, n))[:1]
        homes |= dict.fromkeys(free if kernels[i].generated else first, i)
    return homes


def _place_parts(parts: Sequence[int], number: int, kernels: Sequence[_Kernel], groups: Sequence[Group]) -> None:
    """Put the parts of attention into its two products and the generated kernels before and between them."""
    mine = [i for i, k in enumerate(kernels) if number in k.work]
    products = [i for i in mine if not kernels[i].generated]
    generated = [i for i in mine if kernels[i].generated]
    if len(products) != 2:
        raise RuntimeError(f"attention that is taken apart must have two products, but has {len(products)}")
    before = max((i for i in generated if i < products[0]), default=products[0])
    between = max((i for i in generated if products[0] < i < products[1]), default=products[1])
    for part, home in zip(
        parts, [before, before, products[0], *[between] * (len(parts) - 4), products[1]], strict=True
    ):
        groups[home].ops.append(part)


def _copies(
    captured: Captured,
    kernels: Sequence[_Kernel],
    homes: Mapping[int, int],
    numbers: Sequence[Sequence[int]],
    ops: Callable[[str], set[int]],
) -> Iterator[tuple[int, tuple[int, tuple[int, ...], str]]]:
    """The copies into another layout: for each the number of its kernel, and the op, shape and dtype for `_copy_of`.

    Each of `captured.buffers` is written by a generated kernel that holds all its nodes: where several do, by the first
    that comes after as many library calls as the buffer. The buffer is a copy where its nodes come from an op that a
    library runs, which then reads the copy, or where its kernel works for none of the ops that its nodes come from.
    """
    apart = {n for n, parts in enumerate(numbers) if len(parts) > 1}
    calls_before = list(accumulate(not k.generated for k in kernels))
    for nodes, shape, dtype, calls in captured.buffers:
        able = [i for i, k in enumerate(kernels) if k.generated and nodes <= k.nodes]
        if not able:
            continue
        home = min(able, key=lambda i: (calls_before[i] != calls, i))
        work = {o for node in nodes - captured.views for o in ops(node)}
        called = {o for o in work if not kernels[homes[o]].generated}
        readers = (called or {o for node in nodes for o in ops(node)}) - apart
        if readers and (called or not work & kernels[home].work):
            yield home, (numbers[max(readers)][0], shape, dtype)


def _copy_of(graph: Graph, number: int, shape: tuple[int, ...], dtype: str) -> Copy:
    """A copy of that shape for an op: of a weight where one that it reads, and no activation, has the shape."""
    inputs = graph.ops[number].spec.inputs
    activation = any(not t.weight and t.shape == shape for t in inputs)
    return Copy(number, shape, dtype, not activation and any(t.weight and t.shape == shape for t in inputs))


def _ops_of_decomposed(captured: Captured, graph: Graph) -> Callable[[str], set[int]]:
    """A function from a decomposed node to the numbers of the traced ops that it comes from."""
    before: Mapping[str, list[str]] = captured.origins["postToPre"]
    ops = ops_of_nodes(captured, graph)
    return lambda node: {o for name in before.get(node, ()) for o in ops.get(name, ())}


def ops_of_nodes(captured: Captured, graph: Graph) -> dict[str, list[int]]:
    """Numbers of the traced ops that each node of dynamo's graph calls, found by running that graph on fake tensors."""
    log = _Log()
    interpreter = _Interpreter(captured.nodes, log)
    fakes = [a for a in captured.arguments if isinstance(a, torch._subclasses.FakeTensor)]
    mode = fakes[0].fake_mode if fakes else torch._subclasses.FakeTensorMode()
    arguments = [
        a if not isinstance(a, torch.Tensor) or isinstance(a, torch._subclasses.FakeTensor) else mode.from_tensor(a)
        for a in captured.arguments
    ]
    with torch.inference_mode(), mode, log:
        interpreter.run(*arguments)
    mine, theirs = [op.name for op in graph.ops], [name for name, _ in log.calls]
    found: dict[str, list[int]] = {}
    for match in SequenceMatcher(a=mine, b=theirs, autojunk=False).get_matching_blocks():
        for step in range(match.size):
            found.setdefault(log.calls[match.b + step][1], []).append(match.a + step)
    return found


class _Log(TorchDispatchMode):
    """Records calls of operators, each with the name of the node that made it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, str]] = []
        self.node = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((str(func), self.node))
        return func(*args, **(kwargs or {}))


class _Interpreter(torch.fx.Interpreter):
    """Runs a graph and tells the log which node is running."""

    def __init__(self, module: Any, log: _Log) -> None:
        super().__init__(module)
        self._log = log

    def run_node(self, n: Any) -> Any:
        self._log.node = n.name
        return super().run_node(n)
