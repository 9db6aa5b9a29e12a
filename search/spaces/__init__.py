"""Search spaces by name; one's own by "package.module:Class" or "path/file.py:Class"."""

from __future__ import annotations

from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hwcost.search.spaces.base import Block, Decision, Params, Site, Space, SpaceError

__all__ = ["Block", "Decision", "Params", "Site", "Space", "SpaceError", "get_space", "space_names"]

_SPACES = {
    "tiny-cnn": "hwcost.search.spaces.tiny_cnn:TinyCNN",
}


def space_names() -> tuple[str, ...]:
    """The spaces that come with hwcost."""
    return tuple(sorted(_SPACES))


def get_space(name: str) -> Space:
    """A space by name, or one's own as "package.module:Class" or "path/file.py:Class".

    Raises:
        SpaceError: there is no such space, or what is there is no space.
    """
    place = _SPACES.get(name, name)
    module, _, attribute = place.rpartition(":")
    if not module or not attribute:
        raise SpaceError(f"no space {name!r}; choose from {', '.join(space_names())}, or give path/file.py:Class")
    found = getattr(_module(module, name), attribute, None)
    if found is None:
        raise SpaceError(f"space {name!r}: {module} has no {attribute!r}")
    space = found() if isinstance(found, type) else found
    if not isinstance(space, Space):
        raise SpaceError(f"space {name!r} must be a hwcost.search.spaces.Space, but is a {type(space).__name__}")
    return space


def _module(module: str, name: str) -> object:
    try:
        if not module.endswith(".py"):
            return import_module(module)
        spec = spec_from_file_location(Path(module).stem, module)
        if spec is None or spec.loader is None or not Path(module).is_file():
            raise ImportError("there is no such file")
        loaded = module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded
    except ImportError as error:
        raise SpaceError(f"space {name!r} cannot be imported: {error}") from error
