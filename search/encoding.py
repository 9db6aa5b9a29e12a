"""Parameter sets as vectors, for any define-by-run space: categorical, ordered, conditional.

Four views of an architecture:

1. *places*: one group of columns for each parameter, such that half the L1 distance of two rows is the sum of
   the parameters' distances: 1 for different categories; for ordered values the mean of that and of their
   distance in rank (in scale, for numbers); 1 where only one of the two has the parameter.
2. *counts*: parameters that share one list of choices (the edges of a cell, the kernel sizes of all stages) are
   interchangeable to a first approximation: how often each choice was made, whatever the place.
3. *cost*: the logarithm of what the cost model says; free to know, and related to accuracy.
4. *features*: what the space itself says of an architecture (`Space.features`), in units of which one matters: how
   deep it is, how much of it is alive. Different decisions can be one network, and only the space knows.
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
_LOG_UNIT = 0.5  # of log cost: a factor of 1.65. Not relative to the candidates: within a tight budget all cost
# about the same, and their small differences would be blown up
Point = Mapping[str, Any]
Features = Callable[[Any], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Views:
    """The four views of n architectures."""

    places: Array  # [n, columns]
    counts: Array  # [n, values]
    cost: Array  # [n, 1]
    features: Array  # [n, features], no columns where the space has none
    parameters: int  # that a place stands for

    def __getitem__(self, rows: slice | Sequence[int]) -> Views:
        return Views(self.places[rows], self.counts[rows], self.cost[rows], self.features[rows], self.parameters)

    def with_cost(self, costs: Array) -> Views:
        """The same architectures, at other costs (SI)."""
        return replace(self, cost=_scaled(costs))

    def __add__(self, more: Views) -> Views:
        """These, then those of the same encoder."""
        return Views(
            np.vstack([self.places, more.places]),
            np.vstack([self.counts, more.counts]),
            np.vstack([self.cost, more.cost]),
            np.vstack([self.features, more.features]),
            self.parameters,
        )


@dataclass(frozen=True)
class Encoder:
    """Encodes architectures that have parameters of these distributions."""

    distributions: Mapping[str, BaseDistribution]
    features: Features | None = None

    def __call__(self, points: Sequence[Point], costs: Array) -> Views:
        """The views of `points` that cost `costs`; parameters of other names are ignored."""
        n = len(points)
        blocks = [np.zeros((n, 0))]
        for name, d in self.distributions.items():
            blocks.append(_columns([p.get(name) for p in points], [name in p for p in points], d))
        told = [list(self.features(p).values()) for p in points] if self.features else [[]] * n
        features = np.asarray(told, dtype=float).reshape(n, -1 if n else 0)
        counts = _counts(points, self.distributions)
        return Views(np.hstack(blocks), counts, _scaled(costs), features, len(self.distributions))


def features_of(build: Callable[..., Any]) -> Features | None:
    """The features that a space tells of its architectures, where `build` is the method of a space that does."""
    found = getattr(getattr(build, "__self__", None), "features", None)
    return found if callable(found) else None


def _scaled(costs: Array) -> Array:
    return np.asarray(np.log(costs) / _LOG_UNIT)[:, None]


def _columns(values: Sequence[Any], present: Sequence[bool], distribution: BaseDistribution) -> Array:
    if isinstance(distribution, CategoricalDistribution):
        return _categorical(values, present, distribution)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high = float(distribution.low), float(distribution.high)
    scale = math.log if distribution.log else float
    width = scale(high) - scale(low) or 1.0
    column = [(scale(float(v)) - scale(low)) / width if p else 0.5 for v, p in zip(values, present, strict=True)]
    return np.column_stack([2.0 * np.asarray(column), np.asarray(present, dtype=float)])


def _categorical(values: Sequence[Any], present: Sequence[bool], distribution: CategoricalDistribution) -> Array:
    choices = distribution.choices
    index = [choices.index(v) if p else -1 for v, p in zip(values, present, strict=True)]
    one_hot = np.zeros((len(values), len(choices) + 1))  # the last column: absent
    one_hot[np.arange(len(values)), index] = 1.0
    if len(choices) < 3 or not all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in choices):
        return one_hot
    rank = np.argsort(np.argsort(np.asarray(choices, dtype=float)))
    ranks = np.append(rank / (len(choices) - 1), 0.5)[index]
    return np.column_stack([0.5 * one_hot, ranks])


def _counts(points: Sequence[Point], distributions: Mapping[str, BaseDistribution]) -> Array:
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, d in distributions.items():
        if isinstance(d, CategoricalDistribution):
            groups.setdefault(tuple(map(repr, d.choices)), []).append(name)
    columns: list[list[int]] = []
    for choices, names in groups.items():
        if len(names) > 1:
            made = [[repr(p[name]) for name in names if name in p] for p in points]
            columns += [[row.count(choice) for row in made] for choice in choices]
    return np.asarray(columns, dtype=float).T.reshape(len(points), len(columns))
