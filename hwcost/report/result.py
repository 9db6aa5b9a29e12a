"""The result of a quickstart, which the page shows. Latencies are in seconds, accuracies are fractions from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hwcost.device.device import Device
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.estimate import Estimate

State = Literal["trained", "rejected", "duplicate"]


class PageError(ValueError):
    """A result from which no page can be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One architecture that the search proposed, with its predicted latency and interval."""

    latency: float
    low: float
    high: float
    state: State  # "rejected": predicted to be over the budget, so never trained; "duplicate": trained before
    accuracy: float | None = None  # None where it was never trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """A trained architecture of the Pareto front, with its predicted and its measured latency."""

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
    """What one run of the quickstart found, and how it was found."""

    device: Device  # this machine, with its measured ceilings
    runtime: str
    threads: int
    space: str  # "tiny-cnn"
    task: str  # "scikit-learn's digits"
    budget: float
    held_out: Accuracy  # of the cost model on networks held out of its fit
    candidates: tuple[Candidate, ...]  # in the order of the search
    winners: tuple[Winner, ...]  # the Pareto front that the search found, measured afterwards
    training_seconds: float  # mean duration of a training
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()  # command lines that make this page again
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
