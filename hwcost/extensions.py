"""Finding extensions: rule families, runtimes, importers, advice and search spaces, ours and other people's.

Each registry is filled by modules that register themselves when they are imported. They are

* the modules of the registry's own folder, as `hwcost/rules/*.py`;
* the entry points that an installed package declares in the registry's group, as
  ``[project.entry-points."hwcost.rules"]``;
* the Python files that the environment variable HWCOST_EXTENSIONS names, separated as PATH is.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

VARIABLE = "HWCOST_EXTENSIONS"
_lock = threading.RLock()
_loaded = set[str]()
_files: dict[tuple[Path, int, int], ModuleType] = {}


class ExtensionError(ValueError):
    """An extension that cannot be imported; the message names it and says why."""


def load(package: str) -> None:
    """Import all modules that register something in the registry of `package`; does nothing the second time.

    Safe to call from several threads at once: all but the first wait until the registry is complete.

    Args:
        package: the registry's folder, as "hwcost.rules"; also the name of the group of entry points.

    Raises:
        ExtensionError: an entry point or a file of HWCOST_EXTENSIONS cannot be imported.
    """
    if package in _loaded:
        return
    with _lock:
        if package in _loaded:
            return
        _import_all(package)
        _loaded.add(package)


def _import_all(package: str) -> None:
    for found in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{found.name}")
    for point in entry_points(group=package):
        try:
            point.load()
        except Exception as error:
            raise ExtensionError(f"entry point {point.name!r} of group {package!r} {_failed(error)}") from error
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        from_file(name)


def from_file(name: str | Path) -> ModuleType:
    """The module of a Python file, imported once as long as the file stays the same.

    Raises:
        ExtensionError: there is no such file, or importing it fails.
    """
    path = Path(name).resolve()
    try:
        state = path.stat()
    except OSError as error:
        raise ExtensionError(f"no Python file {name}; {VARIABLE} and options name files that exist") from error
    version = (path, state.st_mtime_ns, state.st_size)
    with _lock:
        module = _files.get(version)
        spec = spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ExtensionError(f"{name} is no Python file")
        if module is None:
            module = module_from_spec(spec)
            sys.modules[spec.name] = module  # so that what it defines can be pickled
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                raise ExtensionError(f"{name} {_failed(error)}") from error
            _files[version] = module
        sys.modules[spec.name] = module
    return module


def _failed(error: Exception) -> str:
    said = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    return f"cannot be imported: {said}"
