"""What a search space costs before anything is trained: its latencies, the share within the budget, what is slow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcost.search.detached_trial import random_chooser, try_build
from hwcost.search.judging import Judgement, ObjectiveError
from hwcost.search.objective import LatencyObjective

Array = NDArray[np.float64]
_AT_LEAST = 5  # architectures with a choice, for its effect to be stated


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one decision does to the latency."""

    decision: str
    slowest: Any  # the choice with the largest geometric mean latency
    fastest: Any  # the choice with the smallest
    factor: float  # geometric mean latency with the slowest choice over that with the fastest


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSummary:
    """Latencies (s) of random architectures on one device."""

    device: str
    least: float
    median: float
    most: float
    feasible_share: float | None  # within the budgets of this device; None where the study rejects nothing
    effects: tuple[Effect, ...]  # the largest factor first


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSummary:
    """What `summarise` returns."""

    samples: int  # architectures that were priced
    devices: tuple[DeviceSummary, ...]
    feasible_share: float | None  # within all budgets; None where the study rejects nothing


def summarise(
    objective: LatencyObjective, samples: int = 1000, seed: int = 0, progress: Callable[..., None] | None = None
) -> SpaceSummary:
    """Estimate random architectures of an objective's `build`; nothing is trained.

    Each parameter is drawn uniformly from its choices, as a random sampler does. A share among n samples has a
    standard error of at most 0.5 / sqrt(n). Architectures that `build` prunes are left out.

    Args:
        objective: whose `build`, models and budget are meant.
        samples: number of architectures that are drawn.
        seed: of the drawing.
        progress: called with (architectures done, samples).

    Raises:
        ObjectiveError: `build` prunes all of them.
    """
    rng = np.random.default_rng(seed)
    points: list[dict[str, Any]] = []  # the parameters of each architecture
    judgements: list[Judgement] = []
    for i in range(samples):
        trial, architecture = try_build(objective.build, random_chooser(rng))
        if architecture is None:
            continue
        points.append(trial.params)
        judgements.append(objective.judge(architecture, trial.params))
        if progress:
            progress(i + 1, samples)
    if not points:
        raise ObjectiveError(f"build prunes all of {samples} random architectures; have it let some pass")
    return SpaceSummary(
        samples=len(points),
        devices=tuple(_summarise_device(name, objective, points, judgements) for name in objective.models),
        feasible_share=_feasible_share(objective, judgements, None),
    )


def _summarise_device(
    name: str, objective: LatencyObjective, points: Sequence[Mapping[str, Any]], judgements: Sequence[Judgement]
) -> DeviceSummary:
    latencies = np.array([_latency(judgement.facts, name) for judgement in judgements])
    logs = np.log(latencies)
    decisions = dict.fromkeys(decision for point in points for decision in point)
    effects = [_effect(decision, points, logs) for decision in decisions]
    return DeviceSummary(
        device=name,
        least=float(latencies.min()),
        median=float(np.median(latencies)),
        most=float(latencies.max()),
        feasible_share=_feasible_share(objective, judgements, name),
        effects=tuple(sorted((e for e in effects if e is not None), key=lambda e: -e.factor)),
    )


def _latency(facts: Mapping[str, Any], device: str) -> float:
    return float(facts["devices"][device]["latency"] if "devices" in facts else facts["latency"])


def _feasible_share(objective: LatencyObjective, judgements: Sequence[Judgement], device: str | None) -> float | None:
    """Share that keeps the limits of a device (None: of all devices); None where there is no such limit."""
    keys = [limit.key for limit in objective.gate if device in (None, limit.device)]
    if not keys:
        return None
    return float(np.mean([all(judgement.excess[key] <= 0 for key in keys) for judgement in judgements]))


def _effect(decision: str, points: Sequence[Mapping[str, Any]], logs: Array) -> Effect | None:
    """The effect of a decision on the logarithms of latencies; None where fewer than two choices were drawn enough."""
    groups: dict[Any, list[float]] = {}
    for point, log in zip(points, logs, strict=True):
        if decision in point:
            groups.setdefault(point[decision], []).append(log)
    means = {choice: float(np.mean(group)) for choice, group in groups.items() if len(group) >= _AT_LEAST}
    if len(means) < 2:
        return None
    slowest = max(means, key=lambda choice: means[choice])
    fastest = min(means, key=lambda choice: means[choice])
    factor = float(np.exp(means[slowest] - means[fastest]))
    return Effect(decision=decision, slowest=slowest, fastest=fastest, factor=factor)
