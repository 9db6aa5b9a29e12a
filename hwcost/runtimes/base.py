"""What a runtime is: software that executes networks. It has two halves.

Lowering    Graph -> Network, the kernels in the order they run. Needs nothing installed but hwcost.
Running     a torch module with its inputs -> Session, which runs the network and times its kernels. Needs the runtime's
            package; this half is a Python module of its own (`Runtime.session`), imported when it is first needed.
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

Between = Callable[[], None]  # called between the inferences of a profile, see `Session.profile`


def nothing() -> None:
    """Do nothing; the default of `between` in `Session.profile`."""


class RuntimeUnavailable(RuntimeError):
    """A runtime cannot run networks here: what it needs is not installed, or hwcost only has its lowering."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A kernel at its place in a network.

    `module` is the path of the torch module that the kernel comes from. `distance` is its reuse distance (byte,
    `hwcost.runtimes.reuse`): what was moved since the largest activation that it reads was written, which decides what
    cache level still holds that. 0 means just written; -1 means that the kernel reads no activation.
    """

    kernel: Kernel
    module: str
    distance: int


@dataclass(frozen=True)
class Network:
    """A lowered network."""

    kernels: tuple[Placed, ...]  # in the order they run
    # What the runtime's overhead grows with: kernels, or, where a runtime also calls ops that are free, all ops that it
    # calls. torch eager counts calls of modules too.
    calls: int
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

    The defaults of the attributes are those of a runtime that hwcost lowers but cannot run, since it is measured
    elsewhere, as on phones. Such a runtime defines `name` and `lower`.
    """

    name: ClassVar[str]
    one_kernel_an_op: ClassVar[bool] = False  # nothing folds and nothing fuses: a subclass of `OpByOp`
    keeps_heap: ClassVar[bool] = False  # activations come from the process's heap, which fragments with use
    on_torch_threads: ClassVar[bool] = False  # the threads that run its kernels are torch's own
    may_run_on_cuda: ClassVar[bool] = False  # as well as on the CPU
    runs_fused_attention: ClassVar[bool] = False  # torch's fused attention layers (`FUSED_ATTENTION`) run as one kernel
    session: ClassVar[str] = ""  # name of the module that runs networks (see `Running`); "" where there is none

    @abstractmethod
    def lower(self, graph: Graph, *, part: bool = False, lanes: int | None = None) -> Network:
        """The kernels that the runtime makes of a graph.

        Args:
            graph: what was traced. A runtime without `runs_fused_attention` lowers `graph.by_parts or graph`.
            part: the graph is a part of a network, and is lowered as it runs between the other parts.
            lanes: how many float32 numbers a vector register of the target holds (`Device.lanes`); the layout of data
                depends on it in some runtimes. None means as many as on this machine.
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

    network: Network  # its kernels are those that `profile` times
    sleeps: bool  # whether the thread that calls `run` may sleep while a device works
    warm_ups: int  # inferences that `profile` runs first, and whose times it does not return

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

SWITCH = 50e-6  # s; where wall and CPU time differ by less, the thread is taken to have kept its CPU


def unloaded(wall: float, cpu: float) -> float:
    """Time (s) that a thread took without waiting for a CPU, from its wall time and its CPU time (both s).

    That is its wall time, or its CPU time where the two differ by more than `SWITCH`.
    """
    return cpu if wall - cpu > SWITCH else wall


def vanishing() -> bool:
    """Whether this thread flushes denormal float32 numbers to zero (as under `measure.process.flush_denormals`)."""
    small = np.full(1, 1e-20, np.float32)
    return not (small * small).any()
