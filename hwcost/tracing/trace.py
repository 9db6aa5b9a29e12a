"""From an nn.Module and example inputs to a Graph.

The forward runs on tensors without data (`hwcost.tracing.recorder`). What a forward may change, such as attributes of
the module, its mode, its hooks and the random state, is put back, also when it raises (`hwcost.tracing.restore`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from hwcost.graph import FUSED_ATTENTION, Graph
from hwcost.tracing.fast_path import by_parts, following
from hwcost.tracing.form import FormError
from hwcost.tracing.recorder import Recorder
from hwcost.tracing.restore import untouched
from hwcost.tracing.shadow import NeedsValue

_NO_GPU = ("not compiled with CUDA", "No CUDA GPUs", "no NVIDIA driver", "CUDA driver", "Expected one of cpu, cuda")
_NO_KERNEL, _NO_GRADIENT = "Could not run", "does not require grad and does not have a grad_fn"
_HERE = str(Path(__file__).parents[1])


class TraceError(ValueError):
    """A forward that could not be followed: the op, the module and the next step."""


class UnknownOp(TraceError):
    """An op without a cost rule, met under ``strict=True``."""


def trace(
    module: nn.Module | Callable[..., Any],
    inputs: Sequence[Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    training: bool = False,
    strict: bool = False,
) -> Graph:
    """Follow the forward of `module` without computing what depends on its inputs.

    Values that follow from constants, parameters or small integer inputs are computed, so that the forward can read
    them. If it reads others, everything is computed with the values of the example inputs, where module and inputs
    have values. A size that depends on values (boxes that survive, elements that are nonzero) is taken at its largest.
    `Graph.notes` tells where either was done.

    A forward that takes the fast path of torch's attention layers is followed a second time without it, for
    `Graph.by_parts`. Only one thread traces at a time.

    Args:
        module: an nn.Module on any device, meta included, or a function; it is unchanged after.
        inputs: positional arguments; tensors, which may be on meta, give shape (batch included) and dtype.
        kwargs: keyword arguments.
        training: count in training mode (batch statistics, dropout); False counts an inference.
            Peak memory is that of a forward without gradients in both.
        strict: raise for an op without a rule instead of reporting it as uncounted.

    Returns:
        The graph: ops in the order of their calls, costs, parameters, peak memory, blocks.

    Raises:
        TraceError: the forward raised, or reads values of a module or inputs on meta.
        UnknownOp: under `strict`.

    Example:
        >>> import torch, hwcost
        >>> graph = hwcost.trace(torch.nn.Linear(64, 128), torch.empty(2, 64))
        >>> graph.cost.macs, graph.params, graph.status
        (16384, 8320, 'complete')
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    if isinstance(module, type) or not callable(module):
        raise TraceError(
            f"trace follows an nn.Module or a function, but got {module!r}. Give an instance of a network."
        )
    if not isinstance(inputs, (torch.Tensor, Sequence)):
        raise TraceError(
            f"inputs must be a tensor or a tuple of arguments, but got {type(inputs).__name__}. "
            "Give trace(module, (x,)), and keyword arguments as trace(module, (), {'name': x})."
        )
    args = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    tree = (args, dict(kwargs or {}))
    graph = _graph(module, tree, training=training)
    if any(op.spec.kind in FUSED_ATTENTION for op in graph.ops):
        with by_parts():
            graph = replace(graph, by_parts=_graph(module, tree, training=training))
    if strict and graph.uncounted:
        raise UnknownOp(_unknown(graph.uncounted))
    return graph


def _graph(module: Any, tree: Any, *, training: bool) -> Graph:
    """The graph of one forward: without values, or with those of the example inputs where it needs them."""
    with following():
        try:
            return _follow(module, tree, training=training)
        except NeedsValue as error:
            return _compute(module, tree, error, training=training)


def _follow(module: Any, tree: Any, *, training: bool, values: bool = False) -> Graph:
    """One attempt to follow a forward; with `values`, everything is computed beside the shapes.

    Raises:
        NeedsValue: the forward read an unknown value.
        TraceError: it raised anything else.
    """
    places = _walk(module) if isinstance(module, nn.Module) else {}
    recorder = Recorder(device=_device(places, tree), values=values)
    with untouched(places, training=training):
        recorder.add_weights(places)
        with recorder.watching():
            args, keywords = recorder.shadow_inputs(tree)
            try:
                output = module(*args, **keywords)
            except NeedsValue:
                raise
            except Exception as error:
                raise TraceError(_explain(error, recorder, places)) from error
        return recorder.graph(output)


def _compute(module: Any, tree: Any, error: NeedsValue, *, training: bool) -> Graph:
    """The second attempt, after `error`: with all values, where module and inputs have them."""
    tensors = [t for t in pytree.tree_leaves(tree) if isinstance(t, torch.Tensor)]
    if isinstance(module, nn.Module):
        tensors += [*module.parameters(), *module.buffers()]
    try:
        if any(t.is_meta for t in tensors):
            raise error
        graph = _follow(module, tree, training=training, values=True)
    except NeedsValue as again:
        raise TraceError(
            f"{again}; give the value as a number, or give module and inputs with data so that it can be computed"
        ) from error
    note = f"computed with the values of the example inputs: {error}"
    return replace(graph, notes=(note, *graph.notes))


def _walk(root: nn.Module) -> dict[str, nn.Module]:
    """Every module by its path, parents before children; one that has several paths by the first."""
    places: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def visit(module: nn.Module, path: str) -> None:
        seen.add(id(module))
        places[path] = module
        prefix = f"{path}." if path else ""
        for name, child in module._modules.items():
            if child is not None and id(child) not in seen:
                visit(child, prefix + name)

    visit(root, "")
    return places


def _device(places: Mapping[str, nn.Module], tree: Any) -> torch.device:
    """The device that tensors of the trace claim to be on: that of the first weight or input that is not on meta."""
    for module in places.values():
        for tensor in module._parameters.values():
            if tensor is not None and is_lazy(tensor):  # cheaper than isinstance, which runs Python code of torch
                raise TraceError(
                    f"{type(module).__name__} has parameters without a shape yet; run the module once, then trace it"
                )
            if tensor is not None and not tensor.is_meta:
                return tensor.device
    leaves = (t for t in pytree.tree_leaves(tree) if isinstance(t, torch.Tensor) and not t.is_meta)
    return next((t.device for t in leaves), torch.device("cpu"))


# -- what went wrong -------------------------------------------------------------------------------


def _unknown(uncounted: tuple[tuple[str, int, str], ...]) -> str:
    """The message of an UnknownOp, from `Graph.uncounted`."""
    name, calls, module = uncounted[0]
    space, kind = name.split(".")[:2]
    more = f", and for {len(uncounted) - 1} other ops" if len(uncounted) > 1 else ""
    kind = kind.rstrip("_") if space == "aten" else f"{space}.{kind.rstrip('_')}"
    return (
        f"no cost rule for {name} ({calls} call{'s' * (calls > 1)}, first in {module or 'the root module'}){more}. "
        f"Add one with @hwcost.rule({kind!r}), or trace without strict=True to go on with its bytes alone."
    )


def _explain(error: Exception, recorder: Recorder, places: Mapping[str, nn.Module]) -> str:
    """The message of a TraceError, in one line: what failed, where, and what to do."""
    frames = list(_frames(error.__traceback__))
    where = _module_of(frames, places) or "the root module"
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
    inside = [f for f in frames if f.f_code.co_filename.startswith(_HERE)]
    op = recorder.last_op
    if any(sign in text for sign in _NO_GPU):
        return f"{where} needs a GPU ({text}). Move its device choice out of forward, or trace it where it has one."
    if isinstance(error, NotImplementedError) and _NO_KERNEL in text:
        return (
            f"{op} in {where} has no kernel for such tensors, neither on meta nor on CPU. "
            "Check their dtypes; an op of your own needs torch.library.register_fake."
        )
    if _NO_GRADIENT in text:
        return f"{where} takes gradients after {op}, which a trace does not follow. Trace its forward alone."
    # An error inside an operator call is torch's refusal of the arguments, unless a function here raised it.
    dispatched = any(f.f_code.co_name == "__torch_dispatch__" for f in inside)
    if dispatched and (isinstance(error, FormError) or frames[-1] not in inside or _in_op(frames)):
        return f"{op} in {where} refused its arguments: {text}. Check the shape and dtype of the inputs."
    if frames[-1] in inside[1:]:  # inside[0] is `_follow`, which calls the module: it fails where arguments do not fit
        return f"hwcost itself failed at {op} in {where} ({type(error).__name__}: {text}). Please report it."
    return (
        f"the forward of {where} raised {type(error).__name__} after {op}: {text}. "
        "Check that it runs on such inputs in eager mode."
    )


def _in_op(frames: list[Any]) -> bool:
    """Whether the last frame is that of a function here that calls the op itself."""
    return frames[-1].f_code.co_name in ("run", "_really", "_on_zeros", "_write")


def _frames(traceback: TracebackType | None) -> Iterator[Any]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _module_of(frames: list[Any], places: Mapping[str, nn.Module]) -> str:
    """Path of the innermost module whose method was running; "" for the root, or where there is none."""
    paths = {id(m): path for path, m in places.items()}
    for frame in reversed(frames):
        path = paths.get(id(frame.f_locals.get("self")))
        if path is not None:
            return path
    return ""
