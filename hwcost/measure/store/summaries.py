"""Timings without their rounds: as the columns of a store's row, and to the precision they are kept in.

The time of one kernel in context is known to a few percent. Storing it to 16 digits would make files
of measurements three times as large and say nothing, so those that are read from rounds keep 12 binary
digits of the latency (an error below 0.013 %), 8 of median and 95th percentile (0.2 %) and 5 of the
spread (2 %). Times of whole networks keep every digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hwcost.measure.types import Timing

_LATENCY, _QUANTILES, _SPREAD = 12, 8, 5  # binary digits after the first


def rounded(timing: Timing) -> Timing:
    """A kernel's timing to the precision that is kept; rounding twice changes nothing."""
    return Timing(
        latency=_round(timing.latency, _LATENCY),
        median=_round(timing.median, _QUANTILES),
        p95=_round(timing.p95, _QUANTILES),
        spread=_round(timing.spread, _SPREAD),
        rounds=timing.rounds,
        flags=timing.flags,
    )


def _round(value: float, digits: int) -> float:
    if not math.isfinite(value):
        return value
    mantissa, exponent = math.frexp(value)  # 0.5 <= |mantissa| < 1
    return math.ldexp(round(mantissa * 2 ** (digits + 1)), exponent - digits - 1)


def pack(timings: Sequence[Timing]) -> dict[str, Any]:
    """Columns of the summary table: times, rounds, flags."""
    times = np.array([(t.latency, t.median, t.p95, t.spread) for t in timings], "<f8")
    return {
        "times": times.tobytes(),
        "rounds": np.array([t.rounds for t in timings], "<i4").tobytes(),
        "flags": json.dumps([list(t.flags) for t in timings]),
    }


def unpack(times: bytes, rounds: bytes, flags: str) -> list[Timing]:
    """What `pack` packed."""
    rows = np.frombuffer(times, "<f8").reshape(-1, 4).tolist()
    return [
        Timing(latency=latency, median=median, p95=p95, spread=spread, rounds=n, flags=tuple(f))
        for (latency, median, p95, spread), n, f in zip(
            rows, np.frombuffer(rounds, "<i4").tolist(), json.loads(flags), strict=True
        )
    ]
