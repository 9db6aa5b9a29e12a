"""Timings without their rounds: the columns of a summary, and how many digits of a kernel's timing are kept.

The time of a kernel in context is known to a few percent. Keeping 16 digits would make files of measurements three
times as large to no use. So the timings of kernels are rounded when they are computed from rounds: to 12 binary digits
of the latency (an error below 0.013 %), 8 of median and 95th percentile (0.2 %) and 5 of the spread (2 %). Timings of
whole networks keep all digits.
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
    """A kernel's timing, rounded; rounding it again changes nothing."""
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
    """The columns `times`, `rounds` and `flags` of the summary table."""
    times = np.array([(t.latency, t.median, t.p95, t.spread) for t in timings], "<f8")
    return {
        "times": times.tobytes(),
        "rounds": np.array([t.rounds for t in timings], "<i4").tobytes(),
        "flags": json.dumps([list(t.flags) for t in timings]),
    }


def unpack(times: bytes, rounds: bytes, flags: str) -> list[Timing]:
    """Timings from the columns that `pack` made."""
    rows = np.frombuffer(times, "<f8").reshape(-1, 4).tolist()
    return [
        Timing(latency=latency, median=median, p95=p95, spread=spread, rounds=n, flags=tuple(f))
        for (latency, median, p95, spread), n, f in zip(
            rows, np.frombuffer(rounds, "<i4").tolist(), json.loads(flags), strict=True
        )
    ]
