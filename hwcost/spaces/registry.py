"""Search spaces by name.

A space registers itself where its class is defined:

    @register_space
    class Mine(Space):
        name = "mine"
        ...

Modules of this folder are found by themselves, other people's through an entry point of the group "hwcost.spaces" or
through the environment variable HWCOST_EXTENSIONS (`hwcost.extensions`). A space that is not registered is named by
where its class stands, "package.module:Class" or "path/file.py:Class".

A name may carry settings, "mbconv?widths=0.5:1.5:0.05&resolutions=128,160": they are the arguments of the class that
are annotated as `str`. Tables, stores and studies keep such a space under the whole name.

The networks of `hwcost.spaces.designed` have no decisions, so they are no `Space` and are not registered: they are
measured, but neither searched nor put into tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import TypeVar

import numpy as np

from hwcost.extensions import ExtensionError, from_file, load
from hwcost.spaces.base import Block, BlockList, Space, SpaceError

_GROUP = "hwcost.spaces"
_CHECKED = 64  # random architectures of somebody else's space that must have blocks before anything is priced

S = TypeVar("S", bound=type[Space])

_spaces: dict[str, type[Space]] = {}


def register_space(kind: S) -> S:
    """Make a subclass of `Space` known by its `name`; returns it.

    Raises:
        SpaceError: it is no such class, has no name, or another one has that name.
    """
    if not (isinstance(kind, type) and issubclass(kind, Space)):
        raise SpaceError(f"a registered space must be a subclass of hwcost.search.spaces.Space, but got {kind!r:.80}")
    name = getattr(kind, "name", "")
    if not name or ":" in name or "?" in name:
        rule = "a registered space must have a class attribute `name` without ':' and '?'"
        raise SpaceError(f"{rule}, but {_place(kind)} has {name!r}")
    taken = _spaces.get(name, kind)
    if _place(taken) != _place(kind):  # a file that was changed and imported again replaces its own class
        raise SpaceError(
            f"a space needs a name of its own, but {name!r} names {_place(taken)} and {_place(kind)}; rename one"
        )
    _spaces[name] = kind
    return kind


def _place(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def space_names() -> tuple[str, ...]:
    """Names of the registered spaces, in alphabetical order. Imports them, and with them torch.

    Raises:
        hwcost.extensions.ExtensionError: an extension cannot be imported.
    """
    load(_GROUP)
    return tuple(sorted(_spaces))


def get_space(name: str) -> Space:
    """A space by name, or one's own as "package.module:Class" or "path/file.py:Class", settings after "?".

    A list of blocks in place of a class is the space that holds one of them.

    Raises:
        SpaceError: there is no such space, what is there is no space, or it has no such setting.
        hwcost.extensions.ExtensionError: an extension cannot be imported.
    """
    bare, _, query = name.partition("?")
    found = get_object(bare, "space") if ":" in bare else _registered(bare)
    settings = dict(part.split("=", 1) for part in query.split("&") if "=" in part)
    if isinstance(found, (list, tuple)):
        found = _listed(bare, found)
    space = _made(bare, found, settings) if isinstance(found, type) else found
    if not isinstance(space, Space):
        raise SpaceError(f"space {bare!r} must be a hwcost.search.spaces.Space, but is a {type(space).__name__}")
    ours = isinstance(found, type) and found.__module__.startswith(f"{_GROUP}.")
    if not ours:
        _check(bare, space)
    return space


def _registered(name: str) -> type[Space]:
    names = space_names()
    if name == "designed":
        raise SpaceError(
            "the networks of 'designed' are only measured, `hwcost measure --space designed`: they have no decisions "
            f"to search or to tabulate; choose from {', '.join(names)}"
        )
    if name not in _spaces:
        raise SpaceError(f"no space {name!r}; choose from {', '.join(names)}, or give path/file.py:Class")
    return _spaces[name]


def _check(name: str, space: Space) -> None:
    """Refuse a space of somebody else that lacks a part, or whose random architectures have no blocks.

    Raises:
        SpaceError: says what is missing or which parameters have no blocks.
    """
    for part in ("name", "decisions", "sites"):
        if not hasattr(space, part):
            raise SpaceError(f"space {name!r} has no {part!r}; hwcost.spaces.base shows a space of one's own")
    known = [d.name for d in space.decisions]
    for site in space.sites:
        if unknown := [decision for decision in site.decisions if decision not in known]:
            rule = f"site {site.name!r} must depend on {', '.join(known) or 'nothing'}"
            raise SpaceError(f"space {name!r}: {rule}, but names {unknown[0]!r}")
    rng = np.random.default_rng(0)
    for params in (space.sample(rng) for _ in range(_CHECKED)):
        try:
            wrong = next((b for b in space.blocks(params) if not isinstance(b, Block)), None)
        except Exception as error:
            raise SpaceError(f"space {name!r} gives no blocks for {params}: {_brief(error)}") from error
        if wrong is not None:
            raise SpaceError(f"space {name!r}: a site must give a Block or None, but gave {wrong!r:.80} for {params}")


def _listed(name: str, blocks: Sequence[object]) -> BlockList:
    """The space that holds one of these blocks."""
    own = [b for b in blocks if isinstance(b, Block)]
    if not own or len(own) < len(blocks):
        kinds = sorted({type(b).__name__ for b in blocks}) or ["nothing"]
        rule = "a list in place of a space must hold hwcost.search.spaces.Block"
        raise SpaceError(f"space {name!r}: {rule}, but holds {', '.join(kinds)}")
    return BlockList(name, own)


def _made(name: str, kind: type, settings: dict[str, str]) -> object:
    """An instance of the class `kind` with these settings; a SpaceError where it has no such setting or fails."""
    known = {n for n, parameter in signature(kind).parameters.items() if parameter.annotation in (str, "str")}
    unknown = sorted(set(settings) - known)
    if unknown:
        has = f"has {' and '.join(sorted(known))}" if known else "has none"
        raise SpaceError(f"space {name!r} has no setting {unknown[0]!r}; it {has}")
    try:
        return kind(**settings)
    except SpaceError:
        raise
    except Exception as error:
        raise SpaceError(f"space {name!r} cannot be made: {_brief(error)}") from error


def get_object(place: str, what: str) -> object:
    """The object at "package.module:name" or "path/file.py:name".

    Args:
        place: where it stands.
        what: what it is meant to be, "space" for instance; begins the error's message.

    Raises:
        SpaceError: nothing stands there, or importing it fails.
    """
    module, _, name = place.rpartition(":")
    try:
        holder = from_file(module) if module.endswith(".py") else import_module(module)
    except ExtensionError as error:
        raise SpaceError(f"{what} {place!r}: {error}") from error
    except Exception as error:
        raise SpaceError(f"{what} {place!r} cannot be imported: {_brief(error)}") from error
    found = getattr(holder, name, None)
    if found is None:
        raise SpaceError(f"{what} {place!r}: {module} has no {name!r}")
    return found


def _brief(error: Exception) -> str:
    """Somebody else's exception in one line."""
    return str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
