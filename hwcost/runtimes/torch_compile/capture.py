"""Compiling a module with inductor, torch.compile's compiler, and keeping its record of the kernels that it made.

A module goes through three forms: *dynamo's graph*, of the calls that its forward makes; the *decomposed graph*, of
torch's primitive operators; and kernels, each of which computes some decomposed nodes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch


@dataclass(slots=True)
class Captured:
    """A compiled module, and what the compiler recorded of it."""

    run: Callable[..., Any] = print  # the compiled function, set by `compile_module`
    nodes: Any = None  # the graph that dynamo took from the module
    arguments: Sequence[Any] = ()  # of that graph
    compiled: Any = None  # torch._inductor.output_code.CompiledFxGraph
    views: set[str] = field(default_factory=set)  # names of the decomposed nodes that move no data
    # What generated kernels write: decomposed nodes, shape, dtype, number of library calls before it.
    buffers: list[tuple[set[str], tuple[int, ...], str, int]] = field(default_factory=list)
    ticks: list[tuple[float, float]] = field(default_factory=list)  # wall, thread time (s) before and after each kernel

    @property
    def origins(self) -> Mapping[str, Any]:
        """Inductor's record of origins: decomposed nodes of each kernel ("cppCodeToPost"), and dynamo's nodes of each
        decomposed node ("postToPre")."""
        return cast(Mapping[str, Any], json.loads(self.compiled.inductor_provenance_mapping_str))

    @property
    def kernels(self) -> dict[str, list[str]]:
        """Decomposed nodes of each kernel, in the order of the calls; a key is "function:number of the call"."""
        found: dict[str, list[str]] = self.origins["cppCodeToPost"]
        return dict(sorted(found.items(), key=lambda item: int(item[0].rpartition(":")[2])))


def compile_module(module: Any, inputs: Sequence[Any]) -> Captured:
    """Compile a module and run it once.

    Raises:
        ValueError: dynamo cannot take it as one graph, or it makes no call that could be compiled.
    """
    from torch._dynamo.exc import Unsupported
    from torch._functorch import config as functorch_config
    from torch._inductor import config

    captured = Captured()

    def forward(*args: Any) -> Any:
        return module(*args)

    # A code object of its own for each session: torch keeps only a few compiled versions of one code object.
    forward.__code__ = forward.__code__.replace(co_name=f"forward_{id(captured)}")
    captured.run = torch.compile(forward, backend=_backend(captured), fullgraph=True, dynamic=False)
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    try:
        with (
            config.patch(compile_threads=1),  # starts no pool of processes, which would outlive the compiling
            functorch_config.patch(enable_autograd_cache=False),  # a graph from the cache would come without a record
            torch.inference_mode(),
        ):
            captured.run(*inputs)
    except Unsupported as error:
        raise ValueError(f"torch-compile takes a network as one graph, but {str(error).splitlines()[0]}") from error
    if captured.compiled is None:
        raise ValueError("torch-compile found nothing to compile: the network makes no call")
    return captured


def _backend(captured: Captured) -> Callable[..., Any]:
    """A backend for torch.compile: inductor, whose record is put into `captured`."""

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
        return True  # inputs of the graph, its output, and elements taken from a tuple
    return any(out.alias_info is not None and not out.alias_info.is_write for out in schema.returns)


def _note_buffers(scheduled: Any, captured: Captured) -> Any:
    """Record in `captured.buffers` what generated kernels write; returns `scheduled` as it is, as inductor wants."""
    calls = 0
    for fused in scheduled:
        calls += fused.is_extern()
        for buffer in (n.node for n in fused.get_nodes() if type(n.node).__name__ == "ComputedBuffer"):
            shape = tuple(int(n) for n in buffer.get_size())
            dtype = str(buffer.get_dtype()).removeprefix("torch.")
            captured.buffers.append(({n.name for n in buffer.get_origins()}, shape, dtype, calls))
    return scheduled
