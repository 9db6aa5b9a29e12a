"""Architectures as vectors, for any search space: categorical, ordered and conditional parameters.

A kernel over architectures needs distances between them. Four views of an architecture each give one:

1. *values*: a group of columns for each parameter, made such that half the L1 distance of two rows is the sum of the
   distances of the parameters. Of two categories the distance is 0 or 1. Of two choices from an ordered list it is the
   mean of that and of the distance of their ranks, with the ranks scaled to 0..1. Of two numbers it is their distance,
   with the range of the parameter scaled to 0..1. Where only one of the two architectures has the parameter it is 1 for
   categories, and between 0.5 and 1 for all others.
2. *counts*: how often each choice was made, over all parameters with the same list of choices, such as the edges of a
   cell or the kernel sizes of all stages. It is similar for architectures that make the same choices in other places.
3. *cost*: the logarithm of the predicted cost. It is known without training, and related to accuracy.
4. *features*: what the space says of an architecture (`Space.features`), such as its depth, scaled so that a difference
   of 1 matters. Different parameters can give the same network, which only the space knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Array = NDArray[np.float64]
Point = Mapping[str, Any]  # the parameters of an architecture
Features = Callable[[Any], Mapping[str, float]]
# The view of cost is ln(cost) / _LOG_UNIT, so that a factor of 1.65 in cost is a distance of 1. The unit is not taken
# from the spread of the candidates' costs: within a tight budget all cost about the same, and a unit as small as their
# spread would make small differences large.
_LOG_UNIT = 0.5


@dataclass(frozen=True, slots=True)
class Views:
    """The four views of n architectures."""

    values: Array  # [n, columns]
    counts: Array  # [n, choices]
    cost: Array  # [n, 1]
    features: Array  # [n, features]; no columns where the space has no features
    parameters: int  # number of parameters that `values` encodes

    def __getitem__(self, rows: slice | Sequence[int]) -> Views:
        return Views(self.values[rows], self.counts[rows], self.cost[rows], self.features[rows], self.parameters)

    def with_cost(self, costs: Array) -> Views:
        """The same architectures with other costs [n], in SI units."""
        return replace(self, cost=_log_cost(costs))

    def __add__(self, more: Views) -> Views:
        """These architectures followed by `more`, which the same encoder must have made."""
        return Views(
            np.vstack([self.values, more.values]),
            np.vstack([self.counts, more.counts]),
            np.vstack([self.cost, more.cost]),
            np.vstack([self.features, more.features]),
            self.parameters,
        )


@dataclass(frozen=True)
class Encoder:
    """Encodes architectures as `Views`.

    Args:
        distributions: of each parameter, by name.
        features: gives the features of an architecture from its parameters; None for a space without features.
    """

    distributions: Mapping[str, BaseDistribution]
    features: Features | None = None

    def __call__(self, points: Sequence[Point], costs: Array) -> Views:
        """The views of n architectures, which cost `costs` [n] in SI units; parameters of other names are ignored."""
        n = len(points)
        values = [np.zeros((n, 0))]
        for name, d in self.distributions.items():
            values.append(_columns([p.get(name) for p in points], [name in p for p in points], d))
        rows = [list(self.features(p).values()) for p in points] if self.features else [[]] * n
        features = np.asarray(rows, dtype=float).reshape(n, -1 if n else 0)
        counts = _counts(points, self.distributions)
        return Views(np.hstack(values), counts, _log_cost(costs), features, len(self.distributions))


def features_of(build: Callable[..., Any]) -> Features | None:
    """The `features` of the space whose `suggest` is `build`; None where there is no such space, or it has none."""
    found = getattr(getattr(build, "__self__", None), "features", None)
    return found if callable(found) else None


def _log_cost(costs: Array) -> Array:
    """The view of cost, [n, 1]."""
    return np.asarray(np.log(costs) / _LOG_UNIT)[:, None]


def _columns(values: Sequence[Any], present: Sequence[bool], distribution: BaseDistribution) -> Array:
    """The columns [n, any] of one parameter; `present` tells which architectures have it."""
    if isinstance(distribution, CategoricalDistribution):
        return _categorical(values, present, distribution)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high = float(distribution.low), float(distribution.high)
    scale = math.log if distribution.log else float
    width = scale(high) - scale(low) or 1.0
    column = [(scale(float(v)) - scale(low)) / width if p else 0.5 for v, p in zip(values, present, strict=True)]
    return np.column_stack([2.0 * np.asarray(column), np.asarray(present, dtype=float)])


def _categorical(values: Sequence[Any], present: Sequence[bool], distribution: CategoricalDistribution) -> Array:
    """One-hot columns; of an ordered list, three or more numbers, half of them and the rank from 0 to 1."""
    choices = distribution.choices
    index = [choices.index(v) if p else -1 for v, p in zip(values, present, strict=True)]
    one_hot = np.zeros((len(values), len(choices) + 1))  # the last column stands for absent
    one_hot[np.arange(len(values)), index] = 1.0
    ordered = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in choices)
    if len(choices) < 3 or not ordered:
        return one_hot
    rank = np.argsort(np.argsort(np.asarray(choices, dtype=float)))
    ranks = np.append(rank / (len(choices) - 1), 0.5)[index]
    return np.column_stack([0.5 * one_hot, ranks])


def _counts(points: Sequence[Point], distributions: Mapping[str, BaseDistribution]) -> Array:
    """How often each choice of each list of choices was made, for lists that two or more parameters share."""
    groups: dict[tuple[str, ...], list[str]] = {}  # list of choices -> names of the parameters
    for name, d in distributions.items():
        if isinstance(d, CategoricalDistribution):
            groups.setdefault(tuple(map(repr, d.choices)), []).append(name)
    columns: list[list[int]] = []
    for choices, names in groups.items():
        if len(names) > 1:
            made = [[repr(p[name]) for name in names if name in p] for p in points]
            columns += [[row.count(choice) for row in made] for choice in choices]
    return np.asarray(columns, dtype=float).T.reshape(len(points), len(columns))
