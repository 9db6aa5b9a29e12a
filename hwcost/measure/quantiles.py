"""What a user meets beside the unloaded latency: a target's typical and tail factors.

    typical = median over networks of median / latency                     (1)
    tail    = median over networks of 95th percentile / latency            (2)

where latency is the low quantile that this project estimates. Both are of the machine as it was during
the campaign: one that served others meanwhile has a longer tail than the same machine at rest. Every visit
waits a moment for a calm CPU before its runs, so that both say rather too little of a machine that is never calm.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwcost.measure.types import MeasurementError, Measurements, Timing

_COLUMNS: Mapping[str, str] = {"low": "low", "typical": "median", "tail": "p95"}
_SPELLINGS: Mapping[str, str] = {
    **{name: name for name in _COLUMNS}, "median": "typical", "0.5": "typical", "p95": "tail", "0.95": "tail",
}  # fmt: skip


def named(quantile: str) -> str:
    """ "low", "typical" or "tail" from any spelling of it.

    Raises:
        MeasurementError: a quantile that is not measured.
    """
    if quantile not in _SPELLINGS:
        raise MeasurementError(f"a quantile must be one of {', '.join(_SPELLINGS)}, but got {quantile!r}")
    return _SPELLINGS[quantile]


def of(timing: Timing, quantile: str) -> float:
    """The low, typical or tail time of one measurement (s)."""
    return timing.quantile(_COLUMNS[named(quantile)])


def measured(timing: Timing, quantile: str, what: str) -> float:
    """As `of`, of a network called `what`.

    Raises:
        MeasurementError: it was timed in one round, or imported, so that nobody knows more than its latency.
    """
    if named(quantile) != "low" and timing.rounds <= 1:
        raise MeasurementError(
            f"the {named(quantile)} latency needs several rounds, but {what} has {timing.rounds}; "
            "measure it with `hwcost measure --rounds 4`"
        )
    return of(timing, quantile)


def factor(measurements: Measurements, quantile: str) -> float:
    """Eq. (1) or (2), 1 for "low"; networks without rounds, whose quantiles nobody knows, do not count.

    Raises:
        MeasurementError: no such quantile, or no network tells it.
    """
    ratios = [of(n.timing, quantile) / n.timing.latency for n in measurements.networks if n.timing.rounds > 1]
    if not ratios:
        raise MeasurementError(
            f"the {named(quantile)} latency follows from networks measured in several rounds, but there is none; "
            "measure some with `hwcost measure`"
        )
    return float(np.median(ratios))
