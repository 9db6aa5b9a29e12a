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
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

VARIABLE = "HWCOST_EXTENSIONS"
_lock = threading.RLock()
_loaded = set[str]()
_loading = set[str]()  # registries that the thread which holds the lock is filling
_errors: dict[str, str] = {}  # of registries that could not be filled
_files: dict[tuple[Path, int, int], ModuleType] = {}  # by path, time of the last change (ns), and size (byte)


class ExtensionError(ValueError):
    """An extension that cannot be imported; the message names it and says why."""


def load(package: str) -> None:
    """Import all modules that register something in the registry of `package`; does nothing the second time.

    Several threads may call it at once: all but the first wait until the registry is complete. A module that is being
    imported here may call it too, as a registry does when something is registered; that call returns at once.

    Args:
        package: the registry's folder, as "hwcost.rules"; also the name of the group of entry points.

    Raises:
        ExtensionError: an entry point or a file of HWCOST_EXTENSIONS cannot be imported. The registry stays incomplete
            then, and every later call raises the same error.
    """
    if package in _loaded:
        return
    with _lock:
        if package in _loaded or package in _loading:
            return
        if package in _errors:
            raise ExtensionError(_errors[package])
        _loading.add(package)
        try:
            _import_all(package)
            _loaded.add(package)
        except ExtensionError as error:
            _errors[package] = str(error)
            raise
        finally:
            _loading.discard(package)


def _import_all(package: str) -> None:
    """Import the modules of the registry's folder, then the entry points of its group, then the user's files."""
    for found in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{found.name}")
    for point in _entry_points().get(package, ()):
        try:
            point.load()
        except Exception as error:
            raise ExtensionError(f"entry point {point.name!r} of group {package!r} {_failed(error)}") from error
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        from_file(name)


@cache
def _entry_points() -> dict[str, list[EntryPoint]]:
    """The entry points of all installed packages, by group; read once for all registries, since that takes 30 ms."""
    groups: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        for point in distribution.entry_points:
            groups.setdefault(point.group, []).append(point)
    return groups


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
        spec = spec_from_file_location(module.__name__ if module else _module_name(path), path)
        if spec is None or spec.loader is None:
            raise ExtensionError(f"{name} is no Python file")
        if module is None:
            # Kept before it runs: what it registers may fill another registry, which comes back to this file.
            module = _files[version] = module_from_spec(spec)
            sys.modules[spec.name] = module  # so that what it defines can be pickled
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[spec.name], _files[version]
                raise ExtensionError(f"{name} {_failed(error)}") from error
        sys.modules[spec.name] = module  # again for a kept module: another version of the file may have taken its name
    return module


def _module_name(path: Path) -> str:
    """The name under which the module of a file is imported: the file's stem, followed by a digest of its path if
    another module has that name already, as the standard library's `code` has that of a file code.py."""
    try:
        found = find_spec(path.stem)
        free = found is None or found.origin == str(path)
    except ImportError:  # a stem with a dot, of which the first part is no package
        free = True
    except ValueError:  # a module that is loaded and has no spec, as __main__
        free = False
    return path.stem if free else f"{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"


def _failed(error: Exception) -> str:
    """The end of an ExtensionError's message: what went wrong during the import."""
    said = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    return f"cannot be imported: {said}"
