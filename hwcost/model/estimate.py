"""Estimates: what a cost model says of a network, its blocks and its kernels. Values only.

Every latency comes with an interval at a stated confidence. Errors of different kernels are partly
the same error (a machine that is faster than believed is faster on all of them), so the relative
error of a sum of kernels with shares w_i has three parts,

    s^2 = s_common^2 + (sum_i w_i s_shared,i)^2 + sum_i w_i^2 s_i^2,       (1)

where s_shared is what kernels that were never measured themselves err together, equal kernels share
one error s_i, and the interval is t * exp(+-z s). s_i is what a sum bears of a kernel's error; by itself a
measured kind errs more (`hwcost.model.fit.Errors.alone`), since clocks that charge one too much charge others too
little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from hwcost.cost import Cost, total
from hwcost.graph import block_name

Bound = Literal["compute", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEstimate:
    """One kernel where it stands; times in seconds."""

    name: str  # "conv2d+relu"
    kind: str
    module: str
    latency: float
    low: float
    high: float
    roofline: float
    bound: Bound
    cost: Cost
    supported: bool  # inside the range that was measured
    sigma: float  # standard error of log latency, as a network bears it; the interval is that of a kernel by itself
    shared: float = 0.0  # error that it has together with all kernels that were not measured themselves
    key: str  # equal kernels have equal keys
    label: str = ""  # the kind, told apart by its groups, as "conv2d/depthwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEstimate:
    """The kernels below one module path, with their part of the overhead; times in seconds."""

    name: str
    latency: float
    low: float
    high: float
    bound: Bound
    cost: Cost
    share: float  # of the network's latency


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Latency of a network on a target, in seconds."""

    latency: float
    low: float
    high: float
    confidence: float  # coverage of [low, high] that was calibrated; 0: a bound, no interval is known
    overhead: float  # part of the latency that no kernel explains
    kernels: tuple[KernelEstimate, ...]
    common: float  # s_common of eq. (1)
    z: float
    notes: tuple[str, ...] = ()
    depth: int = field(default=2)

    @classmethod
    def later(cls, kernels: Callable[[], tuple[KernelEstimate, ...]], like: Estimate, **values: Any) -> Estimate:
        """An estimate that shares what `like` says besides `values`, and makes its kernels when they are
        first asked for: a search asks for the latency of thousands of networks and for the kernels of few."""
        new = object.__new__(cls)
        shared = {name: like.__dict__[name] for name in cls.__dataclass_fields__ if name != "kernels"}
        new.__dict__.update(shared | values, _make=kernels)  # nothing that `like` has derived from its kernels
        return new

    def __getattr__(self, name: str) -> Any:
        make = self.__dict__.get("_make") if name == "kernels" else None
        if make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.__dict__["kernels"] = made = make()
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def cost(self) -> Cost:
        """Work and traffic of all kernels."""
        return total(k.cost for k in self.kernels)

    @cached_property
    def memory_share(self) -> float:
        """Share of the kernels' time that is spent memory-bound."""
        return self._share(k.latency for k in self.kernels if k.bound == "memory")

    @property
    def bound(self) -> Bound:
        """What most of the time is bound by."""
        return "memory" if self.memory_share >= 0.5 else "compute"

    @property
    def support(self) -> float:
        """Share of the latency that comes from kernels inside the measured range."""
        return self._share(k.latency for k in self.kernels if k.supported)

    def _share(self, latencies: Iterable[float]) -> float:
        every = sum(k.latency for k in self.kernels)
        return sum(latencies) / every if every else 0.0

    @property
    def blocks(self) -> dict[str, BlockEstimate]:
        """By module path, cut to `depth` parts."""
        return self.by_depth(self.depth)

    def by_depth(self, depth: int) -> dict[str, BlockEstimate]:
        """By module path, cut to `depth` parts; the overhead is spread over the kernels evenly."""
        groups: dict[str, list[KernelEstimate]] = {}
        for kernel in self.kernels:
            groups.setdefault(block_name(kernel.module, depth), []).append(kernel)
        each = self.overhead / len(self.kernels) if self.kernels else 0.0
        return {name: self._block(name, members, each) for name, members in groups.items()}

    def _block(self, name: str, members: list[KernelEstimate], overhead: float) -> BlockEstimate:
        latency = sum(k.latency for k in members) + overhead * len(members)
        spread = math.exp(self.z * relative_error(members, self.common))
        memory = sum(k.latency for k in members if k.bound == "memory")
        return BlockEstimate(
            name=name,
            latency=latency,
            low=latency / spread,
            high=latency * spread,
            bound="memory" if 2 * memory >= sum(k.latency for k in members) else "compute",
            cost=total(k.cost for k in members),
            share=latency / self.latency if self.latency else 0.0,
        )


def relative_error(kernels: Iterable[KernelEstimate], common: float) -> float:
    """Standard error of the log of a sum of kernels, eq. (1)."""
    by_key: dict[str, float] = {}
    latency = shared = 0.0
    for k in kernels:
        shared += k.latency * k.shared
        by_key[k.key] = by_key.get(k.key, 0.0) + k.latency * k.sigma
        latency += k.latency
    own = (shared * shared + sum(x * x for x in by_key.values())) / (latency * latency) if latency else 0.0
    return math.sqrt(common * common + own)
