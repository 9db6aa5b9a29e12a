"""Measurements as arrays: what a fit needs of them, without an object for every kernel in every network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwcost.kernel import Kernel
from hwcost.measure.types import Environment, Measurements

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Flat:
    """Networks, and rows: each kernel in each network, in the order they run."""

    environment: Environment
    names: tuple[str, ...]  # of the networks
    families: tuple[str, ...]
    latency: Array  # [networks] (s)
    spread: Array  # [networks]
    calls: Array  # [networks]
    kernels: tuple[Kernel, ...]  # distinct, in the order in which they are met
    network: Ints  # [rows]
    kernel: Ints  # [rows], which of `kernels`
    distance: Ints  # [rows] (byte), as in runtimes.Placed
    time: Array  # [rows] (s)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lone(self) -> NDArray[np.bool_]:
        """[networks] kernels that were measured by themselves (`NetworkMeasurement.is_lone`)."""
        lone: NDArray[np.bool_] = (self.calls == 0) & (np.bincount(self.network, minlength=len(self)) == 1)
        return lone

    @classmethod
    def of(cls, measurements: Measurements) -> Flat:
        """Of measurements at hand."""
        networks, numbered = measurements.networks, _Numbered()
        rows = [(number, m) for number, n in enumerate(networks) for m in n.kernels]
        kernel = [numbered.number(m.kernel) for _, m in rows]
        return cls(
            measurements.environment,
            tuple(n.name for n in networks),
            tuple(n.family for n in networks),
            np.array([n.timing.latency for n in networks], dtype=float),
            np.array([n.timing.spread for n in networks], dtype=float),
            np.array([n.calls for n in networks], dtype=float),
            tuple(numbered.distinct),
            np.array([number for number, _ in rows], dtype=np.int64),
            np.array(kernel, dtype=np.int64),
            np.array([m.distance for _, m in rows], dtype=np.int64),
            np.array([m.timing.latency for _, m in rows], dtype=float),
        )


class _Numbered:
    """Kernels by value. One that is the same object is not looked at again: two are compared tensor by tensor, and
    measurements hold each hundreds of times."""

    def __init__(self) -> None:
        self.distinct: list[Kernel] = []
        self._by_value: dict[Kernel, int] = {}
        self._by_id: dict[int, int] = {}

    def number(self, kernel: Kernel) -> int:
        """Of the kernel, counted from 0 as they come; whoever calls keeps the kernel alive."""
        found = self._by_id.get(id(kernel))
        if found is None:
            found = self._by_id[id(kernel)] = self._by_value.setdefault(kernel, len(self.distinct))
            if found == len(self.distinct):
                self.distinct.append(kernel)
        return found
