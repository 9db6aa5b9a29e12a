"""Search spaces by name; one's own by "package.module:Class" or "path/file.py:Class".

A name may carry settings, "mbconv?widths=0.5:1.5:0.05&resolutions=128,160": the name under which tables,
stores and studies keep the scaled space.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType

import numpy as np

from hwcost.spaces.base import Block, BlockList, Decision, Form, Params, Site, Space, SpaceError

__all__ = [
    "Block", "BlockList", "Decision", "Form", "Params", "Site", "Space", "SpaceError", "get_object", "get_space",
    "space_names",
]  # fmt: skip

_SPACES = {
    "mbconv": "hwcost.spaces.mbconv:MBConv",
    "nas-bench-201": "hwcost.spaces.nas_bench_201:NasBench201",
    "tiny-cnn": "hwcost.spaces.tiny_cnn:TinyCNN",
    "vit": "hwcost.spaces.vit:ViT",
}
_loaded: dict[tuple[str, int, int], ModuleType] = {}  # files: a space and a training in one are of one module
_SAMPLES = 64  # random architectures of one's own space that must have blocks before anything is priced


def space_names() -> tuple[str, ...]:
    """The spaces that come with hwcost."""
    return tuple(sorted(_SPACES))


def get_space(name: str) -> Space:
    """A space by name, or one's own as "package.module:Class" or "path/file.py:Class", settings after "?".

    A list of blocks in place of a class is the space that holds one of them.

    Raises:
        SpaceError: there is no such space, what is there is no space, or it has no such setting.
    """
    bare, _, query = name.partition("?")
    place = _SPACES.get(bare, bare)
    if ":" not in place:
        raise SpaceError(f"no space {bare!r}; choose from {', '.join(space_names())}, or give path/file.py:Class")
    found = get_object(place, "space")
    settings = dict(part.split("=", 1) for part in query.split("&") if "=" in part)
    if isinstance(found, (list, tuple)):
        found = _listed(bare, found)
    space = _made(bare, found, settings) if isinstance(found, type) else found
    if not isinstance(space, Space):
        raise SpaceError(f"space {bare!r} must be a hwcost.search.spaces.Space, but is a {type(space).__name__}")
    if bare not in _SPACES:
        _check(bare, space)
    return space


def _check(name: str, space: Space) -> None:
    """Raise a SpaceError unless one's own space is whole, and random architectures of it have blocks."""
    for part in ("name", "decisions", "sites"):
        if not hasattr(space, part):
            raise SpaceError(f"space {name!r} has no {part!r}; hwcost.spaces.base shows a space of one's own")
    known = [d.name for d in space.decisions]
    for site in space.sites:
        if unknown := [decision for decision in site.decisions if decision not in known]:
            rule = f"site {site.name!r} must depend on {', '.join(known) or 'nothing'}"
            raise SpaceError(f"space {name!r}: {rule}, but names {unknown[0]!r}")
    rng = np.random.default_rng(0)
    for params in (space.sample(rng) for _ in range(_SAMPLES)):
        try:
            wrong = next((b for b in space.blocks(params) if not isinstance(b, Block)), None)
        except Exception as error:
            raise SpaceError(f"space {name!r} gives no blocks for {params}: {_brief(error)}") from error
        if wrong is not None:
            raise SpaceError(f"space {name!r}: a site must give a Block or None, but gave {wrong!r:.80} for {params}")


def _listed(name: str, blocks: Sequence[object]) -> BlockList:
    own = [b for b in blocks if isinstance(b, Block)]
    if not own or len(own) < len(blocks):
        kinds = sorted({type(b).__name__ for b in blocks}) or ["nothing"]
        rule = "a list in place of a space must hold hwcost.search.spaces.Block"
        raise SpaceError(f"space {name!r}: {rule}, but holds {', '.join(kinds)}")
    return BlockList(name, own)


def _made(name: str, kind: type, settings: dict[str, str]) -> object:
    known = set(signature(kind).parameters) & {"widths", "resolutions"}
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
    """What stands at "package.module:name" or "path/file.py:name"; `what` it is meant to be, for the error.

    Raises:
        SpaceError: nothing does.
    """
    module, _, name = place.rpartition(":")
    found = getattr(_module(module, f"{what} {place!r}"), name, None)
    if found is None:
        raise SpaceError(f"{what} {place!r}: {module} has no {name!r}")
    return found


def _module(module: str, what: str) -> object:
    try:
        if not module.endswith(".py"):
            return import_module(module)
        spec = spec_from_file_location(Path(module).stem, module)
        if spec is None or spec.loader is None or not Path(module).is_file():
            raise ImportError("there is no such file")
        version = (module, Path(module).stat().st_mtime_ns, Path(module).stat().st_size)
        loaded = _loaded.get(version) or module_from_spec(spec)
        sys.modules[spec.name] = loaded  # so that what it defines can be pickled
        if version not in _loaded:
            spec.loader.exec_module(loaded)
            _loaded[version] = loaded
        return loaded
    except Exception as error:
        raise SpaceError(f"{what} cannot be imported: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    """Somebody else's exception in one line."""
    return str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
