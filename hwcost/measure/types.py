"""Measurements: kernels and networks with their times, and the environment in which they were taken.

A *round* is one visit to a network: a few runs of the whole and a few with the time of each kernel.
Rounds of many networks are interleaved, so that the drift of the machine falls on all of them.
All times are in seconds. `spread` is always the relative half-width of a 90 % interval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hwcost.kernel import Kernel

__all__ = [
    "Environment",
    "Item",
    "Measurement",
    "MeasurementError",
    "Measurements",
    "NetworkMeasurement",
    "Timing",
    "lone",
]


class MeasurementError(ValueError):
    """Measurements that cannot be taken, read or merged; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a kernel or a network takes (s)."""

    latency: float  # a low quantile over rounds: the unloaded time, this project's estimate
    median: float
    p95: float
    spread: float  # relative half-width of a 90 % interval of `latency`
    rounds: int
    flags: tuple[str, ...] = ()  # "unstable": spread above what was asked for; "disturbed": most rounds were

    def quantile(self, name: str) -> float:
        """`latency` for "low", else "median" or "p95" (s).

        Raises:
            MeasurementError: another name.
        """
        known = {"low": self.latency, "median": self.median, "p95": self.p95}
        if name not in known:
            raise MeasurementError(f"a quantile must be one of {', '.join(known)}, but got {name!r}")
        return known[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A kernel in context, with its time."""

    kernel: Kernel
    timing: Timing
    module: str  # path of the module it belongs to
    distance: int  # bytes since its largest activation was written, as in runtimes.Placed


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMeasurement:
    """A whole network with its time, and its kernels in the order they run."""

    name: str  # unique in a store and target
    family: str  # what a hold-out must keep together
    spec: Mapping[str, Any]  # JSON from which it can be built again
    timing: Timing
    kernels: tuple[Measurement, ...]
    calls: int  # that the runtime makes, as in runtimes.Network

    @property
    def is_lone(self) -> bool:
        """Whether it is one kernel that was measured by itself, so that it says nothing of a network's overhead."""
        return self.calls == 0 and len(self.kernels) == 1


def lone(name: str, family: str, kernel: Kernel, timing: Timing, *, distance: int = 0) -> NetworkMeasurement:
    """A kernel that was measured by itself, in no network: what other people's files mostly hold."""
    inside = Measurement(kernel=kernel, timing=timing, module="", distance=distance)
    return NetworkMeasurement(name=name, family=family, spec={}, timing=timing, kernels=(inside,), calls=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A network to be measured."""

    name: str
    family: str
    spec: Mapping[str, Any]
    build: Callable[[], tuple[Any, tuple[Any, ...]]]  # -> (module, inputs); meta tensors are filled later


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where and how measurements were taken.

    Two environments are the same where every field but `host` is: measurements of several equal
    hosts belong together, those of another CPU, version, thread count or governor do not.
    """

    cpu: str  # model name
    cores: int
    runtime: str
    threads: int
    dtype: str = "float32"
    pinned: bool = False  # threads bound to cores
    governor: str = "unknown"  # frequency governor, where the system shows it
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Identity: 20 hex digits, equal for equal environments."""
        return hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()[:20]

    def _identity(self) -> dict[str, Any]:
        return {k: v for k, v in self.to_json().items() if k != "host"}

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `Environment.from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Environment:
        """Read what `to_json` wrote.

        Raises:
            MeasurementError: a key is missing or unknown.
        """
        try:
            return cls(**data)
        except TypeError as error:
            raise MeasurementError(f"an environment that cannot be read: {error}") from error

    def flat(self) -> dict[str, Any]:
        """Every field that tells environments apart, of `versions` each by itself."""
        identity = self._identity()
        versions = identity.pop("versions")
        return identity | {f"versions.{name}": version for name, version in versions.items()}

    def differences(self, other: Environment) -> dict[str, tuple[Any, Any]]:
        """Keys that tell two environments apart, each with (mine, theirs)."""
        mine, theirs = self.flat(), other.flat()
        keys = sorted(mine.keys() | theirs.keys())
        return {k: (mine.get(k), theirs.get(k)) for k in keys if mine.get(k) != theirs.get(k)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Networks measured in one environment: what a store gives and a cost model is fitted on."""

    environment: Environment
    networks: tuple[NetworkMeasurement, ...]

    def __len__(self) -> int:
        return len(self.networks)

    def known_to(self, spread: float) -> Measurements:
        """Those networks whose latency has at most this spread, relative and to either side."""
        return replace(self, networks=tuple(n for n in self.networks if n.timing.spread <= spread))

    def __add__(self, other: object) -> Measurements:
        """Both together.

        Raises:
            MeasurementError: they come from different environments; says which keys differ.
        """
        if not isinstance(other, Measurements):
            return NotImplemented
        different = self.environment.differences(other.environment)
        if different:
            said = "; ".join(
                f"{key} is {mine!r} here and {theirs!r} there" for key, (mine, theirs) in different.items()
            )
            raise MeasurementError(f"measurements of different environments must not be merged: {said}")
        return Measurements(environment=self.environment, networks=(*self.networks, *other.networks))
