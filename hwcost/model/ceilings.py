"""Ceilings that the measured kernels of a fit beat, and the device with ceilings that they do not.

A ceiling that is too low, as of a device file with a wrong unit, of a slower machine, or of a data sheet that leaves
out a cache, makes every lower bound too long: kernels that were measured would be answered with times that none of them
takes. Measurements are believed before ceilings. So where kernels that make up more than a hundredth of the measured
time beat a ceiling, by more than a measured ceiling may err, it is raised to what all others keep.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwcost.device.ceilings import Ceiling
from hwcost.device.device import Device
from hwcost.measure.arrays import Flat
from hwcost.model.features import CEILING_ERROR, Target
from hwcost.model.rows import rows_of

Array = NDArray[np.float64]

_ALL_BUT = 0.99  # share of the measured time in kernels that a ceiling must bound: clocks err, most on short kernels
_CACHES_ERR = 0.5  # by which a memory time may be too long, since it assumes which cache serves a kernel
_ENOUGH = 10  # measured kernels, from which on a ceiling is judged


class CeilingsBeaten(UserWarning):
    """Measured kernels are faster than the ceilings of the device that they were measured on, as it is described."""


@dataclass(frozen=True)
class Beaten:
    """How measured kernels stand to the ceilings of a device."""

    device: Device
    kernels: int  # measured ones
    faster: int  # those that are faster than the ceilings allow, by more than a measured ceiling may err
    compute: float  # factor by which the compute ceilings must be raised, 1 where they hold
    memory: float  # and those of memory
    kinds: Mapping[str, float]  # and those of single kinds, where the kernels of the kind beat them

    @property
    def share(self) -> float:
        """Share of the measured kernels that are faster than the ceilings allow."""
        return self.faster / self.kernels if self.kernels else 0.0

    @property
    def found(self) -> bool:
        """Whether the ceilings of the whole device are too low, not only those of single kinds of kernel."""
        return self.compute > 1 or self.memory > 1

    def raised(self) -> Device:
        """The device with raised ceilings, each of which says so in its source."""
        device = self.device
        if not self.found and not self.kinds:
            return device
        return device.model_copy(
            update={
                "compute": tuple(_raised(c, self.compute) for c in device.compute),
                "memory": tuple(_raised(m, self.memory) for m in device.memory),
                "kinds": tuple(_raised(k, self.kinds.get(k.kind, 1.0)) for k in device.kinds),
            }
        )

    def __str__(self) -> str:
        parts = {"compute": self.compute, "memory": self.memory}
        said = ", ".join(f"{name} by a factor of {factor:.2g}" for name, factor in parts.items() if factor > 1)
        return (
            f"{self.faster} of {self.kernels} measured kernels are faster than the ceilings of {self.device.name} "
            f"allow ({said}): the fit goes on with ceilings raised so far; calibrate the machine that was measured "
            "(`hwcost calibrate -o device.toml`), or correct its device file, and fit again"
        )


def believed(flat: Flat, target: Target) -> Device:
    """The device of a target, with ceilings raised where measured kernels beat them; a warning says so where they are
    those of the whole device."""
    found = beaten(flat, target)
    if found.found:
        warnings.warn(str(found), CeilingsBeaten, stacklevel=3)  # of who called the fit
    return found.raised()


def beaten(flat: Flat, target: Target) -> Beaten:
    """Compare the measured kernels with the ceilings of their target's device."""
    measured = rows_of(flat, target)
    data, latency = measured.data, measured.latency
    kinds = np.array(data.kinds)[measured.kernel]
    own = {k.kind for k in target.device.kinds if k.runtime == target.runtime}
    at_best, in_memory = (time[measured.kernel] / latency for time in (data.at_best, data.memory_time))
    plain = ~np.isin(kinds, sorted(own))
    chosen = {kind: kinds == kind for kind in sorted(own)}
    of_kinds = {kind: _factor(at_best[rows], latency[rows], CEILING_ERROR) for kind, rows in chosen.items()}
    return Beaten(
        device=target.device,
        kernels=len(latency),
        faster=int((np.maximum(at_best, in_memory) > 1 + CEILING_ERROR).sum()),
        compute=_factor(at_best[plain], latency[plain], CEILING_ERROR),
        memory=_factor(in_memory, latency, _CACHES_ERR),
        kinds={kind: factor for kind, factor in of_kinds.items() if factor > 1},
    )


def _factor(promised: Array, latency: Array, error: float) -> float:
    """By how much a ceiling must be raised to bound kernels.

    Args:
        promised: the time that the ceiling promises, as a share of the measured one, [kernels].
        latency: the measured time (s), by which a kernel counts, [kernels].
        error: by how much the ceiling may err without being raised.
    """
    if len(latency) < _ENOUGH:
        return 1.0
    needed = float(np.quantile(promised, _ALL_BUT, weights=latency, method="inverted_cdf"))
    return needed if needed > 1 + error else 1.0


C = TypeVar("C", bound=Ceiling)


def _raised(ceiling: C, factor: float) -> C:
    if factor == 1:
        return ceiling
    stated = ceiling.measured_source or ceiling.paper_source
    source = f"{stated}; raised {factor:.2g} times by a fit, whose kernels beat it"
    return ceiling.model_copy(update={"measured": ceiling.value * factor, "measured_source": source})
