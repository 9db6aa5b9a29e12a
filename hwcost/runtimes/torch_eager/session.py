"""Running networks with torch eager, and timing their calls.

A forward under inference mode dispatches the same composite ops that the trace saw, so the n-th call of a run is the
n-th op of the graph. A dispatch mode reads the clock around each call inside the running network.

For inputs on a CUDA device a run ends when the device is done, and the time of a call is that between two CUDA events,
which leaves out the time of the host. Untested on hardware: no GPU was at hand.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from hwcost.runtimes.base import Between, nothing, unloaded
from hwcost.runtimes.torch_eager.lowering import TorchEager
from hwcost.tracing.trace import trace


def prepare(module: Any, inputs: Sequence[Any], *, threads: int) -> EagerSession:
    """A session of the module. Nothing is compiled; the module runs once and is traced."""
    return EagerSession(module, inputs, threads)


def environment() -> dict[str, str]:
    """torch's version, what it was built with, what counts as a call, and the GPU where there is one."""
    built = {
        "torch": torch.__version__,
        "mkldnn": str(torch.backends.mkldnn.is_available()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "calls": "operators and modules",  # what `Network.calls` counts; earlier versions counted operators alone
    }
    return built | ({"cuda": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


class EagerSession:
    """A module with its inputs, on a stated number of threads."""

    def __init__(self, module: Any, inputs: Sequence[Any], threads: int) -> None:
        self._module, self._inputs, self._threads = module, tuple(inputs), threads
        self.warm_ups = 0
        self._on_cuda = self.sleeps = any(isinstance(x, torch.Tensor) and x.is_cuda for x in self._inputs)
        self.run()  # some modules keep tensors from their first run, and make fewer calls from then on
        graph = trace(module, self._inputs)
        self.network = TorchEager().lower(graph)
        self._names = [op.name for op in graph.ops]
        # which calls are kernels: those of ops that are not free
        self._timed = np.array([op.state != "free" for op in graph.ops], dtype=bool)

    def run(self) -> Any:
        """One inference."""
        self._set_threads()
        with torch.inference_mode():
            output = self._module(*self._inputs)
        if self._on_cuda:
            torch.cuda.synchronize()
        return output

    def profile(self, runs: int = 1, between: Between = nothing) -> NDArray[np.float64]:
        """Seconds of each kernel in `runs` inferences, the clock read around every call; [runs, kernels].

        Raises:
            RuntimeError: a run made other calls than the trace saw.
        """
        self._set_threads()
        times = []
        for _ in range(runs):
            between()
            times.append(self._profiled())
        between()
        return np.stack(times)

    def _profiled(self) -> NDArray[np.float64]:
        """Seconds of each kernel in one inference, [kernels]."""
        stopwatch = _CudaStopwatch() if self._on_cuda else _Stopwatch()
        with torch.inference_mode(), stopwatch:
            self._module(*self._inputs)
        if stopwatch.names != self._names:
            pairs = zip(stopwatch.names, self._names, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(stopwatch.names), len(self._names)))
            raise RuntimeError(
                f"a run must make the calls of the trace, but call {at + 1} is {stopwatch.names[at : at + 1]}, "
                f"and {self._names[at : at + 1]} in the trace"
            )
        seconds = stopwatch.seconds()
        if self._threads == 1 and not self._on_cuda:
            seconds = [unloaded(wall, cpu) for wall, cpu in zip(seconds, stopwatch.cpus, strict=True)]
        times: NDArray[np.float64] = np.asarray(seconds, dtype=np.float64)[self._timed]
        return times

    def _set_threads(self) -> None:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


class _Stopwatch(TorchDispatchMode):
    """Times every call from inside the running network."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.walls: list[float] = []
        self.cpus: list[float] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch then does not wrap `__torch_dispatch__` to keep torch.compile out of it. The wrapper would cost
        microseconds a call, and its first call would import the compiler, which takes seconds and keeps the arguments
        alive."""
        return False

    def seconds(self) -> list[float]:
        """Wall time of each call (s), free ones included."""
        return self.walls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        cpu = time.thread_time()
        start = time.perf_counter()
        out = func(*args, **kwargs)
        self.walls.append(time.perf_counter() - start)
        self.cpus.append(time.thread_time() - cpu)
        self.names.append(str(func))
        return out


class _CudaStopwatch(_Stopwatch):
    """Times every call by events on the device's stream. Untested on hardware."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def seconds(self) -> list[float]:
        """Time between the events around each call (s); waits until all have happened."""
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e-3 for start, end in self._events]  # events count milliseconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        out = func(*args, **(kwargs or {}))
        end.record()
        self._events.append((start, end))
        self.names.append(str(func))
        return out
