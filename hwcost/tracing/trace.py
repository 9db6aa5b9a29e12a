"""From an nn.Module and example inputs to a Graph.

The forward runs once on tensors without data (`hwcost.tracing.recorder`). Nothing is computed and the module
is not touched: its attributes, mode, hooks and the random state are put back, also when it raises.
"""

from __future__ import annotations

import gc
import operator
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from hwcost.graph import Graph
from hwcost.tracing.recorder import Recorder
from hwcost.tracing.shadow import NeedsValue
from hwcost.tracing.shapes.shapes import FormError

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
    """Follow one forward of `module` without computing anything.

    Values that follow from constants, parameters or small integer inputs are known to the forward.
    If it asks for others, and module and inputs are real, it is computed after all, and
    `Graph.notes` says so. A size that depends on values (boxes that survive, elements that are nonzero) is
    taken at its largest, and `Graph.notes` says so.

    Args:
        module: an nn.Module on any device, meta included, or a function; it is unchanged after.
        inputs: positional arguments; tensors, on meta or not, give shape and dtype (batch included).
        kwargs: keyword arguments.
        training: count in training mode (batch statistics, dropout); False counts an inference.
            Peak memory is that of a forward without gradients in both.
        strict: raise for an op without a rule instead of reporting it as uncounted.

    Returns:
        The graph: ops in the order of their calls, costs, parameters, peak memory, blocks.

    Raises:
        TraceError: the forward raised, or needs values that nothing determines.
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
    try:
        graph = _follow(module, tree, training=training)
    except NeedsValue as error:
        graph = _compute(module, tree, error, training=training)
    if strict and graph.uncounted:
        raise UnknownOp(_unknown(graph.uncounted))
    return graph


def _follow(module: Any, tree: Any, *, training: bool, values: bool = False) -> Graph:
    """One attempt.

    Raises:
        NeedsValue: the forward asked for an unknown value.
        TraceError: it raised anything else.
    """
    places = _walk(module) if isinstance(module, nn.Module) else {}
    recorder = Recorder(device=_device(places, tree), values=values)
    with _untouched(places, training=training):
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
    """The second attempt: with every value, where module and inputs have values."""
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
    """Every module by its first path, parents before children, as `named_modules` has them."""
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
    """The device that tensors of the trace claim to be on: that of the weights, or of the inputs, if real."""
    for module in places.values():
        for tensor in module._parameters.values():
            if tensor is not None and is_lazy(tensor):  # asking for the two classes themselves runs Python
                raise TraceError(
                    f"{type(module).__name__} has parameters without a shape yet; run the module once, then trace it"
                )
            if tensor is not None and not tensor.is_meta:
                return tensor.device
    leaves = (t for t in pytree.tree_leaves(tree) if isinstance(t, torch.Tensor) and not t.is_meta)
    return next((t.device for t in leaves), torch.device("cpu"))


# -- leaving no trace ------------------------------------------------------------------------------


@contextmanager
def _untouched(places: Mapping[str, nn.Module], *, training: bool) -> Iterator[None]:
    """Put everything back that a forward may change; no garbage is collected meanwhile."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    settings = [read() for read, _ in _SETTINGS]
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    numpy_state = numpy_random.get_state() if numpy_random else None
    collecting = gc.isenabled()
    gc.disable()
    saved = _Saved(places)
    try:
        for m in places.values():
            m.__dict__["training"] = training
        yield
    finally:
        saved.put_back()
        torch.set_rng_state(torch_state)
        for (read, write), setting in zip(_SETTINGS, settings, strict=True):
            if read() != setting:
                write(setting)
        random.setstate(python_state)
        if numpy_random:
            numpy_random.set_state(numpy_state)
        if collecting:
            gc.enable()


# What a forward may set for the whole process: how to read it, how to write it.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_num_threads, torch.set_num_threads),
    (partial(getattr, torch.backends.cudnn, "benchmark"), partial(setattr, torch.backends.cudnn, "benchmark")),
    (partial(getattr, torch.backends.cudnn, "enabled"), partial(setattr, torch.backends.cudnn, "enabled")),
)


class _Saved:
    """Attributes of modules, and what is in those that are containers."""

    def __init__(self, places: Mapping[str, nn.Module]) -> None:
        # as lists: a copy of an object's own dict is slow
        self._attributes = [(d, list(d), list(d.values())) for d in (m.__dict__ for m in places.values())]
        self._full: list[tuple[Any, Any]] = []
        self._empty: list[Any] = []  # most are: a module has a dozen of them for hooks
        for _, _, values in self._attributes:
            for value in values:
                if isinstance(value, _CONTAINERS):
                    if value:
                        self._full.append((value, value.copy()))
                    else:
                        self._empty.append(value)

    def put_back(self) -> None:
        """Make everything what it was."""
        for attributes, names, values in self._attributes:
            if "training" in names:
                attributes["training"] = values[names.index("training")]
            if list(attributes) != names or not all(map(operator.is_, attributes.values(), values)):
                attributes.clear()
                attributes.update(zip(names, values, strict=True))
        if any(self._empty):
            for container in self._empty:
                container.clear()
        for container, content in self._full:
            if not _same(container, content):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)


_CONTAINERS = (dict, list, set)


def _same(now: Any, then: Any) -> bool:
    """Whether two containers hold the very same objects, in order (tensors must not be compared by ==)."""
    if len(now) != len(then):
        return False
    if isinstance(now, dict):
        return list(now) == list(then) and all(map(operator.is_, now.values(), then.values()))
    if isinstance(now, list):
        return all(map(operator.is_, now, then))
    return set(map(id, now)) == set(map(id, then))


# -- what went wrong -------------------------------------------------------------------------------


def _unknown(uncounted: tuple[tuple[str, int, str], ...]) -> str:
    name, calls, module = uncounted[0]
    space, kind = name.split(".")[:2]
    more = f", and for {len(uncounted) - 1} other ops" if len(uncounted) > 1 else ""
    kind = kind.rstrip("_") if space == "aten" else f"{space}.{kind.rstrip('_')}"
    return (
        f"no cost rule for {name} ({calls} call{'s' * (calls > 1)}, first in {module or 'the root module'}){more}. "
        f"Add one with @hwcost.rule({kind!r}), or trace without strict=True to go on with its bytes alone."
    )


def _explain(error: Exception, recorder: Recorder, places: Mapping[str, nn.Module]) -> str:
    """One line: what failed, where, and what to do."""
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
    dispatched = any(f.f_code.co_name == "__torch_dispatch__" for f in inside)
    if dispatched and (isinstance(error, FormError) or frames[-1] not in inside or _in_op(frames)):
        return f"{op} in {where} refused its arguments: {text}. Check the shape and dtype of the inputs."
    if frames[-1] in inside[1:]:
        return f"hwcost itself failed at {op} in {where} ({type(error).__name__}: {text}). Please report it."
    return (
        f"the forward of {where} raised {type(error).__name__} after {op}: {text}. "
        "Check that it runs on such inputs in eager mode."
    )


def _in_op(frames: list[Any]) -> bool:
    """Whether the last frame of ours is the one that calls the op itself."""
    return frames[-1].f_code.co_name in ("run", "_really", "_on_zeros", "_write")


def _frames(traceback: TracebackType | None) -> Iterator[Any]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _module_of(frames: list[Any], places: Mapping[str, nn.Module]) -> str:
    """Path of the innermost module whose method was running."""
    paths = {id(m): path for path, m in places.items()}
    for frame in reversed(frames):
        path = paths.get(id(frame.f_locals.get("self")))
        if path is not None:
            return path
    return ""
