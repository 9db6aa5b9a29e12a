"""Estimates: what a cost model says of a network, its blocks and its kernels. Values only.

Every latency comes with an interval at a stated confidence; `hwcost.model.intervals` says what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np

from hwcost.cost import Cost, total
from hwcost.graph import block_name
from hwcost.model.intervals import Errors, interval_of, parts_of_sums

Bound = Literal["compute", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEstimate:
    """One kernel where it stands; times in seconds."""

    name: str  # "conv2d+relu"
    kind: str
    module: str  # path of the module that it belongs to
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


class KernelEstimates(Sequence[KernelEstimate]):
    """The kernels of a network, made when they are first looked at.

    A search asks for the latencies of thousands of networks, and for the kernels of few.
    """

    def __init__(self, make: Callable[[], tuple[KernelEstimate, ...]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> tuple[KernelEstimate, ...]:
        return self._make()

    @overload
    def __getitem__(self, index: int) -> KernelEstimate: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[KernelEstimate, ...]: ...
    def __getitem__(self, index: int | slice) -> KernelEstimate | tuple[KernelEstimate, ...]:
        return self._made[index]

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[KernelEstimate]:
        return iter(self._made)

    def __eq__(self, other: object) -> bool:
        return self._made == (other._made if isinstance(other, KernelEstimates) else other)

    def __hash__(self) -> int:
        return hash(self._made)

    def __repr__(self) -> str:
        return repr(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._made,)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEstimate:
    """The kernels below one module path, with their part of the whole network's overhead; times in seconds."""

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
    kernels: Sequence[KernelEstimate]
    common: float  # error that all kernels share (`hwcost.model.intervals`)
    z: float  # half-width of the interval in standard errors
    notes: tuple[str, ...] = ()  # what a person should know besides, as sentences
    depth: int = 2  # parts of a module path that `blocks` tells apart

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
        """By module path, cut to `depth` parts; the overhead is spread evenly over the kernels."""
        groups: dict[str, list[int]] = {}
        for number, kernel in enumerate(self.kernels):
            groups.setdefault(block_name(kernel.module, depth), []).append(number)
        each = self.overhead / len(self.kernels) if self.kernels else 0.0
        spreads = self._spreads(list(groups.values()))
        members = ([self.kernels[i] for i in numbers] for numbers in groups.values())
        blocks = zip(groups, members, spreads, strict=True)
        return {name: self._block(name, kernels, each, spread) for name, kernels, spread in blocks}

    def _spreads(self, groups: Sequence[Sequence[int]]) -> list[float]:
        """Factor between the latency of each group of kernels and an end of its interval."""
        order = [number for group in groups for number in group]
        which = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        alike: dict[str, int] = {}
        same = np.array([alike.setdefault(self.kernels[i].key, len(alike)) for i in order], dtype=np.int64)
        numbers = np.array([(k.latency, k.sigma, k.shared) for k in (self.kernels[i] for i in order)], dtype=float)
        time, sigma, shared = numbers.reshape(-1, 3).T
        parts = parts_of_sums(which, same, time, sigma, shared, len(groups))
        ends = interval_of(np.ones(len(groups)), Errors(common=self.common, z=self.z), *parts)[1]
        return [float(end) for end in ends]

    def _block(self, name: str, kernels: list[KernelEstimate], overhead: float, spread: float) -> BlockEstimate:
        ran = sum(k.latency for k in kernels)
        latency = ran + overhead * len(kernels)
        return BlockEstimate(
            name=name,
            latency=latency,
            low=latency / spread,
            high=latency * spread,
            bound="memory" if 2 * sum(k.latency for k in kernels if k.bound == "memory") >= ran else "compute",
            cost=total(k.cost for k in kernels),
            share=latency / self.latency if self.latency else 0.0,
        )
