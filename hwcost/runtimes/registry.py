"""Runtimes: the software that executes a network. One file each; a name finds it."""

from __future__ import annotations

from importlib import import_module

from hwcost.runtimes.base import Network, Placed, Runtime, RuntimeUnavailable

_FILES = {
    "torch-eager": "hwcost.runtimes.torch_eager",
    "torch-compile": "hwcost.runtimes.torch_compile.session",
    "onnxruntime": "hwcost.runtimes.onnxruntime.session",
    "openvino": "hwcost.runtimes.openvino.session",
}

__all__ = ["Network", "Placed", "Runtime", "RuntimeUnavailable", "get_runtime", "runtime_names"]


def runtime_names() -> tuple[str, ...]:
    """Names of the runtimes that this version knows."""
    return tuple(_FILES)


def get_runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        ValueError: no such runtime.
        RuntimeUnavailable: it needs a package that is not installed.
    """
    if name not in _FILES:
        raise ValueError(f"runtime must be one of {', '.join(_FILES)}, but got {name!r}")
    runtime: Runtime = import_module(_FILES[name]).RUNTIME
    return runtime
