"""What a search space costs before anything is trained: its latencies, the share that fits, what makes it slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwcost.search.detached_trial import built, random_choice
from hwcost.search.objective import LatencyObjective, ObjectiveError

_AT_LEAST = 5  # samples of a choice before its effect is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A decision and what it does to latency."""

    decision: str
    slowest: Any
    fastest: Any
    factor: float  # geometric mean latency with the slowest choice over that with the fastest


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSummary:
    """Latencies (s) of random architectures on one device."""

    device: str
    least: float
    median: float
    most: float
    feasible_share: float | None  # within this device's budgets; None where nothing rejects
    effects: tuple[Effect, ...]  # strongest first


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSummary:
    """What `summarise` found."""

    samples: int
    devices: tuple[DeviceSummary, ...]
    feasible_share: float | None  # within every budget; None where nothing rejects


def summarise(
    objective: LatencyObjective, samples: int = 1000, seed: int = 0, progress: Callable[..., None] | None = None
) -> SpaceSummary:
    """Look at random architectures of an objective's `build`; nothing is trained.

    Each decision is drawn uniformly from its choices, as a random sampler does. Shares of n samples have a
    standard error of at most 0.5 / sqrt(n). What `build` prunes itself is left out.

    Raises:
        ObjectiveError: `build` prunes every one.
    """
    rng = np.random.default_rng(seed)
    points: list[dict[str, Any]] = []
    latencies: dict[str, list[float]] = {name: [] for name in objective.models}
    excess: list[dict[str, float]] = []
    for i in range(samples):
        probe, architecture = built(objective.build, random_choice(rng))
        if architecture is None:
            continue
        judgement = objective.judge(architecture, probe.params)
        points.append(probe.params)
        excess.append(dict(judgement.excess))
        for name in objective.models:
            latencies[name].append(_latency(judgement.facts, name))
        if progress:
            progress(i + 1, samples)
    if not points:
        raise ObjectiveError(f"build prunes all of {samples} random architectures; have it let some pass")
    return SpaceSummary(
        samples=len(points),
        devices=tuple(
            _device(name, np.array(t), points, _share(objective, excess, name)) for name, t in latencies.items()
        ),
        feasible_share=_share(objective, excess, None),
    )


def _latency(facts: Any, device: str) -> float:
    return float(facts["devices"][device]["latency"] if "devices" in facts else facts["latency"])


def _share(objective: LatencyObjective, excess: list[dict[str, float]], device: str | None) -> float | None:
    keys = [limit.key for limit in objective.gate if device in (None, limit.device)]
    if not keys:
        return None
    return float(np.mean([all(e[key] <= 0 for key in keys) for e in excess]))


def _device(name: str, t: Any, points: list[dict[str, Any]], share: float | None) -> DeviceSummary:
    decisions = list(dict.fromkeys(decision for point in points for decision in point))
    effects = [e for d in decisions if (e := _effect(d, points, np.log(t))) is not None]
    return DeviceSummary(
        device=name, least=float(t.min()), median=float(np.median(t)), most=float(t.max()), feasible_share=share,
        effects=tuple(sorted(effects, key=lambda e: -e.factor)),
    )  # fmt: skip


def _effect(decision: str, points: list[dict[str, Any]], logs: Any) -> Effect | None:
    groups: dict[Any, list[float]] = {}
    for point, log in zip(points, logs, strict=True):
        if decision in point:
            groups.setdefault(point[decision], []).append(log)
    means = {value: float(np.mean(g)) for value, g in groups.items() if len(g) >= _AT_LEAST}
    if len(means) < 2:
        return None
    slowest, fastest = max(means, key=lambda v: means[v]), min(means, key=lambda v: means[v])
    return Effect(
        decision=decision, slowest=slowest, fastest=fastest, factor=float(np.exp(means[slowest] - means[fastest]))
    )
