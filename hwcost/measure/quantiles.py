"""Which time of a network is meant: the unloaded latency, or what a user of a busy machine meets.

    low      the latency, a low quantile over rounds: nothing else is in the way
    typical  the median over all runs
    tail     the 95th percentile over all runs

A target's factor from the latency to one of the others is the median over its networks,

    factor = median over networks of (median or 95th percentile) / latency.                (1)

It describes the machine as it was during the campaign: one that was busy has a longer tail than the same machine at
rest. Since each visit waits a moment for a calm CPU, the factor is rather too small for a machine that is never calm.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwcost.measure.types import MeasurementError, Measurements, Timing

_SPELLINGS: Mapping[str, str] = {
    "low": "low",
    "typical": "typical",
    "tail": "tail",
    "median": "typical",
    "0.5": "typical",
    "p95": "tail",
    "0.95": "tail",
}


def quantile_name(quantile: str) -> str:
    """ "low", "typical" or "tail" from any spelling of it.

    Raises:
        MeasurementError: a quantile that is not measured.
    """
    if quantile not in _SPELLINGS:
        raise MeasurementError(f"a quantile must be one of {', '.join(_SPELLINGS)}, but got {quantile!r}")
    return _SPELLINGS[quantile]


def time_of(timing: Timing, quantile: str) -> float:
    """The low, typical or tail time of one measurement (s).

    Raises:
        MeasurementError: a quantile that is not measured.
    """
    return {"low": timing.latency, "typical": timing.median, "tail": timing.p95}[quantile_name(quantile)]


def measured_time(timing: Timing, quantile: str, network: str) -> float:
    """As `time_of`, for a network of that name.

    Raises:
        MeasurementError: the network was timed in one round or imported, so that only its latency is known.
    """
    if quantile_name(quantile) != "low" and timing.rounds <= 1:
        raise MeasurementError(
            f"the {quantile_name(quantile)} latency needs several rounds, but {network} has {timing.rounds}; "
            "measure it with `hwcost measure --rounds 4`"
        )
    return time_of(timing, quantile)


def quantile_factor(measurements: Measurements, quantile: str) -> float:
    """Eq. (1), 1 for "low"; networks that were timed in one round or imported do not count.

    Raises:
        MeasurementError: no such quantile, or no network was timed in several rounds.
    """
    ratios = [time_of(n.timing, quantile) / n.timing.latency for n in measurements.networks if n.timing.rounds > 1]
    if not ratios:
        raise MeasurementError(
            f"the {quantile_name(quantile)} latency follows from networks measured in several rounds, but there is "
            "none; measure some with `hwcost measure`"
        )
    return float(np.median(ratios))
