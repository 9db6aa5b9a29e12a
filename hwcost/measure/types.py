"""Measurements: kernels and networks with their times, and the environment in which they were taken.

All times are in seconds. `spread` is always the relative half-width of a 90 % interval. `hwcost.measure` explains the
other words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hwcost.kernel import Kernel


class MeasurementError(ValueError):
    """Measurements that cannot be taken, read or merged; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a kernel or a network takes (s)."""

    latency: float  # a low quantile over rounds: the time when nothing else is in the way
    median: float  # of all runs
    p95: float  # 95th percentile of all runs
    spread: float  # of `latency`
    rounds: int  # number of rounds that `latency` is taken from; 1 where it is not known
    flags: tuple[str, ...] = ()  # "unstable": spread above the one asked for; "disturbed": most rounds were disturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A kernel where it stands in a network, with its time."""

    kernel: Kernel
    timing: Timing
    module: str  # dotted path of the `nn.Module` it belongs to
    distance: int  # reuse distance (byte), as of `hwcost.runtimes.base.Placed`


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMeasurement:
    """A whole network with its time, and its kernels in the order they run."""

    name: str  # unique in a store and target
    family: str  # similar networks share one: a test of the model holds out all of a family, or none
    spec: Mapping[str, Any]  # JSON from which `hwcost.measure.items.rebuild` makes it
    timing: Timing
    kernels: tuple[Measurement, ...]
    calls: int  # calls that the runtime makes in one run (`hwcost.runtimes.base.Network`)

    @property
    def is_lone(self) -> bool:
        """Whether it is a kernel that was measured by itself, which says nothing of the overhead of a network."""
        return self.calls == 0 and len(self.kernels) == 1


def lone(name: str, family: str, kernel: Kernel, timing: Timing, *, distance: int = 0) -> NetworkMeasurement:
    """A kernel that was measured by itself, as a network of one kernel; so are most measurements of other projects.

    `distance` is its reuse distance (byte).
    """
    inside = Measurement(kernel=kernel, timing=timing, module="", distance=distance)
    return NetworkMeasurement(name=name, family=family, spec={}, timing=timing, kernels=(inside,), calls=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A network to be measured; `name`, `family` and `spec` as in `NetworkMeasurement`."""

    name: str
    family: str
    spec: Mapping[str, Any]
    build: Callable[[], tuple[Any, tuple[Any, ...]]]  # -> (module, inputs), which may be on the meta device


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where and how measurements were taken.

    Environments are equal when all fields but `host` are: measurements from several hosts of one kind belong together,
    those with another CPU, version, number of threads or frequency governor do not.
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
        """20 hex digits, equal for equal environments."""
        return hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()[:20]

    def _identity(self) -> dict[str, Any]:
        return {k: v for k, v in self.to_json().items() if k != "host"}

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, which `Environment.from_json` reads."""
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
        """Every field that is compared, by name; those of `versions` as "versions.NAME"."""
        identity = self._identity()
        versions = identity.pop("versions")
        return identity | {f"versions.{name}": version for name, version in versions.items()}

    def differences(self, other: Environment) -> dict[str, tuple[Any, Any]]:
        """The fields in which two environments differ, named as in `flat`: name -> (value here, value of `other`)."""
        mine, theirs = self.flat(), other.flat()
        keys = sorted(mine.keys() | theirs.keys())
        return {k: (mine.get(k), theirs.get(k)) for k in keys if mine.get(k) != theirs.get(k)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Networks measured in one environment; a store gives them and a cost model is fitted on them."""

    environment: Environment
    networks: tuple[NetworkMeasurement, ...]

    def __len__(self) -> int:
        return len(self.networks)

    def within_spread(self, spread: float) -> Measurements:
        """Only the networks whose latency has at most this spread."""
        return replace(self, networks=tuple(n for n in self.networks if n.timing.spread <= spread))

    def __add__(self, other: object) -> Measurements:
        """The networks of both.

        Raises:
            MeasurementError: their environments differ; the message says in what.
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
