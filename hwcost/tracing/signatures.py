"""What the first call of a signature teaches: its description, its cost and the forms of its results.

An answer follows from shapes, dtypes and parameters alone, so the process remembers it: a network made of
signatures that were met before, in another module or another trace, learns nothing anew. Answers that follow
from values are never remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any

import torch

from hwcost.cost import Cost
from hwcost.graph import OpSpec, State, TensorSpec
from hwcost.rules.registry import assess, revision
from hwcost.tracing.form import Form, contiguous, layout
from hwcost.tracing.schema import Call, bind, call_of
from hwcost.tracing.shadow import Weight, memory_of
from hwcost.tracing.shapes.registry import has_shape_function, result_form
from hwcost.tracing.shapes.trial_run import MIXED, Probe, real_form

DTYPES = {dtype: str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
MEMORY_LIMIT = 20_000  # signatures that the process remembers; then it starts anew
_VIEW = "a view: no data moves"


@dataclass(slots=True)
class Out:
    """One tensor of a result: what to make, and whose memory it shares (-1: its own)."""

    form: Form
    tag: int
    shares: int
    bytes: int


@dataclass(slots=True)
class Results:
    """The tensors of a result; `container` is its type where it has several."""

    outs: tuple[Out | None, ...] = ()
    container: type | None = None
    note: str = ""


@dataclass(slots=True)
class Entry:
    """What is known of a signature."""

    call: Call
    spec: OpSpec
    cost: Cost
    state: State
    reason: str
    results: Results
    mutated: tuple[int, ...]  # positions among the tensor arguments
    size: int  # elements of the results
    workspace: int  # bytes held while it runs
    by_values: bool  # the results' forms follow from values, where these are known
    lasting: bool  # the same at every call of the signature


class Tags:
    """Numbers for forms and roles, the specs of tensors that have them, and the entries of signatures of them."""

    def __init__(self) -> None:
        self.entries: dict[Any, Entry] = {}
        self.forms: list[Form] = []
        self._lock = Lock()
        self._numbers: dict[tuple[Form, bool], int] = {}
        self._specs: dict[Any, TensorSpec] = {}

    def tag(self, form: Form, *, weight: bool) -> int:
        """The number of a form and a role."""
        found = self._numbers.get((form, weight))
        if found is None:
            with self._lock:  # another thread may trace at the same time
                found = self._numbers.get((form, weight))
                if found is None:
                    self.forms.append(form)
                    found = self._numbers[form, weight] = len(self.forms) - 1
        return found

    def spec(self, name: str, tag: int, *, weight: bool = False, repeat: bool = False) -> TensorSpec:
        """The spec of a tensor argument or result."""
        key = name, tag, weight, repeat
        spec = self._specs.get(key)
        if spec is None:
            form = self.forms[tag]
            overlapping = 0 if layout(form) else prod(form.shape) - _distinct(form)
            spec = TensorSpec(
                name, form.shape, DTYPES[form.dtype], weight, False, repeat, _layout_name(form), overlapping
            )
            self._specs[key] = spec
        return spec


_remembered: dict[Any, Tags] = {}


def remembered() -> Tags:
    """What this process knows, under the present rules and default dtype; a full memory is emptied."""
    key = revision(), torch.get_default_dtype()
    tags = _remembered.get(key)
    if tags is None or max(len(tags.entries), len(tags.forms)) > MEMORY_LIMIT:
        forget()
        tags = _remembered[key] = Tags()
    return tags


def forget() -> None:
    """Let go of every answer; a trace that is under way keeps its own."""
    _remembered.clear()


def span(form: Form) -> int:
    """Elements from the first to the last, gaps included."""
    if 0 in form.shape:
        return 0
    last = 0
    for size, step in zip(form.shape, form.stride, strict=True):
        last += (size - 1) * step
    return 1 + last


def _distinct(form: Form) -> int:
    """Elements that differ: an axis of stride 0 has one, and axes that overlap have no more than their span."""
    sizes = (size if step or size == 0 else 1 for size, step in zip(form.shape, form.stride, strict=True))
    return min(prod(sizes), span(form))


def _layout_name(form: Form) -> str:
    known = layout(form)
    if known:
        return "contiguous" if known == "c" else "channels_last"
    keep = [(size, step) for size, step in zip(form.shape, form.stride, strict=True) if size != 1]
    if 0 in form.shape or tuple(step for _, step in keep) == contiguous(tuple(size for size, _ in keep)):
        return "contiguous"  # axes of size 1 leave the strides open
    return "channels_last" if len(form.shape) == 4 and _is_channels_last(form) else "strided"


def _is_channels_last(form: Form) -> bool:
    """Whether kernels take it for channels last. They do not where the stride of a batch of one says otherwise, as
    with tokens seen as a map, and copy it first (`is_channels_last_strides_2d` of c10/core/MemoryFormat.h)."""
    meta = torch.empty_strided(form.shape, form.stride, device="meta")
    return meta.is_contiguous(memory_format=torch.channels_last) and form.stride[0] >= prod(form.shape[1:])


def any_known(tensors: list[Any]) -> bool:
    """Whether the values of any of them are known."""
    return any(t.known is not None and t.memory.valid for t in tensors)


class Learner:
    """Finds out what a signature's first call does. `really` computes on known values."""

    def __init__(self, tags: Tags, really: Callable[[Any, Any, Any], Any]) -> None:
        self._tags, self._really = tags, really

    def learn(self, func: Any, args: Any, kwargs: Any, tensors: list[Any], *, known: bool) -> Entry:
        """The entry of a call; `tensors` stand for its tensor arguments, in order."""
        call = call_of(func)
        names, params = bind(call, args, kwargs)
        mutated = tuple(i for i, name in enumerate(names) if name in call.mutated)
        if call.mutated:
            self._check_write(call, func, args, kwargs, tensors)
            results = Results()
        elif call.reads_values or call.annotates:
            results = Results()
        else:
            results = self._results(call, func, args, kwargs, tensors, known)
        return self._entry(call, tensors, names, params, results, mutated)

    def _entry(
        self, call: Call, tensors: list[Any], names: list[str], params: Any,
        results: Results, mutated: tuple[int, ...],
    ) -> Entry:  # fmt: skip
        spec_of, met = self._tags.spec, set()
        inputs = []
        for name, t in zip(names, tensors, strict=True):
            inputs.append(spec_of(name, t.tag, weight=t.memory.weight, repeat=t.number in met))
            met.add(t.number)
        made = [o for o in results.outs if o]
        written = [(o.tag, o.shares >= 0 and tensors[o.shares].memory.weight) for o in made] or [
            (tensors[i].tag, tensors[i].memory.weight) for i in mutated
        ]
        outputs = [spec_of(f"out{i}" if i else "out", tag, weight=weight) for i, (tag, weight) in enumerate(written)]
        spec = OpSpec(call.kind, tuple(inputs), tuple(outputs), params)
        found = assess(spec)
        cost, state, reason = found.cost, found.state, found.reason
        if made and all(o.shares >= 0 for o in made):
            cost, state, reason = Cost(), "free", _VIEW
        by_values = call.sized_by_values or call.kind in MIXED
        lasting = not (call.changes_form or call.annotates or (by_values and any_known(tensors)))
        size = sum(prod(o.form.shape) for o in made)
        return Entry(call, spec, cost, state, reason, results, mutated, size, found.workspace, by_values, lasting)

    def _results(self, call: Call, func: Any, args: Any, kwargs: Any, tensors: list[Any], known: bool) -> Results:
        """Forms of the results: from the shapes, from the values, or from torch."""
        forms, held, form = self._tags.forms, Held(tensors), None
        if has_shape_function(call.name):
            shapes = Held(tensors, lambda t: forms[t.tag])
            form = result_form(call.name, shapes.replace(args), shapes.replace_all(kwargs))
        if form is not None:
            out = Out(form, self._tags.tag(form, weight=False), -1, prod(form.shape) * form.dtype.itemsize)
            return Results((out,))
        if known and call.sized_by_values:
            return self._read_off(self._really(func, args, kwargs), [t.known for t in tensors], tensors)
        probe = Probe(call, func, lambda t: forms[t.tag])
        result, stood = probe.run(held.replace(args), held.replace_all(kwargs))
        results = self._read_off(result, [probe.stand_in(t) for t in tensors] if stood else [], tensors)
        results.note = probe.note
        return results

    def _read_off(self, result: Any, sources: list[Any], tensors: list[Any]) -> Results:
        """Forms of a result that torch made from `sources`, which stood for `tensors`."""
        homes: dict[int, int] = {}
        for i, source in enumerate(sources):
            if source is not None:
                homes.setdefault(memory_of(source)[0], i)
        several = isinstance(result, (list, tuple))
        outs: list[Out | None] = []
        for tensor in result if several else (result,):
            if not isinstance(tensor, torch.Tensor):
                outs.append(None)
                continue
            form, (identity, size) = real_form(tensor), memory_of(tensor)
            shares = homes.get(identity, -1)
            weight = shares >= 0 and tensors[shares].memory.weight
            outs.append(Out(form, self._tags.tag(form, weight=weight), shares, size))
        return Results(tuple(outs), (list if isinstance(result, list) else tuple) if several else None)

    def _check_write(self, call: Call, func: Any, args: Any, kwargs: Any, tensors: list[Any]) -> None:
        """Let torch refuse the arguments of an in-place op where their shapes are not plainly right."""
        forms = [self._tags.forms[t.tag] for t in tensors]
        if call.changes_form or all(f.shape in (forms[0].shape, ()) for f in forms):
            return
        try:
            held = Held(tensors)
            Probe(call, func, lambda t: self._tags.forms[t.tag]).run(held.replace(args), held.replace_all(kwargs))
        except NotImplementedError:
            return


class Held:
    """Replaces the tensors of an argument list by what stands for them, changed, in order."""

    def __init__(self, things: list[Any], change: Callable[[Any], Any] = lambda thing: thing) -> None:
        self._by_id = {id(t.tensor if type(t) is Weight else t): change(t) for t in things}

    def replace(self, args: Any) -> list[Any]:
        """A list of arguments."""
        out: list[Any] = []
        for arg in args:
            if id(arg) in self._by_id:
                out.append(self._by_id[id(arg)])
            elif isinstance(arg, (list, tuple)):
                out.append(type(arg)(self.replace(arg)))
            else:
                out.append(arg)
        return out

    def replace_all(self, kwargs: Any) -> dict[str, Any]:
        """Keyword arguments."""
        return dict(zip(kwargs, self.replace(kwargs.values()), strict=True)) if kwargs else {}
