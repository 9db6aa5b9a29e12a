"""What every runtime offers: how it lowers a graph, how it runs a network, how it times kernels.

lower    Graph -> kernels in the order they run        (no torch needed)
prepare  module, inputs -> Session                      (compiles, exports, allocates)
Session.run()       one inference
Session.profile()   a few inferences with the time of each kernel, in the order of `Session.network`;
                    what is handed in as `between` is called before each of them and after the last
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwcost.cost import Cost
from hwcost.graph import Graph
from hwcost.kernel import Kernel


class RuntimeUnavailable(RuntimeError):
    """A runtime whose package is not installed, or that cannot run here."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A kernel where it stands in a network.

    `distance` is how many bytes were moved since the largest activation it reads was written: what
    decides which cache level it is still in. 0 means just written; -1 means it reads none.
    """

    kernel: Kernel
    module: str
    distance: int


@dataclass(frozen=True)
class Network:
    """A lowered network: kernels in the order they run, and what runs besides."""

    kernels: tuple[Placed, ...]
    calls: int  # that the runtime makes: operators, free ones included, and what its overhead counts besides
    runtime: str

    @cached_property
    def traffic(self) -> int:
        """Compulsory traffic (byte) of all kernels, after fusion."""
        return sum(p.kernel.cost.bytes for p in self.kernels)

    @cached_property
    def cost(self) -> Cost:
        """Work and traffic of all kernels, after fusion."""
        return sum((p.kernel.cost for p in self.kernels), Cost())


FUSED = frozenset({"_native_multi_head_attention", "_transformer_encoder_layer_fwd"})


@contextmanager
def by_parts() -> Iterator[None]:
    """Have torch's attention layers call their parts, and not the ops of `FUSED`, which exporters do not know."""
    import torch

    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def traced(module: Any, inputs: Any, kwargs: Any, runs_fused: Callable[[frozenset[str]], bool]) -> Graph:
    """The graph of a module; by its parts where it has ops of `FUSED`, and `runs_fused` does not want these."""
    from hwcost.tracing.trace import trace

    graph = trace(module, inputs, kwargs)
    fused = FUSED & {op.spec.kind for op in graph.ops}
    if not fused or runs_fused(fused):
        return graph
    with by_parts():
        return trace(module, inputs, kwargs)


Between = Callable[[], None]


def nothing() -> None:
    """What happens between two inferences that nobody watches."""


def vanishing() -> bool:
    """Whether numbers below the least normal float32 are zero on this thread (`measure.machine.vanishing_is_zero`)."""
    small = np.full(1, 1e-20, np.float32)
    return not (small * small).any()


SWITCH = 50e-6  # s; a thread that waited less than this has not been switched away


def unloaded(wall: float, cpu: float) -> float:
    """Time (s) of one thread without its waiting for a CPU, from wall time and the thread's CPU time."""
    return cpu if wall - cpu > SWITCH else wall


class Session(Protocol):
    """A network ready to run."""

    network: Network  # what `profile` gives the times of
    sleeps: bool  # whether the thread that calls `run` may sleep while a device works
    warm_ups: int  # inferences of a profile before those that it gives

    def run(self) -> Any:
        """One inference; returns its output."""

    def profile(self, runs: int = 1, between: Between = nothing) -> NDArray[np.float64]:
        """Seconds of each kernel in `runs` inferences, [runs, kernels], in the order of `network`.

        `between` is called before each of these inferences and after the last.
        """


class Runtime(Protocol):
    """A runtime; see the module docstring."""

    name: str
    on_torch_threads: bool  # whether the threads that run its kernels are torch's own

    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """Fold and fuse as the runtime does; a `part` of a network is lowered as it runs between the others.

        `lanes` is how many float32 numbers a vector register of the target holds (`Device.lanes`), None for as many
        as this machine's: some runtimes lay out data by it.
        """

    def prepare(self, module: Any, inputs: Sequence[Any], *, threads: int) -> Session:
        """Make a network ready to run on `threads` threads."""

    def environment(self) -> dict[str, str]:
        """Versions and settings that a measurement depends on."""
