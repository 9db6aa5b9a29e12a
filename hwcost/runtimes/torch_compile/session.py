"""torch.compile on the CPU: inductor's generated code, without freezing, one graph, static shapes.

Inductor writes a Python function that calls library kernels (convolutions, matrix products, attention)
and C++ kernels that it generates: all pointwise work, reductions and layout copies between two library
calls are one. Which ops a kernel holds is read from inductor's own record of the origin of its kernels.
Times come from the same function with the clock read around each kernel call.

Weights are arguments, as they are by default: batch norms do not fold into convolutions, and weights of
convolutions are copied into the channels-last layout in every run.

`lower` needs neither a module nor a compiler: it groups a traced graph by rules (`inductor_rules`).
"""

from __future__ import annotations

import ast
import json
import logging
import shutil
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from hwcost.graph import Graph
from hwcost.runtimes.base import Between, Network, RuntimeUnavailable, nothing, unloaded
from hwcost.runtimes.groups import Copy, Group, network_of
from hwcost.runtimes.torch_compile.lowering import expanded, groups_of, is_library_call
from hwcost.tracing.trace import trace

_COMPILERS = ("g++", "clang++", "c++")
_OLDEST = (2, 13)  # earlier versions keep the origin of kernels elsewhere, or not at all
_CLOCK = "_hwcost_clock"
if not any(map(shutil.which, _COMPILERS)):
    raise RuntimeUnavailable(f"runtime torch-compile needs a C++ compiler ({', '.join(_COMPILERS)}); install one")
if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
    raise RuntimeUnavailable(f"runtime torch-compile needs torch >= {'.'.join(map(str, _OLDEST))}")


class TorchCompile:
    """The runtime; stateless."""

    name = "torch-compile"
    on_torch_threads = True

    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """Group ops as inductor does on a CPU; a part as if it were the whole."""
        whole, _ = expanded(graph)
        return network_of(groups_of(whole), whole, self.name)

    def prepare(self, module: Any, inputs: Sequence[Any], *, threads: int) -> CompiledSession:
        """Compile; takes seconds, or less where the same C++ has been compiled before."""
        return CompiledSession(module, inputs, threads)

    def environment(self) -> dict[str, str]:
        """Versions of torch and of the compiler, and the vector unit that it is told to use."""
        from torch._inductor import cpp_builder, cpu_vec_isa

        compiler = cpp_builder.get_cpp_compiler()
        return {
            "torch": torch.__version__,
            "mkldnn": str(torch.backends.mkldnn.is_available()),
            "compiler": cpp_builder.get_compiler_version_info(compiler).splitlines()[0],
            "vectors": str(cpu_vec_isa.pick_vec_isa()) or "none",
        }


RUNTIME = TorchCompile()


class CompiledSession:
    """A module compiled for a stated number of threads."""

    sleeps, warm_ups = False, 0

    def __init__(self, module: Any, inputs: Sequence[Any], threads: int) -> None:
        self._inputs, self._threads = tuple(inputs), threads
        self._set_threads()
        with torch.inference_mode():
            module(*self._inputs)  # some modules keep tensors from their first run
        self._found = captured = compile_module(module, self._inputs)
        self._run = captured.run
        self._plain = captured.compiled.current_callable
        self._timed = instrumented(self._plain, captured)
        graph = trace(module, self._inputs)
        self.network = network_of(*matched(captured, graph), RUNTIME.name)

    def run(self) -> Any:
        """One inference."""
        self._set_threads()
        with torch.inference_mode():
            return self._run(*self._inputs)

    def profile(self, runs: int = 1, between: Between = nothing) -> NDArray[np.float64]:
        """Seconds of each kernel in `runs` inferences, the clock read around every call; [runs, kernels]."""
        self._set_threads()
        self._found.compiled.current_callable = self._timed
        times = []
        try:
            for _ in range(runs):
                between()
                times.append(self._profiled())
            between()
        finally:
            self._found.compiled.current_callable = self._plain
        return np.stack(times)

    def _profiled(self) -> NDArray[np.float64]:
        ticks = self._found.ticks
        ticks.clear()
        with torch.inference_mode():
            self._run(*self._inputs)
        walls, cpus = np.diff(np.array(ticks, dtype=np.float64).reshape(-1, 2, 2), axis=1)[:, 0].T
        if self._threads > 1:
            return cast(NDArray[np.float64], walls)
        return np.array([unloaded(wall, cpu) for wall, cpu in zip(walls, cpus, strict=True)], dtype=np.float64)

    def _set_threads(self) -> None:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


# -- compiling ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Captured:
    """A compiled module, and what the compiler told of it."""

    run: Callable[..., Any] = print
    nodes: Any = None  # the graph that dynamo took from the module
    arguments: Sequence[Any] = ()  # of that graph
    compiled: Any = None  # torch._inductor.output_code.CompiledFxGraph
    views: set[str] = field(default_factory=set)  # nodes after decomposition that move no data
    buffers: list[tuple[set[str], tuple[int, ...], str, int]] = field(default_factory=list)  # see _note_buffers
    ticks: list[tuple[float, float]] = field(default_factory=list)  # wall and thread time (s), around each kernel

    @property
    def origins(self) -> Mapping[str, Any]:
        """Inductor's record: kernels to decomposed nodes ("cppCodeToPost"), those to dynamo's ("postToPre")."""
        return cast(Mapping[str, Any], json.loads(self.compiled.inductor_provenance_mapping_str))

    @property
    def kernels(self) -> dict[str, list[str]]:
        """Decomposed nodes of each kernel, in the order of the calls; a key is "function:number"."""
        found: dict[str, list[str]] = self.origins["cppCodeToPost"]
        return dict(sorted(found.items(), key=lambda item: int(item[0].rpartition(":")[2])))


def compile_module(module: Any, inputs: Sequence[Any]) -> Captured:
    """Compile a module and run it once.

    Raises:
        ValueError: it cannot be taken as one graph.
    """
    from torch._dynamo.exc import Unsupported
    from torch._functorch import config as functorch_config
    from torch._inductor import config

    captured = Captured()

    def forward(*args: Any) -> Any:
        return module(*args)

    # A function of its own for each session: torch keeps few compiled versions of one function.
    forward.__code__ = forward.__code__.replace(co_name=f"forward_{id(captured)}")
    captured.run = torch.compile(forward, backend=_backend(captured), fullgraph=True, dynamic=False)
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    try:
        with (
            config.patch(compile_threads=1),  # no pool of processes that stays
            functorch_config.patch(enable_autograd_cache=False),  # what comes from a cache has not been seen
            torch.inference_mode(),
        ):
            captured.run(*inputs)
    except Unsupported as error:
        raise ValueError(f"torch-compile takes a network as one graph, but {str(error).splitlines()[0]}") from error
    if captured.compiled is None:
        raise ValueError("torch-compile found nothing to compile: the network makes no call")
    return captured


def _backend(captured: Captured) -> Callable[..., Any]:
    """Inductor, listened to."""

    def backend(nodes: Any, arguments: Sequence[Any]) -> Any:
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner

        def inner(lowered: Any, examples: Any, **options: Any) -> Any:
            captured.compiled = compile_fx_inner(lowered, examples, **options)
            captured.views = {n.name for n in lowered.graph.nodes if _is_view(n)}
            return captured.compiled

        captured.nodes, captured.arguments = nodes, arguments
        patches = {
            "fx_graph_cache": False,
            "trace.provenance_tracking_level": 1,
            "_post_fusion_custom_pass": lambda scheduled: _note_buffers(scheduled, captured),
        }
        return compile_fx(nodes, arguments, inner_compile=inner, config_patches=patches)

    return backend


def _is_view(node: Any) -> bool:
    """Whether a decomposed node moves no data."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return True  # placeholders, the output, parts of a tuple
    return any(out.alias_info is not None and not out.alias_info.is_write for out in schema.returns)


def _note_buffers(scheduled: Any, captured: Captured) -> Any:
    """Remember what generated kernels write: nodes it comes from, shape, dtype, and the library calls before it."""
    calls = 0
    for fused in scheduled:
        calls += fused.is_extern()
        for buffer in (n.node for n in fused.get_nodes() if type(n.node).__name__ == "ComputedBuffer"):
            shape = tuple(int(n) for n in buffer.get_size())
            dtype = str(buffer.get_dtype()).removeprefix("torch.")
            captured.buffers.append(({n.name for n in buffer.get_origins()}, shape, dtype, calls))
    return scheduled


def instrumented(call: Any, captured: Captured) -> Any:
    """Inductor's function with the clock read before and after each kernel.

    Raises:
        RuntimeError: the function calls other kernels than inductor recorded.
    """
    names = [key.rpartition(":")[0] for key in captured.kernels]
    tree = ast.parse(captured.compiled.source_code)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "call"]
    timed = _Timed(frozenset(names))
    function = timed.visit(functions[0])
    if len(functions) != 1 or timed.seen != names:
        raise RuntimeError(f"the compiled function must call the kernels of its record, but calls {timed.seen}")
    namespace: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(ast.Module([function], [])), "<timed>", "exec"), {}, namespace)
    around = dict(call.__func__.__globals__)
    around[_CLOCK] = lambda: captured.ticks.append((time.perf_counter(), time.thread_time()))
    return types.MethodType(types.FunctionType(namespace["call"].__code__, around), call.__self__)


class _Timed(ast.NodeTransformer):
    """Puts clock readings around statements that call a kernel; `seen` has their names in order."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.seen: list[str] = []

    def _around(self, node: ast.Expr | ast.Assign) -> Any:
        if not isinstance(node.value, ast.Call) or ast.unparse(node.value.func) not in self._names:
            return node
        self.seen.append(ast.unparse(node.value.func))
        clock = ast.Expr(ast.Call(ast.Name(_CLOCK, ast.Load()), [], []))
        return [clock, node, clock]

    visit_Expr = visit_Assign = _around  # noqa: N815 - the names NodeVisitor looks for


# -- matching -------------------------------------------------------------------------------------


def matched(captured: Captured, graph: Graph) -> tuple[list[Group], Graph]:
    """The ops of a graph, grouped by the kernels they run in, in the order of the calls; and the graph
    that their numbers refer to, in which attention may have been taken apart.

    Raises:
        RuntimeError: a kernel holds no op of the graph.
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
    apart = {n for n, parts in enumerate(numbers) if len(parts) > 1}
    before = list(accumulate(not k.generated for k in kernels))
    for nodes, shape, dtype, calls in captured.buffers:
        able = [(before[i] != calls, i) for i, k in enumerate(kernels) if k.generated and nodes <= k.nodes]
        home = min(able, default=(False, -1))[1]
        work = {o for node in nodes - captured.views for o in ops(node)}
        called = {o for o in work if not kernels[homes[o]].generated} if home >= 0 else set()
        read_by = called or {o for node in nodes for o in ops(node)}
        if home >= 0 and read_by - apart and (called or not work & kernels[home].work):
            number = max(read_by - apart)
            groups[home].copies.append(_copy(numbers[number][0], shape, dtype, whole))
    for name, group in zip(captured.kernels, groups, strict=True):
        if not (group.ops or group.copies):
            raise RuntimeError(f"every kernel must hold an op, but {name} holds none")
    return groups, whole


class _Kernel:
    """A kernel of the generated code: decomposed nodes, and traced ops whose work is in it."""

    def __init__(self, name: str, nodes: Sequence[str], views: set[str], ops: Callable[[str], set[int]]) -> None:
        self.generated, self.nodes = name.startswith("cpp_"), set(nodes)
        self.work = {o for node in nodes if node not in views for o in ops(node)}


def _homes(kernels: Sequence[_Kernel], calls: set[int]) -> dict[int, int]:
    """The kernel of each op: the library call that it is, or the first generated kernel that works for it.

    A node may name two ops; the kernels that name one are served first, and a library's kernel is one of `calls`, ops
    that a library runs, where it names any: the pointwise op before a convolution may be named beside it.
    """
    homes: dict[int, int] = {}
    for i in sorted(range(len(kernels)), key=lambda i: (kernels[i].generated, len(kernels[i].work))):
        free = kernels[i].work - homes.keys()
        first = sorted(free, key=lambda n: (n not in calls, n))[:1]
        homes |= dict.fromkeys(free if kernels[i].generated else first, i)
    return homes


def _place_parts(parts: Sequence[int], number: int, kernels: Sequence[_Kernel], groups: Sequence[Group]) -> None:
    """Attention that was taken apart: what comes before its first product, between them, and they."""
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


def _copy(number: int, shape: tuple[int, ...], dtype: str, graph: Graph) -> Copy:
    """A copy that an op needs; of its weight where the shape says so."""
    inputs = graph.ops[number].spec.inputs
    activation = any(not t.weight and t.shape == shape for t in inputs)
    return Copy(number, shape, dtype, not activation and any(t.weight and t.shape == shape for t in inputs))


def _ops_of_decomposed(captured: Captured, graph: Graph) -> Callable[[str], set[int]]:
    """From a decomposed node to the numbers of the traced ops that it comes from."""
    before: Mapping[str, list[str]] = captured.origins["postToPre"]
    ops = ops_of_nodes(captured, graph)
    return lambda node: {o for name in before.get(node, ()) for o in ops.get(name, ())}


def ops_of_nodes(captured: Captured, graph: Graph) -> dict[str, list[int]]:
    """Numbers of the traced ops that each node of dynamo's graph makes."""
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
    """Calls with the node that made them."""

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
