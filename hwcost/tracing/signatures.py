"""Signatures: an operator with the forms of its tensors and its other arguments.

A signature determines the description of the op, its cost and the forms of its results. They are found out at its
first call, in an `Entry`, and cached for the process, so that a network made of signatures that were met before, in
this or another trace, is traced quickly. An entry that depends on the values of tensors is not cached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any

import torch

from hwcost.cost import Cost
from hwcost.graph import OpSpec, Param, State, TensorSpec
from hwcost.rules.registry import assess, revision
from hwcost.tracing.form import Form, distinct, layout, layout_name
from hwcost.tracing.schema import Overload, bind, overload_of
from hwcost.tracing.shadow import Weight, memory_of
from hwcost.tracing.shapes.registry import has_shape_function, result_form
from hwcost.tracing.shapes.trial_run import MIXED, Probe, real_form

DTYPES = {dtype: str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
MEMORY_LIMIT = 20_000  # number of cached signatures, and of forms; a cache with more is emptied
_VIEW = "a view: no data moves"


@dataclass(slots=True)
class Out:
    """One tensor of a result."""

    form: Form
    tag: int
    shares: int  # position among the tensor arguments of the one whose memory it shares; -1: it has its own
    bytes: int  # of its storage


@dataclass(slots=True)
class Results:
    """All tensors of a result."""

    outs: tuple[Out | None, ...] = ()
    container: type | None = None  # list or tuple, where the op returns one
    note: str = ""  # for `Graph.notes`


@dataclass(slots=True)
class Entry:
    """What the recorder needs at a call of a signature."""

    overload: Overload
    spec: OpSpec
    cost: Cost
    state: State
    reason: str
    results: Results
    mutated: tuple[int, ...]  # positions among the tensor arguments
    size: int  # elements of the results
    workspace: int  # bytes that the op allocates and frees while it runs
    by_values: bool  # the forms of the results follow from values, where these are known
    lasting: bool  # it holds for every call of the signature, and may be cached


class Tags:
    """The cache of a process: entries by signature, and a number (tag) for each form and role of a tensor.

    A role is whether a tensor is a weight. Signatures hold tags, which are hashed faster than forms.
    """

    def __init__(self) -> None:
        self.entries: dict[Any, Entry] = {}
        self.forms: list[Form] = []
        self._lock = Lock()
        self._numbers: dict[tuple[Form, bool], int] = {}
        self._specs: dict[Any, TensorSpec] = {}

    def tag(self, form: Form, *, weight: bool) -> int:
        """The number of a form and a role; a new one where it has none."""
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
            overlapping = 0 if layout(form) else prod(form.shape) - distinct(form)
            spec = TensorSpec(
                name, form.shape, DTYPES[form.dtype], weight, False, repeat, layout_name(form), overlapping
            )
            self._specs[key] = spec
        return spec


_remembered: dict[Any, Tags] = {}


def remembered() -> Tags:
    """The cache of this process under the present rules and default dtype; emptied where it is full."""
    key = revision(), torch.get_default_dtype()
    tags = _remembered.get(key)
    if tags is None or max(len(tags.entries), len(tags.forms)) > MEMORY_LIMIT:
        forget()
        tags = _remembered[key] = Tags()
    return tags


def forget() -> None:
    """Empty the cache; a trace that is under way keeps the one that it began with."""
    _remembered.clear()


def any_known(tensors: list[Any]) -> bool:
    """Whether the values of any of them are known."""
    return any(t.known is not None and t.memory.valid for t in tensors)


class Learner:
    """Makes the entry of a signature at its first call.

    Args:
        tags: the cache.
        compute: from an op, its arguments and its keyword arguments to its result, on known values.
    """

    def __init__(self, tags: Tags, compute: Callable[[Any, Any, Any], Any]) -> None:
        self._tags, self._compute = tags, compute

    def learn(self, func: Any, args: Any, kwargs: Any, tensors: list[Any], *, known: bool) -> Entry:
        """The entry of a call.

        Args:
            func: the OpOverload that is called.
            args: its arguments.
            kwargs: its keyword arguments.
            tensors: the Shadow or Weight of each of its tensors, in order.
            known: whether the values of all of them are known.
        """
        overload = overload_of(func)
        names, params = bind(overload, args, kwargs)
        mutated = tuple(i for i, name in enumerate(names) if name in overload.mutated)
        if overload.mutated:
            self._check_write(overload, func, args, kwargs, tensors)
            results = Results()
        elif overload.reads_values or overload.annotates:
            results = Results()
        else:
            results = self._results(overload, func, args, kwargs, tensors, known)
        return self._entry(overload, tensors, names, params, results, mutated)

    def _entry(
        self,
        overload: Overload,
        tensors: list[Any],
        names: list[str],
        params: tuple[tuple[str, Param], ...],
        results: Results,
        mutated: tuple[int, ...],
    ) -> Entry:
        """The entry of a call, once its results are known. `names` are those of the arguments that hold `tensors`."""
        made = [out for out in results.outs if out]
        spec = OpSpec(overload.kind, self._inputs(tensors, names), self._outputs(made, tensors, mutated), params)
        found = assess(spec)
        cost, state, reason = found.cost, found.state, found.reason
        if made and all(out.shares >= 0 for out in made):
            cost, state, reason = Cost(), "free", _VIEW
        by_values = overload.sized_by_values or overload.kind in MIXED
        return Entry(
            overload=overload,
            spec=spec,
            cost=cost,
            state=state,
            reason=reason,
            results=results,
            mutated=mutated,
            size=sum(prod(out.form.shape) for out in made),
            workspace=found.workspace,
            by_values=by_values,
            lasting=not (overload.changes_form or overload.annotates or (by_values and any_known(tensors))),
        )

    def _inputs(self, tensors: list[Any], names: list[str]) -> tuple[TensorSpec, ...]:
        """The specs of the tensor arguments; of one that is given twice, the second is marked `repeat`."""
        inputs = []
        met = set[int]()
        for name, tensor in zip(names, tensors, strict=True):
            repeat = tensor.number in met
            inputs.append(self._tags.spec(name, tensor.tag, weight=tensor.memory.weight, repeat=repeat))
            met.add(tensor.number)
        return tuple(inputs)

    def _outputs(self, made: list[Out], tensors: list[Any], mutated: tuple[int, ...]) -> tuple[TensorSpec, ...]:
        """The results that an op makes, or the arguments that it writes into where it makes none."""
        if made:
            roles = [(out.tag, out.shares >= 0 and tensors[out.shares].memory.weight) for out in made]
        else:
            roles = [(tensors[i].tag, tensors[i].memory.weight) for i in mutated]
        return tuple(
            self._tags.spec(f"out{i}" if i else "out", tag, weight=weight) for i, (tag, weight) in enumerate(roles)
        )

    def _results(
        self, overload: Overload, func: Any, args: Any, kwargs: Any, tensors: list[Any], known: bool
    ) -> Results:
        """The results: from a shape function, computed from known values, or from a trial run of torch."""
        forms = self._tags.forms
        if has_shape_function(overload.name):
            shapes = Held(tensors, lambda tensor: forms[tensor.tag])
            form = result_form(overload.name, shapes.replace(args), shapes.replace_all(kwargs))
            if form is not None:
                size = prod(form.shape) * form.dtype.itemsize
                return Results((Out(form, self._tags.tag(form, weight=False), -1, size),))
        if known and overload.sized_by_values:
            return self._read_off(self._compute(func, args, kwargs), [t.known for t in tensors], tensors)
        held = Held(tensors)
        probe = Probe(overload, func, lambda tensor: forms[tensor.tag])
        result, has_sources = probe.run(held.replace(args), held.replace_all(kwargs))
        sources = [probe.stand_in(tensor) for tensor in tensors] if has_sources else []
        results = self._read_off(result, sources, tensors)
        results.note = probe.note
        return results

    def _read_off(self, result: Any, sources: list[Any], tensors: list[Any]) -> Results:
        """The results as torch returned them when it ran the op on `sources` instead of `tensors`.

        A result in the storage of a source is a view of the tensor that this source stands for.
        """
        homes: dict[int, int] = {}  # position of the first source with a storage, by identity of the storage
        for i, source in enumerate(sources):
            if source is not None:
                homes.setdefault(memory_of(source)[0], i)
        container: type | None = None
        if isinstance(result, (list, tuple)):
            container = list if isinstance(result, list) else tuple
        outs: list[Out | None] = []
        for tensor in (result,) if container is None else result:
            if not isinstance(tensor, torch.Tensor):
                outs.append(None)
                continue
            form = real_form(tensor)
            identity, size = memory_of(tensor)
            shares = homes.get(identity, -1)
            weight = shares >= 0 and tensors[shares].memory.weight
            outs.append(Out(form, self._tags.tag(form, weight=weight), shares, size))
        return Results(tuple(outs), container)

    def _check_write(self, overload: Overload, func: Any, args: Any, kwargs: Any, tensors: list[Any]) -> None:
        """Have torch check the arguments of an in-place op, unless all have the shape of the first or are scalars."""
        forms = [self._tags.forms[t.tag] for t in tensors]
        if overload.changes_form or all(f.shape in (forms[0].shape, ()) for f in forms):
            return
        try:
            held = Held(tensors)
            Probe(overload, func, lambda t: self._tags.forms[t.tag]).run(held.replace(args), held.replace_all(kwargs))
        except NotImplementedError:  # torch cannot check them: there is no meta kernel, and they are too large to run
            return


class Held:
    """Replaces the tensors in lists of arguments by the Shadow or Weight of each, or by `change` of it."""

    def __init__(self, things: list[Any], change: Callable[[Any], Any] = lambda thing: thing) -> None:
        self._by_id = {id(t.tensor if type(t) is Weight else t): change(t) for t in things}

    def replace(self, args: Any) -> list[Any]:
        """Positional arguments, or a nested list of them."""
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
