"""Ways of trading a metric m against a latency t with target T: one number that a single-objective study optimises.

With the relative latency r = t / T:

    mnas-soft       m * r^w                          w = -0.07           (1)  M. Tan et al., MnasNet, CVPR 2019, eq. 2
    mnas-hard       m            where r <= 1
                    m * r^w      elsewhere           w = -1              (2)  the same, alpha = 0, beta = -1
    tunas-absolute  m + w * |r - 1|                  w = -0.07           (3)  G. Bender et al., TuNAS, CVPR 2020
    one-sided       m + w * max(r - 1, 0)            w = -1              (4)
    linear          m + w * r                        w = -0.07           (5)  a Lagrangian with a fixed multiplier

(1) to (5) are written for a metric that is maximised and lies near 1, such as an accuracy in 0..1. For a
minimised metric the additive forms (3) to (5) subtract the penalty instead of adding it; the
multiplicative ones have no meaning there, since a factor below 1 would reward what is slow, and refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

Direction = Literal["maximize", "minimize"]
Penalty = Callable[[float, float, float], float]  # (metric, r, weight) -> score of a maximised metric


class PenaltyError(ValueError):
    """A penalty that does not exist, or a metric that it has no meaning for."""


def mnas_soft(metric: float, ratio: float, weight: float = -0.07) -> float:
    """Eq. (1)."""
    return float(metric * ratio**weight)


def mnas_hard(metric: float, ratio: float, weight: float = -1.0) -> float:
    """Eq. (2)."""
    return float(metric * max(ratio, 1.0) ** weight)


def tunas_absolute(metric: float, ratio: float, weight: float = -0.07) -> float:
    """Eq. (3)."""
    return metric + weight * abs(ratio - 1.0)


def one_sided(metric: float, ratio: float, weight: float = -1.0) -> float:
    """Eq. (4)."""
    return metric + weight * max(ratio - 1.0, 0.0)


def linear(metric: float, ratio: float, weight: float = -0.07) -> float:
    """Eq. (5)."""
    return metric + weight * ratio


MULTIPLICATIVE: Mapping[str, Penalty] = {"mnas-soft": mnas_soft, "mnas-hard": mnas_hard}
ADDITIVE: Mapping[str, Penalty] = {"tunas-absolute": tunas_absolute, "one-sided": one_sided, "linear": linear}
WEIGHTS: Mapping[str, float] = {
    "mnas-soft": -0.07,
    "mnas-hard": -1.0,
    "tunas-absolute": -0.07,
    "one-sided": -1.0,
    "linear": -0.07,
}


def check(form: str, direction: Direction, weight: float | None) -> None:
    """Raise a PenaltyError where `form` has no meaning for the metric, or the weight rewards slowness."""
    if form in MULTIPLICATIVE and direction == "minimize":
        raise PenaltyError(
            f"form {form!r} multiplies the metric and needs one that is maximised; for a minimised metric use "
            f"{', '.join(map(repr, ADDITIVE))}"
        )
    if weight is not None and not (math.isfinite(weight) and weight <= 0):
        raise PenaltyError(
            f"the weight of form {form!r} must be finite and not above 0, which would reward slowness; got {weight}"
        )


def penalise(
    form: str, metric: float, ratio: float, *, direction: Direction = "maximize", weight: float | None = None
) -> float:
    """The score of `form`, to be optimised in the metric's own direction; `ratio` is t / T, and above 0.

    Raises:
        PenaltyError: no such form; a multiplicative form with a minimised or negative metric, or without any cost.
    """
    check(form, direction, weight)
    w = WEIGHTS[form] if weight is None and form in WEIGHTS else weight
    if form in MULTIPLICATIVE:
        if metric < 0:
            raise PenaltyError(f"form {form!r} multiplies the metric, which must not be negative, but got {metric}")
        if ratio <= 0:
            raise PenaltyError(f"form {form!r} needs a cost above 0, but got {ratio} times the target")
        return MULTIPLICATIVE[form](metric, ratio, w or 0.0)
    if form not in ADDITIVE:
        raise PenaltyError(f"no penalty {form!r}; choose from {', '.join([*MULTIPLICATIVE, *ADDITIVE])}")
    sign = 1.0 if direction == "maximize" else -1.0
    return sign * ADDITIVE[form](sign * metric, ratio, w or 0.0)
