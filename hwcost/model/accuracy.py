"""Predicted against measured latency: one comparison for each network, and figures over many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwcost.measure.quantiles import measured_time
from hwcost.measure.types import Timing
from hwcost.model.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One network; times in seconds."""

    target: str  # what the network is called in a report: its name or its family
    predicted: float
    low: float  # of the interval that the estimate states
    high: float
    measured: float
    spread: float  # of the measurement: relative half-width of a 90 % interval of `measured`

    @classmethod
    def of(cls, target: str, estimate: Estimate, timing: Timing, quantile: str = "low") -> Comparison:
        """Compare an estimate with a measurement.

        Args:
            target: what the network is called in a report.
            estimate: what was predicted.
            timing: what was measured.
            quantile: "low" for the latency of an unloaded machine, "typical" for the median, "tail" for the 95th
                percentile. `spread` is that of "low" in each case, the only one known.

        Raises:
            MeasurementError: a quantile of what was timed in one round only, or imported without.
        """
        return cls(
            target=target, predicted=estimate.latency, low=estimate.low, high=estimate.high,
            measured=measured_time(timing, quantile, target), spread=timing.spread,
        )  # fmt: skip

    @property
    def error(self) -> float:
        """Relative error of the prediction, signed."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Figures over many networks. Errors, spreads and shares are fractions (0.1 is 10 %), NaN without any network."""

    networks: tuple[Comparison, ...]

    def within(self, bound: float) -> float:
        """Share of networks whose error is at most `bound`."""
        return float(np.mean(np.abs(self._errors()) <= bound)) if self.networks else float("nan")

    def within_clock(self, bound: float) -> float:
        """Share of networks whose error is at most `bound`, or at most the spread of their measurement where that is
        larger."""
        inside = [abs(n.error) <= max(bound, n.spread) for n in self.networks]
        return float(np.mean(inside)) if inside else float("nan")

    def wider_clock(self, bound: float) -> float:
        """Share of networks whose measurement has a spread above `bound`."""
        return float(np.mean([n.spread > bound for n in self.networks])) if self.networks else float("nan")

    @property
    def mape(self) -> float:
        """Mean absolute relative error."""
        return float(np.mean(np.abs(self._errors()))) if self.networks else float("nan")

    @property
    def shift(self) -> float:
        """Median of measured / predicted, less 1: the error that networks have in common, as when all of them were
        measured while the machine was busy."""
        return float(np.median([n.measured / n.predicted for n in self.networks])) - 1.0 if self.networks else math.nan

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured; NaN for fewer than three networks."""
        if len(self.networks) < 3:
            return float("nan")
        from scipy.stats import spearmanr  # here, since it takes most of a second to import

        result = spearmanr([n.predicted for n in self.networks], [n.measured for n in self.networks])
        return float(result.statistic)

    @property
    def coverage_of_interval(self) -> float:
        """Share of measured values inside the stated interval."""
        inside = [n.low <= n.measured <= n.high for n in self.networks]
        return float(np.mean(inside)) if inside else float("nan")

    @property
    def clock(self) -> float:
        """Median spread of the measurements: errors below it cannot be told from noise."""
        return float(np.median([n.spread for n in self.networks])) if self.networks else float("nan")

    @property
    def width(self) -> float:
        """Median relative half-width of the stated intervals."""
        widths = [(n.high - n.low) / 2 / n.predicted for n in self.networks]
        return float(np.median(widths)) if widths else float("nan")

    def _errors(self) -> Sequence[float]:
        return [n.error for n in self.networks]
