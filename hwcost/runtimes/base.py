"""What a runtime is: software that executes networks. It has two halves.

Lowering    Graph -> Network, the kernels in the order they run. Needs nothing installed but hwcost.
Running     a module with its inputs -> Session, which runs the network and times its kernels. Needs the runtime's
            package; this half is a module of its own (`Runtime.session`), imported when it is first asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hwcost.cost import Cost
from hwcost.graph import Graph
from hwcost.kernel import Kernel

Between = Callable[[], None]


def nothing() -> None:
    """Does nothing: what happens between two inferences that nobody watches."""


class RuntimeUnavailable(RuntimeError):
    """A runtime cannot run networks here: its package is not installed, or it is only lowered."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A kernel where it stands in a network.

    `distance` is its reuse distance (`hwcost.runtimes.reuse`): bytes moved since the activation it reads was written,
    which decides what cache level still holds it. 0 means just written; -1 means that the kernel reads no activation.
    """

    kernel: Kernel
    module: str
    distance: int


@dataclass(frozen=True)
class Network:
    """A lowered network."""

    kernels: tuple[Placed, ...]  # in the order they run
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


class Runtime(ABC):
    """A runtime: how it lowers a graph, what else must be known of it, and where its running half is.

    The defaults of the attributes are those of a runtime that is only lowered here and measured elsewhere; such a
    runtime defines `name` and `lower`.
    """

    name: ClassVar[str]
    one_kernel_an_op: ClassVar[bool] = False  # nothing folds and nothing fuses: a subclass of `OpByOp`
    keeps_heap: ClassVar[bool] = False  # activations come from the process's heap, which fragments with use
    on_torch_threads: ClassVar[bool] = False  # the threads that run its kernels are torch's own
    may_run_on_cuda: ClassVar[bool] = False  # as well as on the CPU
    runs_fused_attention: ClassVar[bool] = False  # torch's fused attention layers (`FUSED_ATTENTION`) run as one kernel
    session: ClassVar[str] = ""  # the module that runs networks (see `Running`); "" for a runtime only lowered here

    @abstractmethod
    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """The kernels that the runtime makes of a graph.

        Args:
            graph: what was traced. A runtime without `runs_fused_attention` lowers `graph.by_parts or graph`.
            part: the graph is a part of a network, and is lowered as it runs between the other parts.
            lanes: float32 numbers that a vector register of the target holds (`Device.lanes`), by which some
                runtimes lay out data; None for as many as this machine's.
        """

    def prepare(self, module: Any, inputs: Sequence[Any], *, threads: int) -> Session:
        """Make a module ready to run on `threads` threads; compiles or exports it where the runtime does so.

        Raises:
            RuntimeUnavailable: the runtime cannot run networks here.
        """
        return self._running().prepare(module, inputs, threads=threads)

    def environment(self) -> dict[str, str]:
        """Versions and settings that a measurement depends on.

        Raises:
            RuntimeUnavailable: the runtime cannot run networks here.
        """
        return self._running().environment()

    def _running(self) -> Running:
        if not self.session:
            raise RuntimeUnavailable(
                f"runtime {self.name} is only lowered here, so it runs no network: measure where it is installed, and "
                "read the times with `hwcost import`"
            )
        return cast(Running, import_module(self.session))


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


class Running(Protocol):
    """The running half of a runtime: what the module named by `Runtime.session` defines.

    Importing it raises RuntimeUnavailable where the runtime's package, or a tool that it needs, is missing.
    """

    def prepare(self, module: Any, inputs: Sequence[Any], *, threads: int) -> Session:
        """As `Runtime.prepare`."""

    def environment(self) -> dict[str, str]:
        """As `Runtime.environment`."""


# -- for sessions ----------------------------------------------------------------------------------------------

SWITCH = 50e-6  # s; a thread that waited less than this has not been switched away


def unloaded(wall: float, cpu: float) -> float:
    """Time (s) of one thread without its waiting for a CPU, from wall time and the thread's CPU time."""
    return cpu if wall - cpu > SWITCH else wall


def vanishing() -> bool:
    """Whether denormal float32 numbers are flushed to zero on this thread (`measure.process.flush_denormals`)."""
    small = np.full(1, 1e-20, np.float32)
    return not (small * small).any()
