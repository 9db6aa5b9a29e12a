"""The dispatch mode that records the operator calls of a forward as a graph.

Every tensor of a traced forward is a `Shadow`: it has a form and the device of the module, but no data. torch hands
every operator call to `Recorder.__torch_dispatch__`, composite ops included, since inference mode does not take them
apart. The recorder appends the op to the graph and returns new shadows as its results. What a call with these shapes
and parameters returns and costs comes from `hwcost.tracing.signatures`, which computes it once in a process; repeated
blocks therefore take little time.

Lives of activations: all views of one storage refer to one `Memory`. When the forward lets go of the last of them,
Python destroys the `Memory`, which notes the op that ran last.

Known values: networks read small values that do not depend on the input, as in `int(table.max())` or `mask.all()`.
What follows from constants, parameters and integer inputs alone is therefore computed, and kept beside its shadow.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

from hwcost.graph import Graph, Life, Op, Param
from hwcost.tracing import higher_order
from hwcost.tracing.draws import own_draws
from hwcost.tracing.form import Form, FormError, span
from hwcost.tracing.higher_order import Taken
from hwcost.tracing.schema import overload_of, packed_tensors
from hwcost.tracing.shadow import (
    Mark,
    Memory,
    NeedsValue,
    SetsData,
    Shadow,
    Weight,
    WritesWeights,
    counting_collections,
    form_of,
    make_shadow,
    memory_of,
    refuse_reads,
)
from hwcost.tracing.signatures import DTYPES, Entry, Learner, Out, any_known, remembered
from hwcost.tracing.wrappers import held_by, is_wrapper, remade

KNOWN_LIMIT = 1 << 16  # elements; larger parameters and inputs are not computed with
CONSTANT_LIMIT = 1 << 24  # elements of a tensor that follows from neither inputs nor large parameters
_BUDGET = 1 << 26  # elements and flops of all such tensors of a trace
_NUMBERS = (int, float, bool, complex)
_normal = torch._C._InferenceMode  # `with _normal(False)`: tensors are made as outside inference mode
# A context in which functions that torch.compile has wrapped run as they were written; it holds for one thread.
_AS_WRITTEN: Any = SimpleNamespace(fake_mode=SimpleNamespace(in_kernel_invocation=True))
_SETS_DATA = "_has_compatible_shallow_copy_type"  # kind of the op that torch calls before ``tensor.data = value``
_packed_numbers = count()


class Recorder(TorchDispatchMode):
    """Records one forward.

    Args:
        device: where all tensors of the forward claim to be.
        values: compute every tensor from the example inputs, for a forward that reads values of its activations.
        shadow_weights: replace weights by shadows, for a forward that gives them other data (`SetsData`).
        own_weights: with `values`, compute on copies of the parameters (`WritesWeights`).
    """

    def __init__(
        self, *, device: torch.device, values: bool = False, shadow_weights: bool = False, own_weights: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._at: tuple[Any, list[Any]] | None = None  # the op that was called last, and its tensor arguments
        self._notes: dict[tuple[str, str], dict[str, None]] = {}  # what stands before and after a place -> places
        self._device, self._values, self._shadow_weights = device, values, shadow_weights
        self._own_weights = own_weights
        self._borrowed: set[Memory] = set()  # of parameters whose values are read where they are
        self._limit = float("inf") if values else KNOWN_LIMIT
        self._constant_limit = float("inf") if values else CONSTANT_LIMIT
        self._budget = float("inf") if values else _BUDGET
        self._constants: list[weakref.ref[torch.Tensor]] = []  # real tensors that were made in the trace
        self._generators: dict[torch.device, torch.Generator] = {}
        self._stack: list[str] = [""]  # paths of the modules whose forward is running
        self._ops: list[Op] = []
        self.lives: list[list[int]] = []  # [bytes, born, dies] of each memory, see `Memory`
        self._loaded = len(sys.modules)
        self._tags = remembered()
        self._entries = self._tags.entries
        self._learner = Learner(self._tags, self._really)
        self._weights: dict[int, Weight | Shadow] = {}  # by id of the real tensor
        self._packed: dict[int, tuple[int, list[torch.Tensor]]] = {}  # see `_unpack`; by id of the packed object
        self._keep: list[Any] = []  # objects that these ids belong to, so that no other object gets them
        self._memories: dict[int, Memory] = {}  # of weights, by identity of the storage
        self._numbers = 0  # of values so far
        self._params = 0  # elements of all parameters
        self._inputs: list[Shadow] = []

    # -- set-up -----------------------------------------------------------------------------------

    def add_weights(self, places: Mapping[str, nn.Module]) -> None:
        """Register copies of modules (by path), their parameters and their buffers.

        Parameters and buffers on meta are replaced by shadows on the device of the trace, as all are where the recorder
        is told so.
        """
        for path, module in places.items():
            if isinstance(module, torch.jit.ScriptModule):
                self._add_script(module)
                continue
            # torch calls this attribute, where it is set, in place of the hooks and the forward.
            module.__dict__["_compiled_call_impl"] = self._following(path, module._call_impl)
            holders: tuple[tuple[dict[str, Any], bool], ...] = ((module._parameters, True), (module._buffers, False))
            for holder, is_parameter in holders:
                for name, tensor in holder.items():
                    if tensor is None:
                        continue
                    if is_parameter and id(tensor) not in self._weights:
                        self._params += tensor.numel()
                    if is_wrapper(type(tensor)):
                        for held in held_by(tensor):
                            self._weight(held, is_parameter=is_parameter)
                        continue
                    found = self._weight(tensor, is_parameter=is_parameter)
                    if self._shadow_weights and isinstance(found, Weight):
                        form = self._tags.forms[found.tag]
                        found = make_shadow(form, self._device, found.memory, found.number, found.tag, found.known)
                        self._weights[id(tensor)] = found
                    if isinstance(found, Shadow):
                        found._is_param = is_parameter
                        holder[name] = found

    def _add_script(self, module: Any) -> None:
        """Register a scripted module's parameters and buffers, those of its submodules included."""
        for tensor in module.parameters():
            if id(tensor) not in self._weights:
                self._params += tensor.numel()
                self._weight(tensor, is_parameter=True)
        for tensor in module.buffers():
            self._weight(tensor)

    def _following(self, path: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """What runs a module: `call`, during which ops belong to `path`."""
        enter, leave = self._stack.append, self._stack.pop

        def follow(*args: Any, **kwargs: Any) -> Any:
            enter(path)
            try:
                return call(*args, **kwargs)
            finally:
                leave()

        return follow

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which the operator calls of this thread are recorded."""
        guards: Any = torch._guards
        before = guards.TracingContext.try_get()
        with torch.inference_mode(), counting_collections():
            guards._TLS.tracing_context = _AS_WRITTEN
            _push_mode(self)  # past `__enter__`, which sets flags of the whole process
            try:
                yield
            finally:
                _pop_mode()
                guards._TLS.tracing_context = before

    def shadow_input(self, tensor: torch.Tensor) -> torch.Tensor:
        """What the forward gets in place of an input; values of small integer tensors stay known."""
        if is_wrapper(type(tensor)):
            return remade(tensor, self.shadow_input)  # type: ignore[no-any-return]
        made = self._input(tensor)
        self._inputs.append(made)
        return made

    def release(self) -> list[torch.Tensor]:
        """End the trace for the real tensors that were made in it; returns those that something still holds."""
        left = [tensor for reference in self._constants if (tensor := reference()) is not None]
        for tensor in left:
            for name in [name for name in tensor.__dict__ if name in ("_hwcost", "tolist", "numpy", "__array__")]:
                del tensor.__dict__[name]
        self._constants.clear()
        self._inputs.clear()
        self._weights.clear()
        self._keep.clear()
        self._at = None
        return left

    def _input(self, tensor: torch.Tensor) -> Shadow:
        """The shadow of an input tensor."""
        form = form_of(tensor)
        readable = not tensor.is_meta and (self._values or not tensor.is_floating_point())
        with torch._C._DisableTorchDispatch(), _normal(False):
            known = tensor.detach().to(self._device, copy=True) if readable and tensor.numel() <= self._limit else None
        memory = Memory(span(form) * form.dtype.itemsize, -1, self.lives, self._ops)
        return make_shadow(form, self._device, memory, self._number(), self._tags.tag(form, weight=False), known)

    def _number(self) -> int:
        """A new value number."""
        self._numbers += 1
        return self._numbers - 1

    def _held(self, tensor: torch.Tensor) -> Weight | Shadow:
        """What represents a tensor in the trace, be it a shadow, a weight, or a real tensor that was made in it."""
        if isinstance(tensor, Shadow):
            return tensor
        return self._weights.get(id(tensor)) or self._constant(tensor) or self._weight(tensor)

    def _constant(self, tensor: torch.Tensor) -> Weight | None:
        """What represents a real tensor that this trace made; None for another tensor."""
        mark = getattr(tensor, "_hwcost", None)
        if mark is None or mark.owner is not self or mark.of != id(tensor):
            return None
        return Weight(tensor, mark.memory, mark.number, mark.tag, tensor, mark)

    def _weight(self, tensor: torch.Tensor, *, is_parameter: bool = False) -> Weight | Shadow:
        """What represents a real tensor in the trace; the same object each time."""
        found = self._weights.get(id(tensor))
        if found is None:
            identity, size = memory_of(tensor)
            memory = self._memories.get(identity)
            if memory is None:
                memory = self._memories[identity] = Memory(size, -1, self.lives, self._ops, weight=True)
                memory.normal = not tensor.is_inference()
            form = form_of(tensor)
            tag, number = self._tags.tag(form, weight=True), self._number()
            if tensor.is_meta:
                found = make_shadow(form, self._device, memory, number, tag)
            else:
                known = None
                if tensor.numel() <= (self._limit if is_parameter else self._constant_limit):
                    known = tensor
                    if self._values and is_parameter and not self._own_weights:
                        self._borrowed.add(memory)
                    elif self._values:  # some ops write into buffers without saying so, as batch norm in training
                        with _normal(False):
                            known = tensor.detach().clone()
                found = Weight(tensor, memory, number, tag, known)
            self._weights[id(tensor)] = found
            self._keep.append(tensor)
        return found

    def _unpack(self, packed: Any) -> tuple[int, list[torch.Tensor]]:
        """(number, tensors) of the object that holds a quantised layer's weight and bias.

        The number identifies the object in signatures: no other object of this process gets it.
        """
        found = self._packed.get(id(packed))
        if found is None:
            tensors = [t for _, t in packed_tensors(packed)]
            found = self._packed[id(packed)] = next(_packed_numbers), tensors
            self._keep.append(packed)
            self._params += sum(t.numel() for t in tensors)
        return found

    # -- every call ---------------------------------------------------------------------------------

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, so that torch does not wrap `__torch_dispatch__` to keep torch.compile out of it.

        The wrapper takes microseconds a call. At the first call it imports the compiler, which takes seconds and
        keeps the arguments alive.
        """
        return False

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if len(sys.modules) != self._loaded:
            self._free_what_imports_hold()
        for kind in types:
            if kind is not Shadow and is_wrapper(kind):
                return self.run(kind.__torch_dispatch__, func, types, args, kwargs or {})
        if type(func) is not torch._ops.OpOverload and isinstance(func, torch._ops.HigherOrderOperator):
            return higher_order.follow(self, func, args, kwargs or {})
        tensors: list[Any] = []
        signature: list[Any] = [func]
        self._at = func, tensors
        self._scan(args, signature, tensors)
        if kwargs:
            for name, value in kwargs.items():
                signature.append(name)
                self._scan((value,), signature, tensors)
        reads = tuple([t.number for t in tensors])
        if len(set(reads)) < len(reads):
            signature.append(tuple([reads.index(r) for r in reads]))
        if len(tensors) > 1:
            memories = [id(t.memory) for t in tensors]
            if len(set(memories)) < len(memories):  # views of one storage, which is read once
                signature.append(tuple([memories.index(m) for m in memories]))
        key = tuple(signature)
        known = True
        for t in tensors:
            if t.known is None or not t.memory.valid:
                known = False
                break
        entry = self._entries.get(key)
        if entry is None or (entry.by_values and any_known(tensors)):
            entry = self._learner.learn(func, args, kwargs or {}, tensors, known=known)
            if entry.lasting:
                self._entries[key] = entry
        if entry.results.note:
            self._note(f"{entry.overload.name} in ", f": {entry.results.note}")
        if entry.overload.annotates:
            return func(*args, **(kwargs or {}))
        if entry.overload.kind == _SETS_DATA:
            return self._take_data(args[0], args[1])
        if entry.overload.reads_values:
            return self._read(entry, func, args, kwargs, reads, known=known)
        if entry.overload.mutated:
            return self._write(entry, func, args, kwargs, tensors, reads, known=known)
        return self._make(entry, func, args, kwargs, tensors, reads, known=known)

    def _take_data(self, target: torch.Tensor, value: torch.Tensor) -> bool:
        """Let `target` stand for `value`: torch calls this before ``target.data = value``, and goes on if it is true.

        Raises:
            SetsData: the target is a tensor of the user.
        """
        held = self._held(value)
        if not isinstance(target, Shadow):
            if target is not value and not (isinstance(held, Weight) and self._constant(target)):
                raise SetsData(f"{self._stack[-1] or 'the root module'} assigns to `data` of a tensor")
            return True
        memory = held.memory
        if target.memory.weight and not memory.weight:  # in place of the weight's own, which is freed in a real run
            memory = Memory(memory.bytes, -1, self.lives, self._ops, weight=True)
            memory.valid, memory.normal = held.memory.valid, target.memory.normal
        target.memory, target.number, target.known = memory, held.number, held.known
        target.tag = self._tags.tag(self._tags.forms[held.tag], weight=memory.weight)
        return True

    # -- what higher-order operators do, see `higher_order.Tape` ---------------------------------------

    def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `call` returns; the ops that it makes are recorded."""
        _push_mode(self)
        try:
            return call(*args, **kwargs)
        finally:
            _pop_mode()

    def position(self) -> int:
        """Number of ops so far."""
        return len(self._ops)

    def take(self, start: int) -> Taken:
        """Take the ops from number `start` on off the graph, with the lives of what they made."""
        self._at = None  # its references would keep the last op's arguments alive
        taken = self._ops[start:], [life for life in self.lives if life[1] >= start]
        del self._ops[start:]
        self.lives[:] = [life for life in self.lives if life[1] < start]
        return taken

    def put(self, taken: Taken) -> None:
        """Append ops that were taken off."""
        self._ops += taken[0]
        self.lives += taken[1]

    def value(self, tensor: Any) -> torch.Tensor | None:
        """The values of a tensor, where they are known."""
        held = self._held(tensor)
        return held.known if held.memory.valid else None

    def note(self, text: str) -> None:
        """Add a note on the running module to the graph."""
        self._note("", f": {text}")

    def _note(self, before: str, after: str) -> None:
        """Add a note with the running module's place between two texts; one that is equal but for the place is told
        once, with the number of places."""
        self._notes.setdefault((before, after), {})[self._stack[-1] or "the root module"] = None

    def own(self, kind: str, tensors: Sequence[tuple[str, Any]], made: Sequence[Form], params: dict[str, Param]) -> Any:
        """Record an op that torch has no operator for, and return the tensors that it makes."""
        held = [self._held(tensor) for _, tensor in tensors]
        entry = self._learner.own(kind, [name for name, _ in tensors], held, made, tuple(sorted(params.items())))
        outs = self._results(entry, held)
        self._append(entry, tuple([t.number for t in held]), outs)
        return outs

    def _free_what_imports_hold(self) -> None:
        """Collect garbage where something was imported since the last op.

        Exceptions inside an import refer to the frames of its callers, the forward's among them, and so to its
        activations, which would count as held until the next collection.
        """
        if len(sys.modules) != self._loaded:
            with counting_collections(as_let_go=True):
                gc.collect()
            self._loaded = len(sys.modules)

    def _scan(self, args: Any, signature: list[Any], tensors: list[Any]) -> None:
        """Append `args` to a signature, and their tensors to `tensors`.

        A tensor is represented by its tag, and a number by its type and value, since 1, 1.0 and True are equal.
        """
        for arg in args:
            kind = type(arg)
            if kind is Shadow:
                signature.append(arg.tag)
                tensors.append(arg)
            elif kind is list or kind is tuple:
                signature.append(len(arg))
                self._scan(arg, signature, tensors)
            elif isinstance(arg, torch.Tensor):
                held = self._weights.get(id(arg)) or self._constant(arg) or self._weight(arg)
                signature.append(held.tag)
                tensors.append(held)
            elif kind in _NUMBERS:
                signature.append(kind)
                signature.append(arg)
            elif kind is torch.ScriptObject:
                number, inside = self._unpack(arg)
                signature.append(number)
                self._scan(inside, signature, tensors)
            elif kind is torch.Generator:  # which one makes no difference, and the cache must not keep it
                signature.append(kind)
            else:
                signature.append(arg)

    def _make(
        self,
        entry: Entry,
        func: Any,
        args: Any,
        kwargs: Any,
        tensors: list[Any],
        reads: tuple[int, ...],
        *,
        known: bool,
    ) -> Any:
        """Record an op that returns new tensors or views, and return its results.

        They are real where all of its arguments are and their size allows it, else shadows.
        """
        values = self._values_of(entry, func, args, kwargs) if known else ()
        real = bool(values) and all(type(t) is Weight for t in tensors)
        outs = self._results(entry, tensors, values, real=real)
        self._append(entry, reads, outs)
        if real:
            outs = [out.tensor if type(out) is Weight else out for out in outs]
        container = entry.results.container
        return outs[0] if container is None else container(outs)

    def _values_of(self, entry: Entry, func: Any, args: Any, kwargs: Any) -> Any:
        """The results of an op whose arguments are known; nothing where they are too large, or drawn at random."""
        work = max(entry.size, entry.cost.flops)
        if work > min(self._constant_limit, self._budget) or (entry.overload.random and not self._values):
            return ()
        self._budget -= work
        try:
            return _leaves(self._really(func, args, kwargs))
        except NotImplementedError:
            return ()
        except RuntimeError as error:  # such as half precision on a CPU
            if "not implemented for" not in str(error):
                raise
            return ()

    def _results(self, entry: Entry, tensors: list[Any], values: Any = (), *, real: bool = False) -> list[Any]:
        """What represents the tensors that an op makes or views, and the other values that it returns.

        Tensors are shadows that know their `values`, or with `real` these values themselves.
        """
        outs: list[Any] = []
        for i, out in enumerate(entry.results.outs):
            if type(out) is not Out:
                outs.append(values[i] if i < len(values) else out)
                continue
            value = values[i] if i < len(values) and isinstance(values[i], torch.Tensor) else None
            if out.shares < 0:
                memory = Memory(out.bytes, len(self._ops), self.lives, self._ops)
            else:
                memory = tensors[out.shares].memory
            if real and value is not None:
                outs.append(self._marked(value, memory, out.tag, tensors))
            elif memory.normal:  # torch wants a view of a tensor made outside inference mode to be made outside it too
                with torch.inference_mode(False):
                    outs.append(make_shadow(out.form, self._device, memory, self._number(), out.tag, value))
            else:
                outs.append(make_shadow(out.form, self._device, memory, self._number(), out.tag, value))
        return outs

    def _marked(self, value: torch.Tensor, memory: Memory, tag: int, tensors: list[Any]) -> Weight:
        """A real tensor as a result of an op, with the mark by which `_constant` knows it again."""
        if any(value is t.tensor for t in tensors):  # the op returned its argument
            with _normal(False):
                value = value.detach()
        mark = Mark(self, id(value), memory, self._number(), tag)
        value._hwcost = mark  # type: ignore[attr-defined]
        self._constants.append(weakref.ref(value))
        return Weight(value, memory, mark.number, tag, value, mark)

    def _append(self, entry: Entry, reads: tuple[int, ...], outs: list[Any]) -> None:
        """Append an op to the graph; `outs` are the tensors that it makes or writes into."""
        writes = tuple([o.number for o in outs if isinstance(o, (Shadow, Weight))])
        if entry.inputs is not None:
            reads = tuple([reads[i] for i in entry.inputs])
        if entry.workspace:
            self.lives.append([entry.workspace, len(self._ops), len(self._ops)])
        self._ops.append(
            Op(entry.overload.name, entry.spec, self._stack[-1], reads, writes, entry.cost, entry.state, entry.reason)
        )

    def _read(self, entry: Entry, func: Any, args: Any, kwargs: Any, reads: tuple[int, ...], *, known: bool) -> Any:
        """Record an op that returns a number, and return it.

        Raises:
            NeedsValue: the number depends on values that are not known.
        """
        where = self._stack[-1] or "the root module"
        if not known:
            raise NeedsValue(f"{entry.overload.name} in {where} reads a value that shapes alone do not determine")
        if not self._values:
            self._note("", " reads values, which follow from constants, parameters or integer inputs")
        self._append(entry, reads, [])
        return self._really(func, args, kwargs)

    def _write(
        self,
        entry: Entry,
        func: Any,
        args: Any,
        kwargs: Any,
        tensors: list[Any],
        reads: tuple[int, ...],
        *,
        known: bool,
    ) -> Any:
        """Record an op that writes into some of its arguments, and return those and what it makes besides."""
        mutated = [tensors[i] for i in entry.mutated]
        # The schema of detach_ says that it writes into its argument, but it writes no data, and shadows are detached.
        detaches = entry.overload.kind == "detach"
        if entry.overload.changes_form and not detaches:
            known = self._reshape(func, args, kwargs, mutated[0]) and known
        # Without `values`, a known value of a weight is the module's own tensor, which must not be written.
        owned = self._values or not (entry.overload.random or any(t.memory.weight for t in mutated))
        if known and not detaches and not self._borrowed.isdisjoint(t.memory for t in mutated):
            raise WritesWeights(f"{entry.overload.name} writes into a parameter")
        made = self._results(entry, tensors)
        if known and owned:
            real = self._really(func, args, kwargs)
            _learn_values(made, [r for r, name in zip(_listed(real), entry.overload.returns, strict=False) if not name])
        elif not (detaches or (entry.overload.changes_form and mutated[0].memory.valid)):
            for t in mutated:
                self._forget_value(t.memory)
        for i, form in entry.results.reshaped:
            self._resize(tensors[i], form)
        self._append(entry, reads, [*made, *mutated])
        held = [t.tensor if isinstance(t, Weight) else t for t in mutated]
        given = dict(zip(entry.written, held, strict=True))
        new = iter(made if entry.results.container is None else entry.results.container(made))
        returned = tuple([given[name] if name else next(new) for name in entry.overload.returns])
        return returned[0] if len(returned) == 1 else returned or None

    def _reshape(self, func: Any, args: Any, kwargs: Any, target: Shadow | Weight) -> bool:
        """Apply an in-place view such as squeeze_ to the target itself; returns whether its value is still to follow.

        Raises:
            FormError: the target is a weight, and would get another shape.
        """
        held: torch.Tensor = target.tensor if isinstance(target, Weight) else target
        weight = isinstance(target, Weight) and target.mark is None
        with torch._C._DisableTorchDispatch(), _normal(held.is_inference()):
            if weight:
                held = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
            func(held, *args[1:], **(kwargs or {}))
        tag = self._tags.tag(form_of(held), weight=target.memory.weight)
        if weight and tag != target.tag:
            raise FormError("a parameter, buffer or constant is reshaped in place, which would change the module")
        target.tag = tag
        if isinstance(target, Weight) and target.mark is not None:
            target.mark.tag = tag
            return False
        return True

    def _forget_value(self, memory: Memory) -> None:
        """Something unknown was written into a memory; real tensors in it must not be read any more."""
        if memory.valid:
            memory.valid = False
            for reference in self._constants:
                tensor = reference()
                mark = getattr(tensor, "_hwcost", None)
                if tensor is not None and mark is not None and mark.memory is memory:
                    refuse_reads(tensor)

    def _resize(self, target: Shadow | Weight, form: Form) -> None:
        """Give a shadow the form that an op gives the tensor that it writes its result into.

        Raises:
            FormError: the target is a weight.
        """
        if isinstance(target, Weight) and target.mark is None:
            raise FormError("a parameter, buffer or constant is resized, which would change the module")
        old, target.tag = target.tag, self._tags.tag(form, weight=False)
        if isinstance(target, Weight) and target.mark is not None:
            target.mark.tag = target.tag
            if tuple(target.tensor.shape) != form.shape:  # it was not computed
                with _normal(False):
                    target.tensor.resize_(form.shape)
        elif isinstance(target, Shadow):
            with torch._C._DisableTorchDispatch():
                target.data = make_shadow(form, self._device, target.memory, target.number, old)
        target.memory.life[0] = target.memory.bytes = max(target.memory.bytes, span(form) * form.dtype.itemsize)

    # -- known values ---------------------------------------------------------------------------------

    def _really(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The real result of an op on the known values of its arguments."""
        keywords = {name: self._known((v,))[0] for name, v in (kwargs or {}).items() if name != "pin_memory"}
        if overload_of(func).draws:
            with own_draws(self._generators):
                return func(*self._known(args), **keywords)
        with _normal(False):
            return func(*self._known(args), **keywords)

    def _known(self, args: Any) -> list[Any]:
        """Arguments with each tensor replaced by its known value, and each device by that of the trace."""
        out: list[Any] = []
        for arg in args:
            if isinstance(arg, torch.Tensor):
                known = self._held(arg).known
                out.append(known.detach() if known is not None and known.requires_grad else known)
            elif isinstance(arg, (list, tuple)):
                out.append(type(arg)(self._known(arg)))
            else:
                out.append(self._device if isinstance(arg, torch.device) else arg)
        return out

    # -- the result -------------------------------------------------------------------------------------

    @property
    def last_op(self) -> str:
        """Name of the op that was called last, with the shapes and dtypes of its tensors, for error messages."""
        if self._at is None:
            return "the start"
        func, tensors = self._at
        forms = [self._tags.forms[t.tag] for t in tensors]
        return f"{func}({', '.join(f'{list(f.shape)} {DTYPES[f.dtype]}' for f in forms)})"

    def graph(self, output: Any) -> Graph:
        """The graph of the forward that returned `output`."""
        self._at = None  # its references would keep the last op's arguments alive
        end = max(len(self._ops) - 1, 0)
        outputs = [t for t in pytree.tree_leaves(output) if isinstance(t, torch.Tensor)]
        held = [t if isinstance(t, Shadow) else self._weights.get(id(t)) or self._constant(t) for t in outputs]
        self._free_what_imports_hold()
        # What is alive now stays: outputs, and what the forward left in attributes or caches.
        lives = [Life(size, born, min(dies, end)) for size, born, dies in self.lives]
        return Graph(
            ops=tuple(self._ops),
            inputs=tuple(self._tags.spec("input", t.tag) for t in self._inputs),
            input_values=tuple(t.number for t in self._inputs),
            output_values=tuple(-1 if t is None else t.number for t in held),
            params=self._params,
            weight_bytes=sum(m.bytes for m in self._memories.values()),
            lives=tuple(lives),
            notes=tuple(f"{before}{_places(places)}{after}" for (before, after), places in self._notes.items()),
        )


def _places(places: Mapping[str, None]) -> str:
    """The first of some places, and how many more there are."""
    more = len(places) - 1
    return next(iter(places)) + (f" and {more} more place{'s' if more > 1 else ''}" if more else "")


def _listed(result: Any) -> Any:
    """All that an op returned; one tensor as a list of one."""
    return result if isinstance(result, (list, tuple)) else (result,)


def _leaves(result: Any) -> Any:
    """The same, with the content of lists inside."""
    leaves = _listed(result)
    return pytree.tree_leaves(result) if any(isinstance(leaf, (list, tuple)) for leaf in leaves) else leaves


def _learn_values(outs: list[Any], real: Any) -> None:
    """Keep the values of results that were computed, those of tensors beside their shadows."""
    for i, value in enumerate(_leaves(real)[: len(outs)]):
        if not isinstance(value, torch.Tensor):
            outs[i] = value
        elif isinstance(outs[i], Shadow):
            outs[i].known = value
