"""What a search asks of a user's functions and models.

    build(trial) -> architecture               cheap: asks the trial for its parameters, trains nothing
    evaluate(architecture, trial) -> metric    the training
    model.estimate(architecture, inputs)       the predicted latency

An architecture is an nn.Module, or whatever the model's `estimate` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Build = Callable[[Any], Any]  # the argument is an optuna.Trial, or a DetachedTrial in its place
Evaluate = Callable[[Any, Any], float]


class Estimate(Protocol):
    """A predicted latency with its interval, in seconds.

    An estimate may have more attributes: `confidence` (coverage of the interval), `bound`, `support`, `memory_share`,
    `intensity`, `cost` or `flops` and `bytes`, `peak_memory`, `params`, `blocks`, `by_depth` and `kernels`, as those
    of `CostModel` and `LatencyTable` have. What an estimate lacks is left out of trials and plots.
    """

    @property
    def latency(self) -> float:
        """Seconds."""

    @property
    def low(self) -> float:
        """Lower end of the interval, in seconds."""

    @property
    def high(self) -> float:
        """Upper end of the interval, in seconds."""


class LatencyModel(Protocol):
    """A `CostModel`, a `LatencyTable`, or a model of the user's own."""

    def estimate(self, architecture: Any, inputs: Any, /) -> Estimate:
        """The latency of an architecture for example inputs, which are None where none are known."""
