"""Running networks with torch.compile on the CPU: inductor's code for one graph, with static shapes, without freezing.

Inductor writes a Python function that calls library kernels (convolutions, matrix products, attention) and C++ kernels
that it generates; the pointwise work, reductions and layout copies between two library calls are one generated
kernel. Which ops a kernel holds is read from inductor's own record of the origin of its kernels (`match`). Times come
from the same function with the clock read around each kernel call (`instrument`).

Weights are arguments, as they are by default: batch norms do not fold into convolutions, and weights of
convolutions are copied into the channels-last layout in every run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from hwcost.runtimes.base import Between, RuntimeUnavailable, nothing, unloaded
from hwcost.runtimes.groups import network_of
from hwcost.runtimes.torch_compile.capture import compile_module
from hwcost.runtimes.torch_compile.instrument import instrumented
from hwcost.runtimes.torch_compile.lowering import TorchCompile
from hwcost.runtimes.torch_compile.match import matched
from hwcost.tracing.trace import trace

_COMPILERS = ("g++", "clang++", "c++")
_OLDEST = (2, 13)  # earlier versions keep the origin of kernels elsewhere, or not at all
if not any(map(shutil.which, _COMPILERS)):
    raise RuntimeUnavailable(f"runtime torch-compile needs a C++ compiler ({', '.join(_COMPILERS)}); install one")
if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
    raise RuntimeUnavailable(f"runtime torch-compile needs torch >= {'.'.join(map(str, _OLDEST))}")


def prepare(module: Any, inputs: Sequence[Any], *, threads: int) -> CompiledSession:
    """A session of the compiled module; takes seconds, or less where the same C++ has been compiled before."""
    return CompiledSession(module, inputs, threads)


def environment() -> dict[str, str]:
    """Versions of torch and of the C++ compiler, whether torch has oneDNN, and the vector instructions compiled for."""
    from torch._inductor import cpp_builder, cpu_vec_isa

    compiler = cpp_builder.get_cpp_compiler()
    return {
        "torch": torch.__version__,
        "mkldnn": str(torch.backends.mkldnn.is_available()),
        "compiler": cpp_builder.get_compiler_version_info(compiler).splitlines()[0],
        "vectors": str(cpu_vec_isa.pick_vec_isa()) or "none",
    }


class CompiledSession:
    """A module compiled for a stated number of threads."""

    sleeps, warm_ups = False, 0

    def __init__(self, module: Any, inputs: Sequence[Any], threads: int) -> None:
        self._inputs, self._threads = tuple(inputs), threads
        self._set_threads()
        with torch.inference_mode():
            module(*self._inputs)  # some modules keep tensors from their first run
        self._found = captured = compile_module(module, self._inputs)
        self._run = captured.run
        self._plain = captured.compiled.current_callable
        self._timed = instrumented(self._plain, captured)
        graph = trace(module, self._inputs)
        self.network = network_of(*matched(captured, graph), TorchCompile.name)

    def run(self) -> Any:
        """One inference."""
        self._set_threads()
        with torch.inference_mode():
            return self._run(*self._inputs)

    def profile(self, runs: int = 1, between: Between = nothing) -> NDArray[np.float64]:
        """Seconds of each kernel in `runs` inferences, the clock read around every call; [runs, kernels]."""
        self._set_threads()
        self._found.compiled.current_callable = self._timed
        times = []
        try:
            for _ in range(runs):
                between()
                times.append(self._profiled())
            between()
        finally:
            self._found.compiled.current_callable = self._plain
        return np.stack(times)

    def _profiled(self) -> NDArray[np.float64]:
        """Seconds of each kernel in one inference, [kernels]."""
        ticks = self._found.ticks
        ticks.clear()
        with torch.inference_mode():
            self._run(*self._inputs)
        # [kernels, before and after, wall and thread time]
        walls, cpus = np.diff(np.array(ticks, dtype=np.float64).reshape(-1, 2, 2), axis=1)[:, 0].T
        if self._threads > 1:
            return cast(NDArray[np.float64], walls)
        return np.array([unloaded(wall, cpu) for wall, cpu in zip(walls, cpus, strict=True)], dtype=np.float64)

    def _set_threads(self) -> None:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
