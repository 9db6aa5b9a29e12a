"""From an nn.Module and example inputs to a Graph. Knows no op.

The forward runs once on meta tensors (shapes without data) under a dispatch mode that writes down
every operator call. Nothing is computed: parameters are replaced by meta stand-ins as they pass,
and repeated calls of one signature reuse the shapes found the first time. Two things follow:

1. Under inference mode composite ops arrive whole ("conv2d", "linear",
   "scaled_dot_product_attention"), as a runtime would call them.
2. The life of each tensor is the life its Python object has in the forward, so peak memory follows
   the user's own code.

Small constants that the forward makes itself (a `torch.linspace` of drop rates) stay real, because
models read them; anything that touches an input or a parameter is meta.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from hwcost.graph import Graph, Life, Op, OpSpec, Param, TensorSpec
from hwcost.rules import cost_of

_REAL_CONSTANT_LIMIT = 4096  # elements; larger constants become meta
_DTYPES = {dtype: str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
_VIEW = "a view: no data moves"


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

    Args:
        module: an nn.Module on any device, meta included, or a function; it is unchanged after.
        inputs: positional arguments; tensors, on meta or not, give shape and dtype (batch included).
        kwargs: keyword arguments.
        training: count in training mode (batch statistics, dropout); False counts an inference.
        strict: raise for an op without a rule instead of reporting it as uncounted.

    Raises:
        TraceError: the forward raised, or needs values that meta tensors do not have.
        UnknownOp: under `strict`.
    """
    args = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    recorder = _Recorder(module)
    with _untouched(module, training=training), recorder.watching():
        args, keywords = recorder.enter((args, dict(kwargs or {})))
        try:
            output = module(*args, **keywords)
        except Exception as error:
            raise TraceError(recorder.explain(error)) from error
    graph = recorder.graph(output)
    if strict and graph.uncounted:
        raise UnknownOp(_unknown(graph.uncounted))
    return graph


def _unknown(uncounted: tuple[tuple[str, int, str], ...]) -> str:
    name, calls, module = uncounted[0]
    more = f", and for {len(uncounted) - 1} other ops" if len(uncounted) > 1 else ""
    return (
        f"no cost rule for {name} ({calls} call{'s' if calls > 1 else ''}, first in {module or 'the root module'}){more}. "
        f"Add one with @hwcost.rule({name.split('.')[1]!r}), or trace without strict=True to go on with its bytes alone."
    )


@contextmanager
def _untouched(module: Any, *, training: bool) -> Iterator[None]:
    """Put everything back that a forward may change: attributes, mode, random state."""
    modules = list(module.modules()) if isinstance(module, nn.Module) else []
    saved = [
        (m, dict(m.__dict__), {k: _copy(v) for k, v in m.__dict__.items() if isinstance(v, (dict, list, set))})
        for m in modules
    ]
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    try:
        for m in modules:
            m.__dict__["training"] = training
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        for m, attributes, containers in saved:
            m.__dict__.clear()
            m.__dict__.update(attributes)
            for name, content in containers.items():
                _restore(attributes[name], content)


def _copy(container: Any) -> Any:
    return container.copy()


def _restore(container: Any, content: Any) -> None:
    if container == content if not isinstance(container, (dict, list)) else _same(container, content):
        return
    container.clear()
    (container.extend if isinstance(container, list) else container.update)(content)


def _same(now: Any, then: Any) -> bool:
    """Whether two lists or dicts hold the very same objects (tensors must not be compared by ==)."""
    if len(now) != len(then):
        return False
    if isinstance(now, dict):
        return all(k in now and now[k] is v for k, v in then.items())
    return all(a is b for a, b in zip(now, then, strict=True))


class _Recorder(TorchDispatchMode):
    """The dispatch mode that writes the graph."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self._root = module
        is_module = isinstance(module, nn.Module)
        self._paths = {id(m): name for name, m in module.named_modules()} if is_module else {}
        self._stack: list[str] = [""]
        self._ops: list[Op] = []
        self._memo: dict[Any, tuple[OpSpec, tuple[Any, ...] | None]] = {}
        self._values: dict[int, int] = {}  # id(tensor) -> value number
        self._guards: dict[int, weakref.ref[torch.Tensor]] = {}
        self._next_value = 0
        self._weights: dict[int, torch.Tensor] = {}  # id(real tensor) -> its stand-in
        self._weight_storages: set[int] = set()
        self._keep: list[torch.Tensor] = []
        self._weight_bytes = 0
        self._lives: dict[int, list[int]] = {}  # storage -> [bytes, born, dies, holders]
        self._done: list[Life] = []
        self._inputs: list[TensorSpec] = []
        self._input_values: list[int] = []
        self._last = ""

    # -- set-up -----------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inference mode, this mode, and the module hooks that tell where we are."""
        hooks = nn.modules.module
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if isinstance(self._root, nn.Module):
                for tensor in (*self._root.parameters(), *self._root.buffers()):
                    self._stand_in(tensor)
                entry = hooks.register_module_forward_pre_hook(lambda m, _: self._enter_module(m))
                leave = hooks.register_module_forward_hook(lambda m, *_: self._leave_module(), always_call=True)
                stack.callback(entry.remove)
                stack.callback(leave.remove)
            stack.enter_context(self)
            yield

    def _enter_module(self, module: nn.Module) -> None:
        self._stack.append(self._paths.get(id(module), self._stack[-1]))

    def _leave_module(self) -> None:
        if len(self._stack) > 1:
            self._stack.pop()

    def enter(self, tree: Any) -> Any:
        """The inputs as meta tensors."""
        leaves, layout = pytree.tree_flatten(tree)
        with torch._C._DisableTorchDispatch():
            metas = [_meta(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        for leaf in metas:
            if isinstance(leaf, torch.Tensor):
                self._input_values.append(self._value(leaf))
                self._inputs.append(self._spec(leaf, "input"))
        return pytree.tree_unflatten(metas, layout)

    def _stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        """The meta tensor that stands for a real parameter, buffer or constant."""
        found = self._weights.get(id(tensor))
        if found is None:
            # A view of a normal tensor must be normal too, so stand-ins are made outside inference mode.
            with torch.inference_mode(tensor.is_inference()), torch._C._DisableTorchDispatch():
                found = tensor if tensor.is_meta else _meta(tensor)
            self._weights[id(tensor)] = found
            self._keep += [tensor, found]  # ids stay valid while the trace runs
            storage = _storage(found)
            if storage not in self._weight_storages:
                self._weight_storages.add(storage)
                self._weight_bytes += (
                    found.untyped_storage().nbytes() if tensor.is_meta else tensor.numel() * tensor.element_size()
                )
        return found

    # -- the ops ----------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._last = str(func)
        tensors: list[torch.Tensor] = []
        real = _collect(args, tensors) | _collect(kwargs.values(), tensors)
        if real:
            if self._is_constant(tensors):
                return self._small(func(*args, **kwargs))
            args, kwargs = self._lift(args), {k: self._lift(v) for k, v in kwargs.items()}
            tensors = []
            _collect(args, tensors)
            _collect(kwargs.values(), tensors)
        elif not tensors:
            return self._small(func(*args, **kwargs))
        return self._record(func, args, kwargs, tensors)

    def _is_constant(self, tensors: list[torch.Tensor]) -> bool:
        """Whether a call touches only small real tensors that the forward made itself."""
        return all(not t.is_meta and id(t) not in self._weights and t.numel() <= _REAL_CONSTANT_LIMIT for t in tensors)

    def _small(self, out: Any) -> Any:
        """Results made from no input: kept real while small, meta otherwise."""
        if isinstance(out, torch.Tensor):
            if out.is_meta or out.numel() > _REAL_CONSTANT_LIMIT:
                out = out if out.is_meta else _meta(out)
                self._value(out)
            return out
        return type(out)(self._small(o) for o in out) if isinstance(out, (list, tuple)) else out

    def _lift(self, arg: Any) -> Any:
        if isinstance(arg, torch.Tensor):
            return arg if arg.is_meta and id(arg) not in self._weights else self._stand_in(arg)
        if isinstance(arg, (list, tuple)):
            return type(arg)([self._lift(a) for a in arg]) if not hasattr(arg, "_fields") else arg
        return arg

    def _record(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
        reads = tuple([self._value(t) for t in tensors])
        key = (func, _signature(args), _signature(tuple(kwargs.items())), self._pattern(tensors, reads))
        known = self._memo.get(key) if key is not None else None
        if known is not None and known[1] is not None:
            out: Any = tuple(torch.empty_strided(s, d, dtype=t, device="meta") for s, d, t in known[1])
            out = out[0] if len(out) == 1 else out
        else:
            out = func(*args, **kwargs)
            if func._schema.is_mutable and not isinstance(out, torch.Tensor) and out is None:
                out = args[0]
        outs = [o for o in (out if isinstance(out, (list, tuple)) else (out,)) if isinstance(o, torch.Tensor)]
        if known is None:
            known = self._describe(func, args, kwargs, tensors, outs, reads, fresh_tuple=type(out))
            self._memo[key] = known
        self._append(func, known[0], reads, outs, tensors)
        return out

    def _pattern(self, tensors: list[torch.Tensor], reads: tuple[int, ...]) -> tuple[Any, ...]:
        """Which arguments are weights and which repeat an earlier one."""
        return tuple(
            [(reads.index(r), _storage(t) in self._weight_storages) for t, r in zip(tensors, reads, strict=True)]
        )

    def _describe(
        self, func: Any, args: Any, kwargs: Any, tensors: Any, outs: Any, reads: tuple[int, ...], fresh_tuple: Any
    ) -> tuple[OpSpec, tuple[Any, ...] | None]:
        named, params = _bind(func, args, kwargs)
        inputs = tuple(self._spec(t, name, repeat=reads[i] in reads[:i]) for i, (name, t) in enumerate(named))
        outputs = tuple(self._spec(t, f"out{i}" if i else "out") for i, t in enumerate(outs))
        spec = OpSpec(_kind(func), inputs, outputs, params)
        aliased = {_storage(t) for t in tensors} & {_storage(t) for t in outs}
        plain = bool(outs) and not aliased and not func._schema.is_mutable and fresh_tuple in (torch.Tensor, tuple)
        form = tuple((t.shape, t.stride()) for t in outs)
        if not plain or any(t.dtype != outs[0].dtype for t in outs):
            return spec, None
        return spec, tuple((shape, stride, outs[0].dtype) for shape, stride in form)

    def _append(self, func: Any, spec: OpSpec, reads: tuple[int, ...], outs: Any, tensors: Any) -> None:
        cost, state, reason = cost_of(spec)
        if outs and not func._schema.is_mutable:
            sources = {_storage(t) for t in tensors}
            if all(_storage(o) in sources for o in outs):
                cost, state, reason = type(cost)(), "free", _VIEW
        writes = tuple([self._value(o) for o in outs])
        self._ops.append(Op(str(func), spec, self._stack[-1], reads, writes, cost, state, reason))

    # -- values and their lives ---------------------------------------------------------------

    def _value(self, tensor: torch.Tensor) -> int:
        key = id(tensor)
        known = self._values.get(key)
        if known is not None:
            return known
        value = self._values[key] = self._next_value
        self._next_value += 1
        storage = _storage(tensor)
        if storage in self._weight_storages:
            self._keep.append(tensor)
            return value
        life = self._lives.get(storage)
        if life is None:
            life = self._lives[storage] = [tensor.untyped_storage().nbytes(), len(self._ops), 0, 0]
        life[3] += 1
        self._guards[key] = weakref.ref(tensor, lambda _, key=key, storage=storage: self._died(key, storage))
        return value

    def _died(self, key: int, storage: int) -> None:
        self._values.pop(key, None)
        self._guards.pop(key, None)
        life = self._lives.get(storage)
        if life is None:
            return
        life[3] -= 1
        if life[3] == 0:
            del self._lives[storage]
            self._done.append(Life(life[0], life[1], max(len(self._ops) - 1, life[1])))

    def _spec(self, t: torch.Tensor, name: str, *, repeat: bool = False) -> TensorSpec:
        shape, stride = tuple(t.shape), t.stride()
        distinct = 1
        for size, step in zip(shape, stride, strict=True):
            distinct *= size if step or size == 0 else 1
        held = t.untyped_storage().nbytes() // t.element_size()
        weight = _storage(t) in self._weight_storages
        return TensorSpec(name, shape, _DTYPES[t.dtype], weight, False, repeat, _layout(t), min(distinct, held))

    # -- the result ---------------------------------------------------------------------------

    def graph(self, output: Any) -> Graph:
        outputs = [t for t in pytree.tree_leaves(output) if isinstance(t, torch.Tensor)]
        values = tuple(self._values.get(id(t), -1) for t in outputs)
        end = max(len(self._ops) - 1, 0)
        lives = [*self._done, *(Life(b, born, end) for b, born, _, _ in self._lives.values())]
        is_module = isinstance(self._root, nn.Module)
        params = sum(p.numel() for p in self._root.parameters()) if is_module else 0
        return Graph(
            ops=tuple(self._ops),
            inputs=tuple(self._inputs),
            input_values=tuple(self._input_values),
            output_values=values,
            params=params,
            weight_bytes=self._weight_bytes,
            lives=tuple(lives),
        )

    def explain(self, error: Exception) -> str:
        """One line: what failed, where, and what to do."""
        where = self._stack[-1] or type(self._root).__name__
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        return (
            f"the forward raised {type(error).__name__} in {where}, after {self._last or 'no op'}: {first} "
            "Check the shape and dtype of the inputs."
        )


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_quantized or tensor.layout is not torch.strided:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _layout(t: torch.Tensor) -> str:
    if t.is_contiguous():
        return "contiguous"
    if t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last):
        return "channels_last"
    return "strided"


def _collect(args: Any, into: list[torch.Tensor]) -> bool:
    """Put the tensors of a nested argument list into `into`; True where one of them is real."""
    real = False
    for arg in args:
        if isinstance(arg, torch.Tensor):
            into.append(arg)
            real = real or not arg.is_meta
        elif isinstance(arg, (list, tuple)):
            real = _collect(arg, into) or real
    return real


def _signature(arg: Any) -> Any:
    """A hashable form of an argument; tensors by shape, stride and dtype."""
    if isinstance(arg, torch.Tensor):
        return (arg.shape, arg.stride(), arg.dtype)
    if isinstance(arg, (list, tuple)):
        return tuple([_signature(a) for a in arg])
    if isinstance(arg, (int, float, str, bool)):
        return (type(arg), arg)
    return arg


def _kind(func: Any) -> str:
    name: str = func._schema.name
    space, _, base = name.partition("::")
    base = base[:-1] if base.endswith("_") and not base.endswith("__") else base
    return base if space == "aten" else f"{space}.{base}"


def _bind(func: Any, args: Any, kwargs: Any) -> tuple[list[tuple[str, torch.Tensor]], tuple[tuple[str, Param], ...]]:
    """Tensor arguments by name, and the other arguments that differ from their default."""
    named: list[tuple[str, torch.Tensor]] = []
    params: list[tuple[str, Param]] = []
    schema = func._schema.arguments
    given = [*zip((a.name for a in schema), args, strict=False), *kwargs.items()]
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    for name, value in given:
        inside: list[torch.Tensor] = []
        _collect((value,), inside)
        if inside:
            named += [(name, t) for t in inside]
        elif not (name in defaults and _plain(defaults[name]) == _plain(value)):
            params.append((name, _plain(value)))
    return named, tuple(sorted(params, key=lambda p: p[0]))


def _plain(value: Any) -> Param:
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value).removeprefix("torch.")
