"""Signatures: an operator with the forms of its tensors and its other arguments.

A signature determines the description of the op, its cost and the forms of its results. They are found out at its
first call, in an `Entry`, and cached for the process, so that a network made of signatures that were met before, in
this or another trace, is traced quickly. An entry that depends on the values of tensors is not cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import prod
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hwcost.cost import Cost
from hwcost.extensions import first_use
from hwcost.graph import OpSpec, Param, State, TensorSpec
from hwcost.rules.registry import assess, revision
from hwcost.tracing.form import Form, distinct, layout, layout_name
from hwcost.tracing.schema import Overload, bind, overload_of, own_overload
from hwcost.tracing.shadow import NeedsValue, Weight, form_of, memory_of
from hwcost.tracing.shapes.masks import NOTE, has_mask, selects_unknown
from hwcost.tracing.shapes.registry import has_shape_function, result_form
from hwcost.tracing.shapes.trial_run import MIXED, Probe

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

    outs: tuple[Any, ...] = ()  # an `Out` for each tensor; other values, such as None, as they are
    container: Callable[[list[Any]], Any] | None = None  # makes of tensors and values what the op returns, if not one
    reshaped: tuple[
        tuple[int, Form], ...
    ] = ()  # (position, new form) of tensor arguments given another shape, as `out`
    note: str = ""  # for `Graph.notes`
    by_values: bool = False  # known values of the arguments give them


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
    written: tuple[str, ...]  # names of these
    inputs: tuple[int, ...] | None  # positions of the argument that each input of `spec` is of; None: all, in order
    size: int  # elements of the results, but for views
    workspace: int  # bytes that the op allocates and frees while it runs
    by_values: bool  # the forms of the results follow from values, where these are known
    lasting: bool  # it holds for every call of the signature, and may be cached


class Tags:
    """The cache of a process: entries by signature, and a number (tag) for each form and role of a tensor.

    A role is whether a tensor is a weight. Signatures hold tags, which are hashed faster than forms.
    """

    def __init__(self) -> None:
        self.entries: dict[Any, Entry] = {}
        self.forms: dict[int, Form] = {}  # by tag
        self._next = count()
        self._numbers: dict[tuple[Form, bool], int] = {}
        self._specs: dict[Any, TensorSpec] = {}

    def tag(self, form: Form, *, weight: bool) -> int:
        """The number of a form and a role; a new one where it has none."""
        found = self._numbers.get((form, weight))
        if found is None:
            new = next(self._next)
            self.forms[new] = form
            found = self._numbers.setdefault((form, weight), new)  # another thread may have been quicker
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
        with first_use:  # torch imports the kernels of many ops when they are first called
            return self._learn(func, args, kwargs, tensors, known=known)

    def _learn(self, func: Any, args: Any, kwargs: Any, tensors: list[Any], *, known: bool) -> Entry:
        overload = overload_of(func)
        names, params = bind(overload, args, kwargs)
        mutated = tuple(i for i, name in enumerate(names) if name in overload.mutated)
        if overload.mutated:
            results = self._written(overload, func, args, kwargs, tensors, names, known=known)
        elif overload.reads_values or overload.annotates:
            results = Results()
        else:
            results = self._results(overload, func, args, kwargs, tensors, known)
        return self._entry(overload, tensors, names, params, results, mutated)

    def own(
        self,
        kind: str,
        names: list[str],
        tensors: list[Any],
        made: Sequence[Form],
        params: tuple[tuple[str, Param], ...],
    ) -> Entry:
        """The entry of an op that torch has no operator for, and that makes contiguous tensors of the given forms."""
        outs = [Out(f, self._tags.tag(f, weight=False), -1, prod(f.shape) * f.dtype.itemsize) for f in made]
        return self._entry(own_overload(kind, len(made)), tensors, names, params, Results(tuple(outs), tuple), ())

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
        made = [out for out in results.outs if isinstance(out, Out)]
        outputs = self._outputs(made, tensors, mutated, dict(results.reshaped))
        inputs, specs = self._inputs(overload, tensors, names)
        spec = OpSpec(overload.kind, specs, outputs, params)
        found = assess(spec)
        cost, state, reason = found.cost, found.state, found.reason
        if made and not mutated and all(out.shares >= 0 for out in made):
            cost, state, reason = Cost(), "free", _VIEW
        forms = [self._tags.forms[t.tag] for t in tensors]
        by_values = overload.sized_by_values or overload.kind in MIXED or results.by_values
        by_values = by_values or has_mask(overload.kind, names, forms)
        if selects_unknown(overload.kind, names, forms, tensors):
            results.note = NOTE
        return Entry(
            overload=overload,
            spec=spec,
            cost=cost,
            state=state,
            reason=reason,
            results=results,
            mutated=mutated,
            written=tuple(names[i] for i in mutated),
            inputs=inputs if inputs != tuple(range(len(tensors))) else None,
            size=sum(prod(out.form.shape) for out in made if out.shares < 0),
            workspace=found.workspace,
            by_values=by_values,
            lasting=not (overload.changes_form or overload.annotates or (by_values and any_known(tensors))),
        )

    def _inputs(
        self, overload: Overload, tensors: list[Any], names: list[str]
    ) -> tuple[tuple[int, ...], tuple[TensorSpec, ...]]:
        """The specs of the tensor arguments, and after them those of the indices of sparse ones, with their positions.

        A result's place (``out=``) is not read, and left out. Marked `repeat` is an argument whose memory earlier ones
        read already: the same tensor, or a view of all that they leave of its storage.
        """
        inputs: list[TensorSpec] = []
        given = [i for i, name in enumerate(names) if name not in overload.places]
        positions = list(given)
        read: dict[int, int] = {}  # bytes by identity of the memory
        met = set[int]()
        for i in given:
            name, tensor = names[i], tensors[i]
            spec = self._tags.spec(name, tensor.tag, weight=tensor.memory.weight)
            before = read.get(id(tensor.memory), 0)
            shared = before > 0 and before + spec.bytes > tensor.memory.bytes
            if shared or tensor.number in met:
                spec = self._tags.spec(name, tensor.tag, weight=tensor.memory.weight, repeat=True)
            else:
                read[id(tensor.memory)] = before + spec.bytes
            met.add(tensor.number)
            inputs.append(spec)
        for i in given:
            stored = self._tags.forms[tensors[i].tag].stored
            if stored:
                dtype, weight = DTYPES[stored.index_dtype], tensors[i].memory.weight
                inputs += [TensorSpec(f"{names[i]}.indices", shape, dtype, weight) for shape in stored.indices]
                positions += [i] * len(stored.indices)
        return tuple(positions), tuple(inputs)

    def _outputs(
        self, made: list[Out], tensors: list[Any], mutated: tuple[int, ...], reshaped: dict[int, Form]
    ) -> tuple[TensorSpec, ...]:
        """The results that an op makes, and after them the arguments that it writes into."""
        roles = [(out.tag, out.shares >= 0 and tensors[out.shares].memory.weight) for out in made]
        for i in mutated:
            weight = tensors[i].memory.weight
            tag = self._tags.tag(reshaped[i], weight=weight) if i in reshaped else tensors[i].tag
            roles.append((tag, weight))
        return tuple(
            self._tags.spec(f"out{i}" if i else "out", tag, weight=weight) for i, (tag, weight) in enumerate(roles)
        )

    def _results(
        self, overload: Overload, func: Any, args: Any, kwargs: Any, tensors: list[Any], known: bool
    ) -> Results:
        """The results: from a shape function, computed from known values, or from a trial run of torch."""
        forms = self._tags.forms
        if has_shape_function(overload.name) and not any(forms[t.tag].stored for t in tensors):
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
        if probe.on_numbers and known and not overload.random:
            results = self._read_off(self._compute(func, args, kwargs), [t.known for t in tensors], tensors)
        else:
            results.note = probe.note
            _check_numbers(overload, probe, known=known)
        results.by_values = probe.on_numbers
        return results

    def _read_off(self, result: Any, sources: list[Any], tensors: list[Any]) -> Results:
        """The results as torch returned them when it ran the op on `sources` instead of `tensors`.

        A result in the storage of a source is a view of the tensor that this source stands for.
        """
        homes: dict[int, int] = {}  # position of the first source with a storage, by identity of the storage
        for i, source in enumerate(sources):
            if source is not None:
                homes.setdefault(memory_of(source)[0], i)
        leaves: Sequence[Any] = (result,)
        container: Callable[[list[Any]], Any] | None = None
        if isinstance(result, (list, tuple)):
            leaves, container = result, list if isinstance(result, list) else tuple
            if any(isinstance(leaf, (list, tuple)) for leaf in leaves):  # a list inside, as histogramdd returns
                leaves, layout = pytree.tree_flatten(result)
                container = partial(pytree.tree_unflatten, treespec=layout)
        outs: list[Any] = []
        for tensor in leaves:
            if not isinstance(tensor, torch.Tensor):
                outs.append(tensor)
                continue
            form = form_of(tensor)
            identity, size = memory_of(tensor)
            shares = homes.get(identity, -1)
            weight = shares >= 0 and tensors[shares].memory.weight
            outs.append(Out(form, self._tags.tag(form, weight=weight), shares, size))
        return Results(tuple(outs), container)

    def _written(
        self,
        overload: Overload,
        func: Any,
        args: Any,
        kwargs: Any,
        tensors: list[Any],
        names: list[str],
        *,
        known: bool,
    ) -> Results:
        """What an op makes that writes into arguments, besides those; and the arguments that it resizes, as ``out``.

        A trial run also checks the arguments. It is left out where all have the shape of the first or are scalars, and
        the op makes nothing and has no ``out``.
        """
        forms = [self._tags.forms[t.tag] for t in tensors]
        makes = "" in overload.returns
        alike = all(f.shape in (forms[0].shape, ()) for f in forms)
        if overload.changes_form or (alike and not (makes or overload.places)):
            return Results()
        held = Held(tensors)
        probe = Probe(overload, func, lambda t: self._tags.forms[t.tag])
        try:
            result, _ = probe.run(held.replace(args), held.replace_all(kwargs))
        except NotImplementedError:
            if makes:
                raise
            return Results()  # torch cannot check them: there is no meta kernel, and they are too large to run
        stand_ins = [probe.stand_in(tensor) for tensor in tensors]
        if known and overload.sized_by_values:
            result, probe.note = self._compute(func, args, kwargs), ""
        every = result if isinstance(result, (list, tuple)) else (result,)
        new = [each for each, name in zip(every, overload.returns, strict=False) if not name]
        results = self._read_off(new, stand_ins, tensors)
        results.note, results.by_values = probe.note, probe.on_numbers
        _check_numbers(overload, probe, known=known)
        placed = {name: each for each, name in zip(every, overload.returns, strict=False) if name in overload.places}
        results.reshaped = tuple(
            (i, form_of(after))
            for i, name in enumerate(names)
            if name in overload.mutated
            if (after := placed.get(name, stand_ins[i])) is not None and tuple(after.shape) != forms[i].shape
        )
        return results


def _check_numbers(overload: Overload, probe: Probe, *, known: bool) -> None:
    """Refuse results that follow from values, where those of the arguments are not known.

    Raises:
        NeedsValue: they do.
    """
    if probe.follows_values and not known:
        raise NeedsValue(
            f"a number or a size that {overload.name} returns follows from values, and the op has no fake "
            "implementation that tells (torch.library.register_fake)"
        )


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
