"""Runtimes by name. Importing the module of a runtime registers it; importing this one imports none of them.

Each module or package in this folder that registers a runtime is found without being listed anywhere. Others are found
through an entry point of the group "hwcost.runtimes", through a file that the environment variable HWCOST_EXTENSIONS
names, through the path of a file given in place of a name, or by a call of `hwcost.register_runtime`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from hwcost.extensions import from_file, load
from hwcost.runtimes.base import Runtime

R = TypeVar("R", bound=Runtime)

_runtimes: dict[str, Runtime] = {}


def register_runtime(runtime: R) -> R:
    """Make a runtime known by its name; returns it.

    Raises:
        TypeError: it is no `hwcost.runtimes.base.Runtime`.
        ValueError: another runtime has that name.
    """
    if not isinstance(runtime, Runtime):
        raise TypeError(f"a runtime must be a hwcost.runtimes.base.Runtime, but got {runtime!r:.80}")
    load("hwcost.runtimes")  # first those that come with hwcost, so that nobody else takes their names
    if _runtimes.get(runtime.name, runtime) is not runtime:
        raise ValueError(f"a runtime needs a name of its own, but {runtime.name!r} is registered already")
    _runtimes[runtime.name] = runtime
    return runtime


def runtime_names() -> tuple[str, ...]:
    """Names of all registered runtimes in alphabetical order, whether they can run networks here or not."""
    load("hwcost.runtimes")
    return tuple(sorted(_runtimes))


def get_runtime(name: str) -> Runtime:
    """The runtime of that name, or the one that a Python file registers where `name` is its path ("....py").

    Raises:
        ValueError: no runtime has that name, or the file does not register exactly one.
        ExtensionError: a file that registers runtimes is missing or cannot be imported.
    """
    load("hwcost.runtimes")
    if name in _runtimes:
        return _runtimes[name]
    if name.endswith(".py"):
        return _of_file(name)
    raise ValueError(f"runtime must be one of {', '.join(runtime_names())}, but got {name!r}")


def _of_file(path: str) -> Runtime:
    defined = vars(from_file(Path(path))).values()
    found = [runtime for runtime in _runtimes.values() if type(runtime) in defined]
    if len(found) != 1:
        raise ValueError(f"{path} must define and register one runtime, but registers {len(found)}")
    return found[0]
