"""Measurements as arrays, for fitting: without an object for every kernel in every network."""

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
    """Measured networks, and one row for each kernel in each network, in the order they run."""

    environment: Environment
    names: tuple[str, ...]  # of the networks
    families: tuple[str, ...]
    latency: Array  # [networks] (s)
    spread: Array  # [networks]
    calls: Array  # [networks]
    kernels: tuple[Kernel, ...]  # distinct, in the order in which they are met
    network: Ints  # [rows], which of the networks
    kernel: Ints  # [rows], which of `kernels`
    distance: Ints  # [rows] reuse distance (byte), as of `hwcost.runtimes.base.Placed`
    time: Array  # [rows] (s)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lone(self) -> NDArray[np.bool_]:
        """Which networks are kernels that were measured by themselves (`NetworkMeasurement.is_lone`), [networks]."""
        lone: NDArray[np.bool_] = (self.calls == 0) & (np.bincount(self.network, minlength=len(self)) == 1)
        return lone

    @classmethod
    def of(cls, measurements: Measurements) -> Flat:
        """The arrays of some measurements."""
        networks, distinct = measurements.networks, _Distinct()
        rows = [(number, m) for number, n in enumerate(networks) for m in n.kernels]
        kernel = [distinct.number(m.kernel) for _, m in rows]
        return cls(
            environment=measurements.environment,
            names=tuple(n.name for n in networks),
            families=tuple(n.family for n in networks),
            latency=np.array([n.timing.latency for n in networks], dtype=float),
            spread=np.array([n.timing.spread for n in networks], dtype=float),
            calls=np.array([n.calls for n in networks], dtype=float),
            kernels=tuple(distinct.kernels),
            network=np.array([number for number, _ in rows], dtype=np.int64),
            kernel=np.array(kernel, dtype=np.int64),
            distance=np.array([m.distance for _, m in rows], dtype=np.int64),
            time=np.array([m.timing.latency for _, m in rows], dtype=float),
        )


class _Distinct:
    """Gives kernels numbers, and equal kernels the same.

    Comparing two kernels takes a look at each of their tensors, and measurements hold the same object hundreds of
    times. So an object that was seen before is found by its identity.
    """

    def __init__(self) -> None:
        self.kernels: list[Kernel] = []  # by number
        self._by_value: dict[Kernel, int] = {}
        self._by_id: dict[int, int] = {}

    def number(self, kernel: Kernel) -> int:
        """Number of a kernel, counted from 0 in the order in which they come; the caller must keep the object alive."""
        number = self._by_id.get(id(kernel))
        if number is None:
            number = self._by_id[id(kernel)] = self._by_value.setdefault(kernel, len(self.kernels))
            if number == len(self.kernels):
                self.kernels.append(kernel)
        return number
