"""What the page tells: the result of a search on one machine. Latencies in seconds, accuracies as fractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hwcost.device.device import Device
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.estimate import Estimate

State = Literal["trained", "rejected", "duplicate"]


class PageError(ValueError):
    """A result that no page can be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One proposal of the search, with its predicted latency."""

    latency: float
    low: float
    high: float
    state: State  # "rejected": over the budget by its prediction, never trained; "duplicate": known already
    accuracy: float | None = None  # None: never trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """A trained architecture of the front, and what the machine said to its prediction."""

    name: str  # "trial 41"
    params: Mapping[str, object]
    accuracy: float
    estimate: Estimate
    measured: float
    spread: float  # of `measured`: relative half-width of a 90 % interval

    @property
    def comparison(self) -> Comparison:
        """Predicted against measured."""
        e = self.estimate
        return Comparison(
            target=self.name, predicted=e.latency, low=e.low, high=e.high, measured=self.measured, spread=self.spread
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickstartResult:
    """Everything on the page."""

    device: Device  # this machine, with its measured ceilings
    runtime: str
    threads: int
    space: str  # "tiny-cnn"
    task: str  # "scikit-learn's digits"
    budget: float
    held_out: Accuracy  # of the cost model, on networks held out of its fit
    candidates: tuple[Candidate, ...]  # in the order of the search
    winners: tuple[Winner, ...]  # the front found, verified on the machine
    training_seconds: float  # of one training, mean
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()  # that make this page again
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds of each step
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.winners:
            raise PageError(
                "a page needs at least one verified architecture, but got none; raise the budget or train more"
            )

    @property
    def best(self) -> Winner:
        """The most accurate architecture within the budget, or the fastest where none fits."""
        fitting = [w for w in self.winners if w.estimate.latency <= self.budget]
        if fitting:
            return max(fitting, key=lambda w: w.accuracy)
        return min(self.winners, key=lambda w: w.estimate.latency)

    @property
    def verification(self) -> Accuracy:
        """The winners, predicted against measured."""
        return Accuracy(tuple(w.comparison for w in self.winners))

    def count(self, state: State) -> int:
        """Candidates in that state."""
        return sum(c.state == state for c in self.candidates)
