"""`LatencyObjective`: an Optuna objective that predicts what an architecture costs before it trains it.

Each trial builds an architecture, which is cheap, estimates it, and compares the estimate with the budget. An
architecture over the budget gets its constraints set and is pruned before any training, and a sampler that reads
constraints learns from it. One that the study has evaluated before, by whatever worker, is not trained again. All
others are trained. What Optuna optimises then depends on the form:

    constraint      the metric; the budget is a constraint that is checked before training
    pareto          two objectives, the metric and the latency; a budget, where given, is a constraint as well
    mnas-soft, mnas-hard, tunas-absolute, one-sided, linear
                    one number made of metric and latency (`penalties`). The budget of the latency is its target and
                    rejects nothing; budgets of other quantities are constraints

Each trial keeps one small user attribute, "hwcost" (`once`).
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import optuna

from hwcost.search import penalties
from hwcost.search.artifacts import keep
from hwcost.search.budgets import QUANTITIES, Budget, BudgetError, Limit, parse_budget
from hwcost.search.judging import Judge, Judgement, ObjectiveError
from hwcost.search.once import ATTRIBUTE, METRIC, Claims
from hwcost.search.protocols import Build, Evaluate, LatencyModel

Form = Literal["constraint", "pareto", "mnas-soft", "mnas-hard", "tunas-absolute", "one-sided", "linear"]
FORMS: tuple[Form, ...] = get_args(Form)
Direction = penalties.Direction


class LatencyObjective:
    """See the module. Picklable where `build`, `evaluate`, `inputs` and the models are.

    Args:
        build: `build(trial)` is cheap and gives the architecture: an nn.Module, or whatever the model takes.
        evaluate: `evaluate(architecture, trial)` trains it and gives the metric.
        model: a CostModel, a LatencyTable, or anything with `estimate(architecture, inputs)` that gives `.latency`,
            `.low` and `.high` in seconds; or a mapping with one of these for each device, by name.
        inputs: example inputs for the model, or a function of the architecture that gives them.
        budget: "5 ms", seconds, or a mapping of several limits (`budgets`).
        form: see the module.
        direction: of the metric.
        confidence: probability with which an accepted architecture is within a latency budget, by the estimate's own
            interval (`budgets`, eq. (1)); 0.5 takes the point estimate.
        against: the quantity that a pareto or penalty form trades against the metric, one of `budgets.QUANTITIES`.
        across: how the costs on several devices become one: "worst" takes the largest, and weights by model a weighted
            mean. Each cost counts relative to its budget, or in SI units for a pareto form without one. None is "worst"
            for the penalty forms, and for pareto one objective each.
        weight: of the penalty; None is the usual one of its form.
        metric: the metric's name in the study.
        artifacts: folder for the breakdown of each trained architecture, an Optuna artifact; None keeps none.

    Raises:
        ObjectiveError, BudgetError, PenaltyError, UnitError: an argument breaks a rule.
    """

    def __init__(
        self,
        build: Build,
        evaluate: Evaluate,
        *,
        model: LatencyModel | Mapping[str, LatencyModel],
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
        self.build = build
        self.evaluate = evaluate
        self.inputs = inputs
        self.models: dict[str, LatencyModel] = dict(model) if isinstance(model, Mapping) else {"device": model}
        self.limits = parse_budget(budget, tuple(self.models))
        self.form = form
        self.direction = direction
        self.confidence = confidence
        self.against = against
        self.across = across
        self.weight = weight
        self.metric = metric
        self.artifacts = artifacts
        self._check_arguments()
        self._start()

    def _check_arguments(self) -> None:
        if self.form not in FORMS:
            raise ObjectiveError(f"form must be one of {', '.join(FORMS)}, but got {self.form!r}")
        if self.direction not in get_args(Direction):
            raise ObjectiveError(f"direction must be 'maximize' or 'minimize', but got {self.direction!r}")
        if not 0 < self.confidence < 1:
            raise ObjectiveError(f"confidence must lie in (0, 1), but got {self.confidence}")
        if self.against not in QUANTITIES:
            raise ObjectiveError(f"against must be one of {', '.join(QUANTITIES)}, but got {self.against!r}")
        if not self.models:
            raise ObjectiveError("at least one model is needed, but got an empty mapping")
        self._check_across()
        if self.form != "pareto" and not self.limits:
            raise ObjectiveError(f"form {self.form!r} needs a budget, such as budget='5 ms'")
        for name, model in self.models.items():
            if not callable(getattr(model, "estimate", None)):
                rule = f"model {name!r} must have estimate(architecture, inputs)"
                raise ObjectiveError(f"{rule}, but is a {type(model).__name__}")
        if self.is_penalty:
            penalties.check(self.form, self.direction, self.weight)
        if self.is_penalty or (self.is_relative and self.limits):
            self._targets()  # raises where a device has none

    def _check_across(self) -> None:
        if self.across is None or self.across == "worst":
            return
        if not isinstance(self.across, Mapping) or set(self.across) != set(self.models):
            names = ", ".join(self.models)
            raise ObjectiveError(f"across must be 'worst' or weights for {names}, but got {self.across!r}")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.across.values()):
            raise ObjectiveError(f"weights in across must be finite and above 0, but got {self.across!r}")

    def _start(self) -> None:
        """Make what belongs to one process and is never pickled."""
        self._claims = Claims()
        self._judge = Judge(self.models, self.inputs, self.gate, self.against, self.confidence)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_claims", "_judge")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def check_picklable(self) -> None:
        """Raise an ObjectiveError that names the argument which cannot be sent to another process."""
        for name in ("build", "evaluate", "inputs", "models"):
            try:
                pickle.dumps(getattr(self, name))
            except Exception as error:
                raise ObjectiveError(
                    f"{name} cannot be sent to another process ({error}); use a function at the top of a module"
                ) from error

    # -- what the study must be -------------------------------------------------------------------

    @property
    def is_penalty(self) -> bool:
        """Whether the form makes one number of metric and cost."""
        return self.form not in ("constraint", "pareto")

    @property
    def is_relative(self) -> bool:
        """Whether a pareto form makes one cost of the costs on several devices."""
        return self.form == "pareto" and len(self.models) > 1 and self.across is not None

    @property
    def gate(self) -> tuple[Limit, ...]:
        """The limits that reject an architecture: all but the targets of a penalty form."""
        return tuple(limit for limit in self.limits if not (self.is_penalty and limit.quantity == self.against))

    @property
    def directions(self) -> list[Direction]:
        """Of the study's objectives: the metric's, and "minimize" for each cost."""
        directions: list[Direction] = [self.direction]
        for _ in self.metric_names[1:]:
            directions.append("minimize")
        return directions

    @property
    def metric_names(self) -> list[str]:
        """Names of the study's objectives."""
        if self.form == "constraint":
            return [self.metric]
        if self.form != "pareto":
            return [f"{self.metric} ({self.form})"]
        if self.is_relative:
            return [self.metric, f"relative {self.against}"]
        if len(self.models) == 1:
            return [self.metric, self.against]
        return [self.metric, *(f"{self.against}@{name}" for name in self.models)]

    # -- one trial --------------------------------------------------------------------------------

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Optuna's objective.

        Raises:
            TrialPruned: the architecture is over the budget, or another worker is training it now.
            ObjectiveError: the study has other directions, or the metric is not a finite number.
        """
        self._check_study(trial)
        architecture = self.build(trial)
        judgement = self.judge(architecture, trial.params)
        for key, excess in judgement.excess.items():
            trial.set_constraint(key, excess)
        attribute = {"key": judgement.key, **judgement.facts}
        if not judgement.feasible:
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "rejected"})
            worst = max(judgement.excess, key=lambda key: judgement.excess[key])
            times = f"{worst} is {1 + judgement.excess[worst]:.3g} times its limit"
            raise optuna.TrialPruned(f"over the budget before training: {times}")
        metric = self._claims.claim(trial, attribute)
        if metric is None:
            metric = self._train(architecture, trial, attribute)
        return self.score(metric, judgement)

    def _check_study(self, trial: Any) -> None:
        study = getattr(trial, "study", None)
        if study is None:  # an optuna.trial.FixedTrial
            return
        directions = [d.name.lower() for d in study.directions]
        if directions != self.directions:
            raise ObjectiveError(
                f"form {self.form!r} needs a study with directions={self.directions} ({', '.join(self.metric_names)}), "
                f"but this one has {directions}"
            )

    def judge(self, architecture: Any, params: Mapping[str, Any]) -> Judgement:
        """Estimate the architecture that `build` made of `params`, and compare it with the budget."""
        return self._judge.judge(architecture, params, self.build)

    def breakdown(self, architecture: Any) -> dict[str, Any]:
        """Which kernel or block of an architecture costs what on each device, as JSON; see `artifacts`."""
        return self._judge.breakdown(architecture)

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
        trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "trained", METRIC: metric})
        return metric

    def score(self, metric: float, judgement: Judgement) -> float | tuple[float, ...]:
        """What Optuna optimises, made of the metric and of the predicted costs."""
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
        """One relative cost of those on each device: the largest, or the weighted mean."""
        if not isinstance(self.across, Mapping):
            return max(ratios.values())
        return sum(self.across[name] * r for name, r in ratios.items()) / sum(self.across.values())

    def _targets(self) -> dict[str, float]:
        """The limit, on each device, of the quantity that is traded against the metric; in SI units."""
        targets = {limit.device: limit.most for limit in self.limits if limit.quantity == self.against}
        missing = [name for name in self.models if name not in targets]
        if missing:
            raise BudgetError(f"form {self.form!r} needs a budget of {self.against} for {', '.join(missing)}")
        return targets


__all__ = ["FORMS", "Form", "Judgement", "LatencyObjective", "ObjectiveError"]
