"""Copies of the modules and objects that a forward works with, so that whatever it changes is a copy.

A module is copied with all its attributes, and its tensors are shared: the copy of a network takes a millisecond and no
memory. A forward that runs on the copies sets attributes, modes, hooks and lists of theirs. The modules of the user,
which other threads may run or train meanwhile, are never written.

What refers to a copied module refers to its copy: hooks, bound methods, `functools.partial`, closures, global variables
of functions that use them, lists and dictionaries. Wrappers around one module, as of torch.compile and data-parallel
training, are left out.
"""

from __future__ import annotations

import copy
import enum
import functools
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hwcost.tracing.references import SAME, content, global_names, holds_modules, plain, refill_deque, slots

_HEAP_TYPE = 1 << 9  # the flag of classes that are written in Python
_DEPTH = 4  # objects inside objects that are copied; deeper ones belong to a training, not to a forward
_LIBRARIES = ("torch", *sys.stdlib_module_names)  # whose objects are not copied, but for those of `_OWN`
_OWN = ("torch.nn", "torch.utils.hooks", "collections", "argparse")
_WRAPPERS = {  # of torch, and the name of the module inside
    "OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module",
    "AveragedModel": "module",
}  # fmt: skip


# Attributes of every module: a dozen dictionaries of hooks, which are mostly empty; and its tensors.
_TENSORS = ("_parameters", "_buffers")
_REGISTRIES = frozenset(n for n, v in nn.Module().__dict__.items() if isinstance(v, (dict, set)) and n not in _TENSORS)


class Copies:
    """Copies for one trace; an object that is reached twice has one copy."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}  # by id of the original
        self._originals: list[Any] = []  # kept, so that no other object gets their ids
        self._handlers: dict[type, Callable[[Any], Any] | None] = {}  # by type; None: such objects are not copied
        self._of_input: Callable[[torch.Tensor], torch.Tensor] | None = None  # while arguments are copied
        self._depth = 0  # of objects inside objects
        self._inside = 0  # of modules inside modules
        self._name = ""  # of the variable or attribute that is being copied
        self.modules: list[tuple[nn.Module, nn.Module]] = []  # (copy, original)
        self._roots: dict[str, nn.Module] = {}  # copies of modules that were reached from no other module, by name

    def arguments(self, tree: Any, of_input: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """A copy of the arguments of a forward, with `of_input` of each tensor, those in objects included."""
        self._of_input = of_input
        try:
            return self.of(tree)
        finally:
            self._of_input = None

    def of(self, thing: Any) -> Any:
        """The copy of a module or object; the thing itself where nothing in it can change, and of a class."""
        kind = type(thing)
        if kind in SAME:
            return thing
        try:
            handler = self._handlers[kind]
        except KeyError:
            handler = self._handlers[kind] = self._handler(kind)
        if handler is None:
            return thing
        made = self._made.get(id(thing), self)
        return handler(thing) if made is self else made

    def places(self) -> dict[str, nn.Module]:
        """Copied modules by path, parents before children; one that has several paths by the first.

        A network that stands alone has the path "". Of several, each begins with the name of its variable.
        """
        if len(self._roots) == 1:
            return _walk(*self._roots.values())
        walks = {name: _walk(root) for name, root in self._roots.items()}
        inner = {id(m) for walk in walks.values() for path, m in walk.items() if path}
        walks = {name: walk for name, walk in walks.items() if id(walk[""]) not in inner}
        places: dict[str, nn.Module] = {}
        for name, walk in walks.items():
            prefix = name if len(walks) > 1 else ""
            places.update((".".join(filter(None, (prefix, path))), module) for path, module in walk.items())
        return places

    def settle(self) -> None:
        """End the trace: let go of all copies, and make those of modules equal to the modules, as something outside may
        have kept one."""
        for made, module in self.modules:
            if not isinstance(made, torch.jit.ScriptModule):
                made.__dict__.clear()
                made.__dict__.update(module.__dict__)
        for held in (self._made, self._originals, self._handlers, self.modules, self._roots):
            held.clear()

    # -- by type ------------------------------------------------------------------------------------

    def _handler(self, kind: type) -> Callable[[Any], Any] | None:
        """What copies objects of a type."""
        if issubclass(kind, torch.Tensor):
            return self._tensor
        if issubclass(kind, nn.Module):
            if issubclass(kind, torch.jit.ScriptModule):
                return self._script
            inside = _inside(kind)
            return functools.partial(self._wrapper, inside) if inside else self._module
        for base, handler in self._BY_TYPE.items():
            if issubclass(kind, base):
                return functools.partial(handler, self)
        if issubclass(kind, (type, enum.Enum, types.ModuleType)) or hasattr(kind, "__del__"):
            return None
        package = str(getattr(kind, "__module__", ""))
        foreign = package.split(".")[0] in _LIBRARIES and not package.startswith(_OWN)
        return None if foreign or not kind.__flags__ & _HEAP_TYPE else self._object

    def _remember(self, thing: Any, made: Any) -> None:
        self._made[id(thing)] = made
        self._originals.append(thing)

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._of_input is None:
            return tensor
        made = self._of_input(tensor)
        self._remember(tensor, made)
        return made

    def _wrapper(self, name: str, wrapper: nn.Module) -> Any:
        """The copy of the module that a wrapper holds under `name`."""
        made = self.of(wrapper._modules[name])
        self._remember(wrapper, made)
        return made

    def _module(self, module: nn.Module) -> nn.Module:
        try:
            made = object.__new__(type(module))
        except TypeError:  # a module that is also a list, say
            return module
        self._remember(module, made)
        self._register(made, module)
        given, self._of_input = self._of_input, None  # a module's tensors are no inputs
        depth, self._depth = self._depth, 0
        self._inside += 1
        self._fill(made, module)
        self._inside -= 1
        self._of_input, self._depth = given, depth
        return made

    def _register(self, made: nn.Module, module: nn.Module) -> None:
        self.modules.append((made, module))
        if not self._inside:
            name = self._name or type(module).__name__
            same = sum(each.split("_")[0] == name for each in self._roots)
            self._roots[f"{name}_{same + 1}" if same else name] = made

    def _script(self, module: Any) -> Any:
        """A scripted module, whose attributes lie in C++: a clone that shares its tensors."""
        made = torch.jit._recursive.wrap_cpp_module(_script_copy(module._c))
        self._remember(module, made)
        self._register(made, module)
        return made

    def _object(self, thing: Any) -> Any:
        """An object of a class written in Python; in a module, only one that holds something."""
        state = getattr(thing, "__dict__", None)
        if self._depth >= _DEPTH or not (state or self._of_input):
            return thing
        try:
            made = object.__new__(type(thing))
        except TypeError:
            return thing
        self._remember(thing, made)
        self._depth += 1
        self._fill(made, thing)
        self._depth -= 1
        return made

    def _fill(self, made: Any, thing: Any) -> None:
        """Copy the attributes of `thing` to `made`, past any `__setattr__` of the class."""
        of = self.of
        state = getattr(thing, "__dict__", None)
        if state:
            attributes = made.__dict__
            for name, value in list(state.items()):
                kind = type(value)
                if kind in SAME:
                    attributes[name] = value
                elif name in _REGISTRIES and not value:
                    attributes[name] = kind()
                elif name in _TENSORS and kind is dict:
                    attributes[name] = value.copy()
                else:
                    self._name = name
                    attributes[name] = of(value)
        for slot in slots(type(thing)):
            try:
                slot.__set__(made, of(slot.__get__(thing)))
            except AttributeError:  # not set
                continue

    # -- containers ---------------------------------------------------------------------------------

    def _list(self, thing: Any) -> Any:
        kind = type(thing)
        if kind is list:
            made: Any = []
            self._remember(thing, made)
            made.extend(thing if plain(thing) else map(self.of, thing))
            return made
        return self._subclass(thing, lambda made: made.__setitem__(slice(None), [self.of(v) for v in made]))

    def _dict(self, thing: Any) -> Any:
        kind = type(thing)
        if kind is dict or kind is OrderedDict:
            made: Any = kind()
            self._remember(thing, made)
            if thing:
                made.update(thing if plain(thing.values()) else [(k, self.of(v)) for k, v in list(thing.items())])
            return made
        base: Any = OrderedDict if isinstance(thing, OrderedDict) else dict

        def refill(made: Any) -> None:
            for key, value in list(base.items(made)):
                base.__setitem__(made, key, self.of(value))

        return self._subclass(thing, refill)

    def _set(self, thing: Any) -> Any:
        made = {self.of(v) for v in thing} if type(thing) is set else copy.copy(thing)
        self._remember(thing, made)
        return made

    def _tuple(self, thing: Any) -> Any:
        items = [self.of(v) for v in thing]
        if all(a is b for a, b in zip(items, thing, strict=True)):
            return thing
        made = tuple(items) if type(thing) is tuple else tuple.__new__(type(thing), items)
        self._remember(thing, made)
        return made

    def _deque(self, thing: Any) -> Any:
        return self._subclass(thing, lambda made: refill_deque(made, [self.of(v) for v in thing]))

    def _subclass(self, thing: Any, refill: Callable[[Any], Any]) -> Any:
        """A container of a class of its own: a shallow copy by its own means, then the contents and attributes."""
        try:
            made = copy.copy(thing)
        except Exception:  # it refuses; the forward gets the container itself
            return thing
        self._remember(thing, made)
        refill(made)
        if getattr(thing, "__dict__", None):
            self._fill(made, thing)
        return made

    # -- what refers to something copied ------------------------------------------------------------

    def _method(self, method: Any) -> Any:
        """A bound method, of the copy of its object."""
        owner, function = self.of(method.__self__), method.__func__
        if owner is method.__self__:
            return method
        if not isinstance(owner, type(method.__self__)):  # the object was a wrapper
            return owner if function.__name__ in ("forward", "__call__") else getattr(owner, function.__name__)
        return types.MethodType(self.of(function), owner)

    def _builtin(self, method: Any) -> Any:
        """A built-in method, as `append` of a list."""
        owner = method.__self__
        if owner is None or isinstance(owner, (types.ModuleType, type)):
            return method
        made = self.of(owner)
        return method if made is owner else getattr(made, method.__name__)

    def _partial(self, thing: Any) -> Any:
        made = type(thing)(self.of(thing.func), *self.of(thing.args), **self.of(thing.keywords))
        self._remember(thing, made)
        return made

    def _weak(self, reference: Any) -> Any:
        target = reference()
        made = None if target is None else self.of(target)
        return reference if made is target else weakref.ref(made)

    def _function(self, function: Any) -> Any:
        """A function, with copies in its closure, its defaults and the global variables that it uses."""
        compiled = getattr(function, "_torchdynamo_orig_callable", None)
        if compiled is not None:  # what torch.compile made of a function
            made = self.of(compiled)
            self._remember(function, made)
            return made
        self._remember(function, function)  # until all that it refers to is known
        names, cells = function.__code__.co_freevars, function.__closure__ or ()
        own = [types.CellType() if content(cell) is function else None for cell in cells]  # a function in its closure
        closure = [new or self._cell(name, cell) for name, cell, new in zip(names, cells, own, strict=True)]
        defaults, scope = self.of(function.__defaults__), self._scope(function)
        changed = any(a is not b for a, b, new in zip(closure, cells, own, strict=True) if new is None)
        if not changed and scope is None and defaults is function.__defaults__:
            return function
        made = types.FunctionType(
            function.__code__, scope or function.__globals__, function.__name__, defaults, tuple(closure)
        )
        for new in own:
            if new is not None:
                new.cell_contents = made
        made.__kwdefaults__ = function.__kwdefaults__
        made.__dict__.update(function.__dict__)
        made.__qualname__, made.__module__ = function.__qualname__, function.__module__
        self._remember(function, made)
        return made

    def _cell(self, name: str, cell: Any) -> Any:
        """A variable of a closure; the cell itself where what it holds is not copied."""
        if id(cell) not in self._made:
            self._name = name
            held = content(cell)
            made = self.of(held)
            self._remember(cell, cell if made is held else types.CellType(made))
        return self._made[id(cell)]

    def _scope(self, function: Any) -> dict[str, Any] | None:
        """The global variables of a function with copies of the modules among them; None where it uses none.

        It may use them in an object, a list or dictionary, or through another function of the same file.
        """
        if self._inside:
            return None
        scope = function.__globals__
        changed: dict[str, Any] = {}
        for name in global_names(function.__code__):
            value = scope.get(name)
            if isinstance(value, types.FunctionType):
                uses = value.__globals__ is scope or hasattr(value, "_torchdynamo_orig_callable")
            else:
                uses = isinstance(value, (nn.Module, functools.partial, types.MethodType)) or holds_modules(value)
            if uses:
                self._name = name
                made = self.of(value)
                if made is not value:
                    changed[name] = made
        return {**scope, **changed} if changed else None

    _BY_TYPE: Mapping[type, Callable[[Copies, Any], Any]] = {
        list: _list,
        dict: _dict,
        set: _set,
        tuple: _tuple,
        deque: _deque,
        types.MethodType: _method,
        types.BuiltinMethodType: _builtin,
        types.FunctionType: _function,
        functools.partial: _partial,
        weakref.ref: _weak,
    }


def _walk(root: nn.Module) -> dict[str, nn.Module]:
    """Every module of a network by its path."""
    places: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def visit(module: nn.Module, path: str) -> None:
        seen.add(id(module))
        places[path] = module
        if isinstance(module, torch.jit.ScriptModule):
            return  # runs its submodules itself
        prefix = f"{path}." if path else ""
        for name, child in module._modules.items():
            if child is not None and id(child) not in seen:
                visit(child, prefix + name)

    visit(root, "")
    return places


def _script_copy(module: Any) -> Any:
    """A copy of the C++ side of a scripted module and its submodules."""
    made = copy.copy(module)
    for name, inner in torch._C.ModuleDict(module).items():
        made.setattr(name, _script_copy(inner))
    return made


def _inside(kind: type) -> str:
    """The name under which a wrapper class of torch holds its module; "" for another class."""
    names = (_WRAPPERS.get(each.__name__, "") for each in kind.__mro__ if each.__module__.startswith("torch."))
    return next(filter(None, names), "")
