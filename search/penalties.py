"""Penalty forms: a metric m and a latency t with target T as one number, for a study of a single objective.

With the relative latency r = t / T:

    mnas-soft       m * r^w                          w = -0.07           (1)  M. Tan et al., MnasNet, CVPR 2019, eq. 2
    mnas-hard       m            where r <= 1
                    m * r^w      elsewhere           w = -1              (2)  the same, alpha = 0, beta = -1
    tunas-absolute  m + w * |r - 1|                  w = -0.07           (3)  G. Bender et al., TuNAS, CVPR 2020
    one-sided       m + w * max(r - 1, 0)            w = -1              (4)
    linear          m + w * r                        w = -0.07           (5)  a Lagrangian with a fixed multiplier

They are written for a metric that is maximised and lies near 1, such as an accuracy in 0..1. For a metric that is
minimised the additive forms (3) to (5) change the sign of the penalty. The multiplicative forms (1) and (2) are refused
for it, since a slow architecture would get a factor below 1, and so a lower, better value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

Direction = Literal["maximize", "minimize"]
Penalty = Callable[[float, float, float], float]  # (maximised metric, r, w) -> score


class PenaltyError(ValueError):
    """A form that does not exist, or that cannot be used with the metric or weight."""


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
WEIGHTS: Mapping[str, float] = {  # the usual w of each form
    "mnas-soft": -0.07,
    "mnas-hard": -1.0,
    "tunas-absolute": -0.07,
    "one-sided": -1.0,
    "linear": -0.07,
}


def check(form: str, direction: Direction, weight: float | None) -> None:
    """Raise a PenaltyError where `form` cannot be used with a metric of this direction, or `weight` rewards slowness.

    Of a form that is no penalty only the weight is checked; a weight of None is the usual one.
    """
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
    """The score of a form, to be optimised in the metric's own direction.

    Args:
        form: a key of WEIGHTS.
        metric: m.
        ratio: r = t / T.
        direction: of the metric.
        weight: w; None is the usual one of the form.

    Raises:
        PenaltyError: no such form; or a multiplicative form with a minimised or negative metric, or a ratio of 0.
    """
    check(form, direction, weight)
    if form not in WEIGHTS:
        raise PenaltyError(f"no penalty {form!r}; choose from {', '.join(WEIGHTS)}")
    w = WEIGHTS[form] if weight is None else weight
    if form in MULTIPLICATIVE:
        if metric < 0:
            raise PenaltyError(f"form {form!r} multiplies the metric, which must not be negative, but got {metric}")
        if ratio <= 0:
            raise PenaltyError(f"form {form!r} needs a cost above 0, but got {ratio} times the target")
        return MULTIPLICATIVE[form](metric, ratio, w)
    sign = 1.0 if direction == "maximize" else -1.0
    return sign * ADDITIVE[form](sign * metric, ratio, w)
