"""Inductor's Python function with the clock read around every kernel that it calls."""

from __future__ import annotations

import ast
import time
import types
from typing import Any

from hwcost.runtimes.torch_compile.capture import Captured

_CLOCK = "_hwcost_clock"


def instrumented(call: Any, captured: Captured) -> Any:
    """Inductor's function, which then appends to `captured.ticks` before and after each kernel.

    Args:
        call: the bound method that runs the compiled module.
        captured: what `compile_module` returned for it.

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
    """Puts clock readings around each statement that calls a kernel; `seen` has the kernels' names in that order."""

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
