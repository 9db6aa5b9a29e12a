"""`LatencyObjective`: an Optuna objective that knows what an architecture costs before it trains it.

For every trial: build the architecture (cheap), estimate it, compare with the budget. What is over the
budget gets its constraints set and is pruned, before any training; a sampler that reads constraints
learns from it. What was evaluated before, in this study, by any worker, is answered from memory. The
rest is trained, and what Optuna sees is a matter of the form:

    constraint      the metric; the budget is a constraint, checked before training
    pareto          the metric and the latency, two objectives; a budget, where given, is a constraint too
    mnas-soft, mnas-hard, tunas-absolute, one-sided, linear
                    one number of both (`penalties`); the budget of what is traded is its target and rejects
                    nothing, budgets of other quantities are constraints

Each trial keeps one small user attribute, "hwcost".
"""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import optuna

from hwcost.search import penalties
from hwcost.search.artifacts import keep
from hwcost.search.budgets import GENERIC, QUANTITIES, Budget, BudgetError, Limit, blocks_at, parse_budget, value_of
from hwcost.search.detached_trial import built, random_choice
from hwcost.search.once import ATTRIBUTE, Memory, key_of
from hwcost.search.utilisation import ceilings_of, energy_of, facts_of, parts_of

Form = Literal["constraint", "pareto", "mnas-soft", "mnas-hard", "tunas-absolute", "one-sided", "linear"]
FORMS: tuple[Form, ...] = get_args(Form)
Direction = penalties.Direction
_REMEMBERED = 50_000  # judgements kept in memory
_PROBES = 64  # random architectures looked at for a block that one lacks
_OWN = ("_lock", "_judged", "_memory", "_standing", "_ceilings", "_energy")  # of a process, never pickled


class ObjectiveError(ValueError):
    """An objective that cannot be meant, or a value that no study can use."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of an architecture before it is trained."""

    key: str  # equal architectures have equal keys
    costs: Mapping[str, float]  # device -> the quantity that is traded against the metric (SI)
    excess: Mapping[str, float]  # limit -> value / limit - 1; feasible iff all <= 0
    facts: Mapping[str, Any]  # for the user attribute

    @property
    def feasible(self) -> bool:
        """Whether every limit holds."""
        return all(e <= 0 for e in self.excess.values())


class LatencyObjective:
    """See the module. Picklable where `build`, `evaluate` and the models are.

    Args:
        build: `build(trial)` is cheap and gives the architecture: an nn.Module, or whatever the model takes.
        evaluate: `evaluate(architecture, trial)` trains it and gives the metric.
        model: a CostModel, a LatencyTable, or anything with `estimate(architecture, inputs)` that gives `.latency`,
            `.low` and `.high` in seconds; or several of them by name, one a device.
        inputs: example inputs for the model, or a function of the architecture that gives them.
        budget: "5 ms", seconds, or several (`limits`).
        form: see the module.
        direction: of the metric.
        confidence: probability with which an accepted architecture is within a latency budget, by the estimate's own
            interval (`limits`, eq. (1)); 0.5 takes the point estimate.
        against: the quantity that a pareto or penalty form trades against the metric.
        across: with several models, "worst" relative cost, or weights by model; None is "worst" for the penalty forms,
            and one objective each for pareto.
        weight: of the penalty; None is its usual one.
        metric: the metric's name in the study.
        artifacts: folder for the breakdown of each trained architecture, an Optuna artifact; None keeps none.

    Raises:
        ObjectiveError, BudgetError, PenaltyError, UnitError: a value above breaks a rule.
    """

    def __init__(
        self,
        build: Callable[[Any], Any],
        evaluate: Callable[[Any, Any], float],
        *,
        model: Any,
        inputs: Any = None,
        budget: Budget = None,
        form: Form = "constraint",
        direction: Direction = "maximize",
        confidence: float = 0.5,
        against: str = "latency",
        across: Literal["worst"] | Mapping[str, float] | None = None,
        weight: float | None = None,
        metric: str = "accuracy",
        artifacts: str | Path | None = None,
    ) -> None:
        self.build, self.evaluate, self.inputs = build, evaluate, inputs
        self.models: dict[str, Any] = dict(model) if isinstance(model, Mapping) else {"device": model}
        self.limits = parse_budget(budget, tuple(self.models))
        self.form, self.direction, self.confidence = form, direction, confidence
        self.against, self.across, self.weight, self.metric = against, across, weight, metric
        self.artifacts = artifacts
        self._check()
        self._start()

    def _check(self) -> None:
        rules = {
            f"form must be one of {', '.join(FORMS)}, but got {self.form!r}": self.form in FORMS,
            f"direction must be 'maximize' or 'minimize', but got {self.direction!r}": self.direction
            in get_args(Direction),
            f"confidence must lie in (0, 1), but got {self.confidence}": 0 < self.confidence < 1,
            f"against must be one of {', '.join(QUANTITIES)}, but got {self.against!r}": self.against in QUANTITIES,
            "at least one model is needed, but got an empty mapping": bool(self.models),
            f"across must be 'worst' or weights for {', '.join(self.models)}, but got {self.across!r}": self.across
            in (None, "worst")
            or (isinstance(self.across, Mapping) and set(self.across) == set(self.models)),
            f"weights in across must be finite and above 0, but got {self.across!r}": not isinstance(
                self.across, Mapping
            )
            or all(math.isfinite(w) and w > 0 for w in self.across.values()),
            f"form {self.form!r} needs a budget, such as budget='5 ms'": self.form == "pareto" or bool(self.limits),
        }
        for name, model in self.models.items():
            rule = f"model {name!r} must have estimate(architecture, inputs), but is a {type(model).__name__}"
            rules[rule] = callable(getattr(model, "estimate", None))
        for message, holds in rules.items():
            if not holds:
                raise ObjectiveError(message)
        if self.is_penalty:
            penalties.check(self.form, self.direction, self.weight)
        if self.is_penalty or (self.limits and self.is_relative):
            self._targets()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._judged: dict[str, Judgement] = {}
        self._memory = Memory()
        self._standing: set[str] = set()  # budgeted blocks that some architecture has
        self._ceilings = {name: ceilings_of(model) for name, model in self.models.items()}
        self._energy = {name: energy_of(model) or GENERIC for name, model in self.models.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    # -- what the study must be ---------------------------------------------------------------------

    @property
    def is_penalty(self) -> bool:
        """Whether the form makes one number of metric and cost."""
        return self.form not in ("constraint", "pareto")

    @property
    def is_relative(self) -> bool:
        """Whether a pareto form makes one cost of several devices'."""
        return self.form == "pareto" and len(self.models) > 1 and self.across is not None

    @property
    def gate(self) -> tuple[Limit, ...]:
        """The limits that reject: all but the targets of a penalty."""
        return tuple(limit for limit in self.limits if not (self.is_penalty and limit.quantity == self.against))

    @property
    def directions(self) -> list[Direction]:
        """Of the study's objectives."""
        return [self.direction, *("minimize" for _ in self.metric_names[1:])]  # type: ignore[list-item]

    @property
    def metric_names(self) -> list[str]:
        """Of the study's objectives."""
        if self.form == "constraint":
            return [self.metric]
        if self.form != "pareto":
            return [f"{self.metric} ({self.form})"]
        if self.is_relative:
            return [self.metric, f"relative {self.against}"]
        if len(self.models) == 1:
            return [self.metric, self.against]
        return [self.metric, *(f"{self.against}@{name}" for name in self.models)]

    # -- before the training ------------------------------------------------------------------------

    def judge(self, architecture: Any, params: Mapping[str, Any]) -> Judgement:
        """Estimate an architecture and compare it with the budget; equal ones are estimated once."""
        key = key_of(architecture, params)
        known = self._judged.get(key)
        if known is None:
            known = self._judge(architecture, key)
            with self._lock:
                if len(self._judged) >= _REMEMBERED:
                    self._judged.clear()
                self._judged[key] = known
        return known

    def _judge(self, architecture: Any, key: str) -> Judgement:
        inputs = self._inputs(architecture)
        estimates = {name: self._estimate(name, architecture, inputs) for name in self.models}
        graph = _Traced(architecture, inputs)

        def value(quantity: str, device: str, confidence: float) -> float:
            return value_of(quantity, estimates[device], confidence, graph, self._energy[device])

        costs = {name: value(self.against, name, 0.5) for name in estimates}
        gate = self.gate
        self._check_blocks(gate, estimates)
        excess = {limit.key: limit.excess(value(limit.quantity, limit.device, self.confidence)) for limit in gate}
        return Judgement(key, costs, excess, self._facts(estimates))

    def _check_blocks(self, gate: Sequence[Limit], estimates: Mapping[str, Any]) -> None:
        """Raise a BudgetError for a block that not only this architecture lacks, but random ones do as well."""
        for limit in gate:
            if limit.is_of_block and limit.quantity not in self._standing:
                if not blocks_at(limit.quantity, estimates[limit.device]):
                    self._look_for_block(limit)
                self._standing.add(limit.quantity)

    def _look_for_block(self, limit: Limit) -> None:
        rng, seen = np.random.default_rng(0), dict[str, None]()
        for _ in range(_PROBES):
            _, architecture = built(self.build, random_choice(rng))
            if architecture is None:
                continue
            estimate = self._estimate(limit.device, architecture, self._inputs(architecture))
            if blocks_at(limit.quantity, estimate):
                return
            seen |= dict.fromkeys(getattr(estimate, "blocks", {}))
        raise BudgetError(
            f"budget of {limit.quantity!r}: none of {_PROBES} random architectures has such a block on "
            f"{limit.device!r}; they have {', '.join(seen) or 'none, or the model does not tell'}"
        )

    def _facts(self, estimates: Mapping[str, Any]) -> dict[str, Any]:
        """What the trial keeps of its estimates: numbers of the first device and, of several, of each."""
        each = {name: facts_of(e, self._ceilings[name]) for name, e in estimates.items()}
        first = next(iter(each.values()))
        return {**first, "devices": each} if len(each) > 1 else first

    def breakdown(self, architecture: Any) -> dict[str, Any]:
        """Which part of an architecture costs what on each device, as JSON; see `artifacts`."""
        inputs = self._inputs(architecture)
        estimates = {name: self._estimate(name, architecture, inputs) for name in self.models}
        return {
            "devices": {
                name: {**facts_of(e, self._ceilings[name]), "parts": parts_of(e)} for name, e in estimates.items()
            }
        }

    def _estimate(self, name: str, architecture: Any, inputs: Any) -> Any:
        estimate = self.models[name].estimate(architecture, inputs)
        if not (math.isfinite(estimate.latency) and estimate.latency > 0):
            rule = f"model {name!r} must estimate a latency above 0 s"
            raise ObjectiveError(f"{rule}, but gave {estimate.latency} for {architecture!r:.80}")
        return estimate

    def _inputs(self, architecture: Any) -> Any:
        if callable(self.inputs):
            return self.inputs(architecture)
        shape = getattr(architecture, "input_shape", None) if self.inputs is None else None
        if shape is None:
            return self.inputs
        import torch

        return (torch.zeros(shape, device="meta"),)

    # -- the trial ------------------------------------------------------------------------------------

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Optuna's objective.

        Raises:
            TrialPruned: the architecture is over the budget, or another worker is training it now.
            ObjectiveError: the study has other directions, or the metric is no finite number.
        """
        self._check_study(trial)
        architecture = self.build(trial)
        judgement = self.judge(architecture, trial.params)
        for key, excess in judgement.excess.items():
            trial.set_constraint(key, excess)
        attribute = {"key": judgement.key, **judgement.facts}
        if not judgement.feasible:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "rejected"})
            raise optuna.TrialPruned(f"over the budget before training: {_worst(judgement.excess)}")
        known = self._memory.claim(trial, attribute)
        metric = self._train(architecture, trial, attribute) if known is None else known
        return self.score(metric, judgement)

    def _train(self, architecture: Any, trial: Any, attribute: Mapping[str, Any]) -> float:
        value = self.evaluate(architecture, trial)
        try:
            metric = float(value)
        except (TypeError, ValueError):
            raise ObjectiveError(f"evaluate must return a number, but returned {value!r:.80}") from None
        if not math.isfinite(metric):
            raise ObjectiveError(
                f"evaluate must return a finite number, but returned {metric} in trial {trial.number} "
                f"({dict(trial.params)}); return the worst possible value for a training that diverged"
            )
        if self.artifacts is not None:
            keep(trial, self.breakdown(architecture), self.artifacts)
        trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "trained", self._memory.METRIC: metric})
        return metric

    def score(self, metric: float, judgement: Judgement) -> float | tuple[float, ...]:
        """What Optuna sees of a metric."""
        costs = judgement.costs
        if self.form == "constraint":
            return metric
        if self.is_penalty:
            ratio = self._across({name: costs[name] / most for name, most in self._targets().items()})
            return penalties.penalise(self.form, metric, ratio, direction=self.direction, weight=self.weight)
        if not self.is_relative:
            return (metric, *costs.values())
        targets = self._targets() if self.limits else dict.fromkeys(costs, 1.0)
        return (metric, self._across({name: costs[name] / targets[name] for name in costs}))

    def _across(self, ratios: Mapping[str, float]) -> float:
        if not isinstance(self.across, Mapping):
            return max(ratios.values())
        return sum(self.across[name] * r for name, r in ratios.items()) / sum(self.across.values())

    def _targets(self) -> dict[str, float]:
        """Of each device, the limit on the quantity that is traded."""
        targets = {limit.device: limit.most for limit in self.limits if limit.quantity == self.against}
        missing = [name for name in self.models if name not in targets]
        if missing:
            raise BudgetError(f"form {self.form!r} needs a budget of {self.against} for {', '.join(missing)}")
        return targets

    def _check_study(self, trial: Any) -> None:
        study = getattr(trial, "study", None)
        if study is None:
            return
        found = [d.name.lower() for d in study.directions]
        if found != self.directions:
            raise ObjectiveError(
                f"form {self.form!r} needs a study with directions={self.directions} ({', '.join(self.metric_names)}), "
                f"but this one has {found}"
            )

    def check_picklable(self) -> None:
        """Raise an ObjectiveError that names the part which cannot go to another process."""
        for name in ("build", "evaluate", "inputs", "models"):
            try:
                pickle.dumps(getattr(self, name))
            except Exception as error:
                raise ObjectiveError(
                    f"{name} cannot be sent to another process ({error}); use a function at the top of a module"
                ) from error


class _Traced:
    """The graph of an architecture, traced when first asked for."""

    def __init__(self, architecture: Any, inputs: Any) -> None:
        self._architecture, self._inputs = architecture, inputs
        self._graph: Any = None

    def __call__(self) -> Any:
        if self._graph is None:
            from hwcost.tracing.trace import trace

            if not callable(getattr(self._architecture, "forward", None)):
                raise BudgetError(
                    "a budget of memory, parameters, flops or bytes needs an architecture that is an nn.Module, "
                    f"or an estimate that knows it, but got a {type(self._architecture).__name__}"
                )
            self._graph = trace(self._architecture, self._inputs)
        return self._graph


def _worst(excess: Mapping[str, float]) -> str:
    key = max(excess, key=lambda k: excess[k])
    return f"{key} is {1 + excess[key]:.3g} times its limit"


__all__ = ["FORMS", "Form", "Judgement", "LatencyObjective", "ObjectiveError"]
