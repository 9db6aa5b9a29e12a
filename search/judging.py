"""What is known of an architecture before it is trained: its predicted cost, and whether it is within the budget."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from hwcost.graph import Graph
from hwcost.search.budgets import GENERIC, BudgetError, Limit, blocks_at, value_of
from hwcost.search.detached_trial import random_chooser, try_build
from hwcost.search.once import key_of
from hwcost.search.protocols import Build, Estimate, LatencyModel
from hwcost.search.utilisation import ceilings_of, energy_of, facts_of, parts_of

_MOST_KEPT = 50_000  # judgements kept in memory
_SAMPLES = 64  # random architectures that are searched for a block of the budget


class ObjectiveError(ValueError):
    """Arguments of an objective that make no sense together, or a value that no study can use."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of an architecture before it is trained."""

    key: str  # equal architectures have equal keys
    costs: Mapping[str, float]  # device -> the quantity that is traded against the metric, in SI units
    excess: Mapping[str, float]  # key of a limit -> value / limit - 1
    facts: Mapping[str, Any]  # what the trial keeps of the first estimate; of several, each in "devices" by name

    @property
    def feasible(self) -> bool:
        """Whether every limit is kept."""
        return all(excess <= 0 for excess in self.excess.values())


class Judge:
    """Estimates architectures and compares them with limits; equal architectures are estimated once.

    Args:
        models: by name, one for each device.
        inputs: example inputs for the models, a function of the architecture that gives them, or None for the
            architecture's own `input_shape`.
        limits: what a feasible architecture keeps.
        traded: the quantity that is traded against the metric.
        confidence: probability with which a feasible architecture keeps its limits on latency (`budgets`, eq. (1)).
    """

    def __init__(
        self,
        models: Mapping[str, LatencyModel],
        inputs: Any,
        limits: Sequence[Limit],
        traded: str,
        confidence: float,
    ) -> None:
        self._models = models
        self._inputs = inputs
        self._limits = limits
        self._traded = traded
        self._confidence = confidence
        self._ceilings = {name: ceilings_of(model) for name, model in models.items()}
        self._energy = {name: energy_of(model) or GENERIC for name, model in models.items()}
        self._judgements: dict[str, Judgement] = {}
        self._existing: set[str] = set()  # blocks of the budget that some architecture has
        self._lock = threading.Lock()

    def judge(self, architecture: Any, params: Mapping[str, Any], build: Build) -> Judgement:
        """The judgement of an architecture.

        Args:
            architecture: what `build` made of `params`.
            params: of its trial.
            build: makes other architectures, where this one lacks a block that the budget names.

        Raises:
            ObjectiveError: a model's estimate is no latency.
            BudgetError: no architecture has a block that the budget names.
        """
        key = key_of(architecture, params)
        judgement = self._judgements.get(key)
        if judgement is None:
            judgement = self._make(architecture, key, build)
            with self._lock:
                if len(self._judgements) >= _MOST_KEPT:
                    self._judgements.clear()
                self._judgements[key] = judgement
        return judgement

    def _make(self, architecture: Any, key: str, build: Build) -> Judgement:
        """A judgement that is not in memory yet; arguments and errors as of `judge`."""
        inputs = self._inputs_of(architecture)
        estimates = self._estimate_all(architecture, inputs)
        graph = _tracer(architecture, inputs)

        def value(quantity: str, device: str, confidence: float) -> float:
            return value_of(quantity, estimates[device], confidence, graph, self._energy[device])

        costs = {name: value(self._traded, name, 0.5) for name in estimates}  # 0.5: no margin, the point estimate
        self._check_blocks(estimates, build)
        excess = {
            limit.key: limit.excess(value(limit.quantity, limit.device, self._confidence)) for limit in self._limits
        }
        facts = {name: facts_of(estimate, self._ceilings[name]) for name, estimate in estimates.items()}
        first = next(iter(facts.values()))
        return Judgement(key, costs, excess, {**first, "devices": facts} if len(facts) > 1 else first)

    def breakdown(self, architecture: Any) -> dict[str, Any]:
        """Which kernel or block of an architecture costs what on each device, as JSON; see `artifacts`."""
        devices = {}
        for name, estimate in self._estimate_all(architecture, self._inputs_of(architecture)).items():
            devices[name] = {**facts_of(estimate, self._ceilings[name]), "parts": parts_of(estimate)}
        return {"devices": devices}

    # -- estimates --------------------------------------------------------------------------------

    def _estimate_all(self, architecture: Any, inputs: Any) -> dict[str, Estimate]:
        return {name: self._estimate(name, architecture, inputs) for name in self._models}

    def _estimate(self, name: str, architecture: Any, inputs: Any) -> Estimate:
        estimate = self._models[name].estimate(architecture, inputs)
        if not (math.isfinite(estimate.latency) and estimate.latency > 0):
            rule = f"model {name!r} must estimate a latency above 0 s"
            raise ObjectiveError(f"{rule}, but gave {estimate.latency} for {architecture!r:.80}")
        return estimate

    def _inputs_of(self, architecture: Any) -> Any:
        """Example inputs for an architecture; None where neither the user nor the architecture tells them."""
        if callable(self._inputs):
            return self._inputs(architecture)
        if self._inputs is not None:
            return self._inputs
        shape = getattr(architecture, "input_shape", None)  # modules that a space builds have it
        if shape is None:
            return None
        import torch

        return (torch.zeros(shape, device="meta"),)

    # -- blocks of the budget ---------------------------------------------------------------------

    def _check_blocks(self, estimates: Mapping[str, Estimate], build: Build) -> None:
        """Raise a BudgetError for a block that neither these estimates have nor those of random architectures."""
        for limit in self._limits:
            if limit.is_of_block and limit.quantity not in self._existing:
                if not blocks_at(limit.quantity, estimates[limit.device]):
                    self._search_for_block(limit, build)
                self._existing.add(limit.quantity)

    def _search_for_block(self, limit: Limit, build: Build) -> None:
        """Raise a BudgetError where no random architecture has the block of a limit."""
        rng = np.random.default_rng(0)
        names: dict[str, None] = {}  # of all blocks, in the order they are found
        for _ in range(_SAMPLES):
            _, architecture = try_build(build, random_chooser(rng))
            if architecture is None:
                continue
            estimate = self._estimate(limit.device, architecture, self._inputs_of(architecture))
            if blocks_at(limit.quantity, estimate):
                return
            names |= dict.fromkeys(getattr(estimate, "blocks", {}))
        raise BudgetError(
            f"budget of {limit.quantity!r}: none of {_SAMPLES} random architectures has such a block on "
            f"{limit.device!r}; they have {', '.join(names) or 'none, or the model does not tell'}"
        )


def _tracer(architecture: Any, inputs: Any) -> Callable[[], Graph]:
    """A function that traces the architecture when it is first called."""

    @cache
    def graph() -> Graph:
        from hwcost.tracing.trace import trace

        if not callable(getattr(architecture, "forward", None)):
            raise BudgetError(
                "a budget of memory, parameters, flops or bytes needs an architecture that is an nn.Module, "
                f"or an estimate that knows it, but got a {type(architecture).__name__}"
            )
        return trace(architecture, inputs)

    return graph
