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

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from hwcost.graph import Graph, Life, Op
from hwcost.tracing.form import FormError, span
from hwcost.tracing.schema import packed_tensors
from hwcost.tracing.shadow import Memory, NeedsValue, Shadow, Weight, form_of, make_shadow, memory_of
from hwcost.tracing.signatures import DTYPES, Entry, Learner, any_known, remembered

KNOWN_LIMIT = 1 << 16  # elements; larger tensors are not computed
_NUMBERS = (int, float, bool, complex)
_CPU = torch.device("cpu")
_packed_numbers = count()


class Recorder(TorchDispatchMode):
    """Records one forward.

    Args:
        device: where all tensors of the forward claim to be.
        values: compute every tensor from the example inputs, for a forward that reads values of its activations.
    """

    def __init__(self, *, device: torch.device, values: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._at: tuple[Any, list[Any]] | None = None  # the op that was called last, and its tensor arguments
        self._notes: dict[str, None] = {}  # a set that keeps the order
        self._device, self._values = device, values
        self._limit = float("inf") if values else KNOWN_LIMIT
        self._paths: dict[int, str] = {}  # of modules, by id
        self._stack: list[str] = [""]  # paths of the modules whose forward is running
        self._ops: list[Op] = []
        self._dead: list[Life] = []
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
        """Register modules (by path), their parameters and their buffers.

        Parameters and buffers on meta are replaced by shadows on the device of the trace. The caller restores them.
        """
        for path, module in places.items():
            self._paths[id(module)] = path
            holders: tuple[tuple[dict[str, Any], bool], ...] = ((module._parameters, True), (module._buffers, False))
            for holder, is_parameter in holders:
                for name, tensor in holder.items():
                    if tensor is None:
                        continue
                    if is_parameter and id(tensor) not in self._weights:
                        self._params += tensor.numel()
                    found = self._weight(tensor)
                    if isinstance(found, Shadow):
                        found._is_param = is_parameter
                        holder[name] = found

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which operator calls are recorded, with the path of the module that makes each."""
        hooks = nn.modules.module
        names, where = self._paths, self._stack

        def enter(module: nn.Module, _: Any) -> None:
            where.append(names.get(id(module), where[-1]))

        def leave(*_: Any) -> None:
            where.pop()

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if names:
                stack.callback(hooks.register_module_forward_pre_hook(enter).remove)
                stack.callback(hooks.register_module_forward_hook(leave, always_call=True).remove)
            stack.enter_context(self)
            yield

    def shadow_inputs(self, tree: Any) -> Any:
        """The arguments `tree` with a shadow in place of each tensor; values of small integer tensors stay known."""
        leaves, layout = pytree.tree_flatten(tree)
        made: dict[int, Shadow] = {}
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                if id(leaf) not in made:
                    made[id(leaf)] = self._input(leaf)
                leaves[i] = made[id(leaf)]
        self._inputs = list(made.values())
        return pytree.tree_unflatten(leaves, layout)

    def _input(self, tensor: torch.Tensor) -> Shadow:
        """The shadow of an input tensor."""
        form = form_of(tensor)
        readable = not tensor.is_meta and (self._values or not tensor.is_floating_point())
        with torch._C._DisableTorchDispatch():
            known = tensor.detach().clone() if readable and tensor.numel() <= self._limit else None
        memory = Memory(span(form) * form.dtype.itemsize, -1, self._dead, self._ops)
        return make_shadow(form, self._device, memory, self._number(), self._tags.tag(form, weight=False), known)

    def _number(self) -> int:
        """A new value number."""
        self._numbers += 1
        return self._numbers - 1

    def _weight(self, tensor: torch.Tensor) -> Weight | Shadow:
        """What represents a real tensor in the trace; the same object each time."""
        found = self._weights.get(id(tensor))
        if found is None:
            identity, size = memory_of(tensor)
            memory = self._memories.get(identity)
            if memory is None:
                memory = self._memories[identity] = Memory(size, -1, self._dead, self._ops, weight=True)
                memory.normal = not tensor.is_inference()
            form = form_of(tensor)
            tag, number = self._tags.tag(form, weight=True), self._number()
            if tensor.is_meta:
                found = make_shadow(form, self._device, memory, number, tag)
            else:
                known = tensor.detach() if tensor.numel() <= self._limit else None
                own = known.clone() if known is not None and self._values else known
                found = Weight(tensor, memory, number, tag, own)
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

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
            self._notes[f"{entry.overload.name} in {self._stack[-1] or 'the root module'}: {entry.results.note}"] = None
        if entry.overload.annotates:
            return func(*args, **(kwargs or {}))
        if entry.overload.reads_values:
            return self._read(entry, func, args, kwargs, reads, known=known)
        if entry.overload.mutated:
            return self._write(entry, func, args, kwargs, tensors, reads, known=known)
        return self._make(entry, func, args, kwargs, tensors, reads, known=known)

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
                held = self._weights.get(id(arg)) or self._weight(arg)
                signature.append(held.tag)
                tensors.append(held)
            elif kind in _NUMBERS:
                signature.append(kind)
                signature.append(arg)
            elif kind is torch.ScriptObject:
                number, inside = self._unpack(arg)
                signature.append(number)
                self._scan(inside, signature, tensors)
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
        """Record an op that returns new tensors or views, and return shadows as its results."""
        outs: list[Any] = []
        for out in entry.results.outs:
            if out is None:
                outs.append(None)
                continue
            if out.shares < 0:
                memory = Memory(out.bytes, len(self._ops), self._dead, self._ops)
            else:
                memory = tensors[out.shares].memory
            if memory.normal:  # torch wants a view of a tensor made outside inference mode to be made outside it too
                with torch.inference_mode(False):
                    outs.append(make_shadow(out.form, self._device, memory, self._number(), out.tag))
            else:
                outs.append(make_shadow(out.form, self._device, memory, self._number(), out.tag))
        self._append(entry, reads, outs)
        if known and entry.size <= self._limit and (self._values or not entry.overload.random):
            real = self._really(func, args, kwargs)
            for shadow, value in zip(outs, real if isinstance(real, (list, tuple)) else (real,), strict=False):
                if shadow is not None and isinstance(value, torch.Tensor):
                    shadow.known = value
        container = entry.results.container
        return outs[0] if container is None else container(outs)

    def _append(self, entry: Entry, reads: tuple[int, ...], outs: list[Any]) -> None:
        """Append an op to the graph; `outs` are the tensors that it makes or writes into."""
        writes = tuple([o.number for o in outs if o is not None])
        if entry.workspace:
            self._dead.append(Life(entry.workspace, len(self._ops), len(self._ops)))
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
            self._notes[f"{where} reads values, which follow from constants, parameters or integer inputs"] = None
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
        """Record an op that writes into some of its arguments, and return those."""
        mutated = [tensors[i] for i in entry.mutated]
        # The schema of detach_ says that it writes into its argument, but it writes no data, and shadows are detached.
        detaches = entry.overload.kind == "detach"
        if entry.overload.changes_form and not detaches:
            self._reshape(func, args, kwargs, mutated[0])
        # Without `values`, a known value of a weight is the module's own tensor, which must not be written.
        owned = self._values or not (entry.overload.random or any(t.memory.weight for t in mutated))
        if known and owned:
            self._really(func, args, kwargs)
        elif not detaches:
            for t in mutated:
                t.memory.valid = False
        self._append(entry, reads, mutated)
        given = [t.tensor if isinstance(t, Weight) else t for t in mutated]
        if entry.overload.returns == 0:
            return None
        return given[0] if entry.overload.returns == 1 else tuple(given[: entry.overload.returns])

    def _reshape(self, func: Any, args: Any, kwargs: Any, target: Shadow | Weight) -> None:
        """Apply an in-place view such as squeeze_ to a shadow.

        Raises:
            FormError: the target is a weight, and would get another shape.
        """
        held: torch.Tensor = target.tensor if isinstance(target, Weight) else target
        with torch._C._DisableTorchDispatch():
            if isinstance(target, Weight):
                held = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
            func(held, *args[1:], **(kwargs or {}))
        tag = self._tags.tag(form_of(held), weight=target.memory.weight)
        if isinstance(target, Weight) and tag != target.tag:
            raise FormError("a parameter, buffer or constant is reshaped in place, which would change the module")
        target.tag = tag

    # -- known values ---------------------------------------------------------------------------------

    def _really(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The real result of an op on the known values of its arguments."""
        keywords = {name: self._known((value,))[0] for name, value in (kwargs or {}).items()}
        return func(*self._known(args), **keywords)

    def _known(self, args: Any) -> list[Any]:
        """Arguments with each tensor replaced by its known value, and each device by the CPU, where those are."""
        out: list[Any] = []
        for arg in args:
            if isinstance(arg, torch.Tensor):
                out.append((arg if isinstance(arg, Shadow) else self._weight(arg)).known)
            elif isinstance(arg, (list, tuple)):
                out.append(type(arg)(self._known(arg)))
            else:
                out.append(_CPU if isinstance(arg, torch.device) else arg)
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
        held = [t if isinstance(t, Shadow) else self._weights.get(id(t)) for t in outputs]
        alive = {id(t.memory): t.memory for t in (*held, *self._inputs) if t is not None and not t.memory.weight}
        lives = [*self._dead, *(Life(m.bytes, m.born, end) for m in alive.values())]
        return Graph(
            ops=tuple(self._ops),
            inputs=tuple(self._tags.spec("input", t.tag) for t in self._inputs),
            input_values=tuple(t.number for t in self._inputs),
            output_values=tuple(-1 if t is None else t.number for t in held),
            params=self._params,
            weight_bytes=sum(m.bytes for m in self._memories.values()),
            lives=tuple(lives),
            notes=tuple(self._notes),
        )
