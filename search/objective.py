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

Each trial keeps one small user attribute, "hwcost" (`once`), and the study a record of what its trials were made with
(`record`), which is compared before the first trial.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import optuna

from hwcost.search import penalties
from hwcost.search.artifacts import keep
from hwcost.search.budgets import QUANTITIES, Budget, BudgetError, Limit, parse_budget
from hwcost.search.detached_trial import Invalid, building_for, reason_of
from hwcost.search.identity import Watched
from hwcost.search.judging import Judge, Judgement, ObjectiveError, with_own
from hwcost.search.lenient import lenient
from hwcost.search.models import as_models
from hwcost.search.once import ATTRIBUTE, METRIC, TUNED, Claims, set_constraints
from hwcost.search.protocols import Build, Evaluate, LatencyModel
from hwcost.search.record import Checked

Form = Literal["constraint", "pareto", "mnas-soft", "mnas-hard", "tunas-absolute", "one-sided", "linear"]
FORMS: tuple[Form, ...] = get_args(Form)
Direction = penalties.Direction
_FAILURES = 200  # trials without an architecture, before the first that has one
_OF_SAMPLERS = {"before_trial", "infer_relative_search_space", "sample_relative", "sample_independent"}


class LatencyObjective:
    """See the module. Picklable where `build`, `evaluate`, `inputs` and the models are.

    Args:
        build: `build(trial)` is cheap and gives the architecture: an nn.Module, or whatever the model takes.
        evaluate: `evaluate(architecture, trial)` trains it and gives the metric. It may ask the trial for parameters of
            the training, report values to a pruner, and set constraints and attributes. NaN is a failed trial.
        model: a CostModel, a LatencyTable, anything with `estimate(architecture, inputs)` that gives `.latency` in
            seconds, and `.low` and `.high` where it knows them; a function of the architecture, or a look-up of one's
            own (`models`); or a mapping with one of these for each device, by name.
        inputs: example inputs for the model, or a function of the architecture that gives them.
        budget: "5 ms", a number of seconds below 1, or a mapping of several limits (`budgets`).
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
        data: name of what is trained on, a part of the study's record.

    Raises:
        ObjectiveError, BudgetError, PenaltyError, UnitError: an argument breaks a rule.
    """

    def __init__(
        self,
        build: Build,
        evaluate: Evaluate,
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
        data: str | None = None,
    ) -> None:
        self.build = build
        self.evaluate = evaluate
        self.inputs = inputs
        self.models: dict[str, LatencyModel] = as_models(model)
        if form in penalties.WEIGHTS:
            penalties.check(form, direction, weight)
        self.limits = parse_budget(budget, tuple(self.models))
        self.form = form
        self.direction = direction
        self.confidence = confidence
        self.against = against
        self.across = across
        self.weight = weight
        self.metric = metric
        self.artifacts = artifacts
        self.data = data
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
        self._checked = Checked()
        self._failures = 0  # trials that made no architecture; -1 once one did
        self._watched = Watched(self.evaluate)
        self._judge = Judge(self.models, self.inputs, self.gate, self.against, self.confidence)

    def __getstate__(self) -> dict[str, Any]:
        own = ("_claims", "_judge", "_checked", "_watched", "_failures")
        return {name: value for name, value in self.__dict__.items() if name not in own}

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
            TrialPruned: the architecture is over the budget, or cannot be built or traced; another worker is training
                it now, or it was pruned before; or `evaluate` prunes it.
            ObjectiveError: the study has other directions, or the metric is no number.
            StudyError: the study's trials were made with something else.
        """
        study: optuna.Study | None = getattr(trial, "study", None)
        if study is None:  # an optuna.trial.FixedTrial
            return self._run(trial)
        with building_for(study):
            self.check_study(study)
            study.sampler = lenient(study.sampler)
            return self._run(trial)

    def _run(self, trial: Any) -> float | tuple[float, ...]:
        judgement, architecture = self._judge_trial(trial)
        attribute = {"key": judgement.key, **judgement.facts}
        if not judgement.feasible:
            set_constraints(trial, {name: min(excess, 1e9) for name, excess in judgement.excess.items()})
            reason = {"reason": judgement.reason} if judgement.reason else {}
            trial.set_user_attr(ATTRIBUTE, {**attribute, "state": "rejected", **reason})
            raise optuna.TrialPruned(_rejection(judgement, trial.params))
        built = list(trial.params)
        try:
            found = self._claims.claim(trial, attribute, judgement.ours)
            metric = self._train(architecture, trial, attribute, built) if found is None else _metric(trial)
        finally:
            # Of two constraints with one name Optuna keeps the first, so the user's own come first.
            own = {name: value for name, value in trial.constraints.items() if not name.isdecimal()}
            set_constraints(trial, with_own(judgement.ours, own))
        return metric if math.isnan(metric) else self.score(metric, judgement)

    def _judge_trial(self, trial: Any) -> tuple[Judgement, Any]:
        """The judgement of what `build` makes for a trial, and the architecture."""
        try:
            architecture = self.build(trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            if _is_of_sampler(error):
                raise
            architecture = Invalid(reason_of(error))
        judgement = self.judge(architecture, trial.params, trial.constraints)
        self._count_failures(judgement, trial.params)
        return judgement, architecture

    def _count_failures(self, judgement: Judgement, params: Mapping[str, Any]) -> None:
        """Raise an ObjectiveError where all of many trials made no architecture: `build` or `inputs` is wrong then."""
        if not judgement.reason:
            self._failures = -1
        elif self._failures >= 0:
            self._failures += 1
            if self._failures >= _FAILURES:
                raise ObjectiveError(
                    f"none of {_FAILURES} architectures can be built and traced; the last, {dict(params)!r:.200}: "
                    f"{judgement.reason}"
                )

    def check_study(self, study: optuna.Study, *, space: bool = False) -> None:
        """Compare the study with this objective (`record`), with or without the parameters of its space.

        Raises:
            ObjectiveError, StudyError: as of a call.
        """
        directions = [d.name.lower() for d in study.directions]
        if directions != self.directions:
            raise ObjectiveError(
                f"form {self.form!r} needs a study with directions={self.directions} ({', '.join(self.metric_names)}), "
                f"but this one has {directions}"
            )
        self._checked.check(self, study, space=space)

    def judge(
        self, architecture: Any, params: Mapping[str, Any], constraints: Mapping[str, float] | None = None
    ) -> Judgement:
        """Estimate the architecture that `build` made of `params`, and compare it with the budget.

        `constraints` are those that `build` has set itself; a value above 0 makes the architecture infeasible too.
        """
        return self._judge.judge(architecture, params, self.build, constraints)

    def breakdown(self, architecture: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """Which kernel or block of an architecture costs what on each device, as JSON; see `artifacts`."""
        return self._judge.breakdown(architecture, params)

    @property
    def training(self) -> Watched:
        """What `evaluate` is configured with."""
        if self._watched.of is not self.evaluate:  # it was replaced
            self._watched = Watched(self.evaluate)
        return self._watched

    def _train(self, architecture: Any, trial: Any, attribute: Mapping[str, Any], built: Collection[str]) -> float:
        """The metric of a training; NaN where the training gave that.

        The attribute of the trial tells how it ended. An error of the training is raised again. `built` are the names
        of the parameters that `build` has asked for.
        """

        def ended(state: str, **more: Any) -> None:
            tuned = [name for name in trial.params if name not in built]
            known = {**attribute, **({TUNED: tuned} if tuned else {})}
            trial.set_user_attr(ATTRIBUTE, {**known, "state": state, **more})

        try:
            with self.training.running():
                value = self.evaluate(architecture, trial)
            metric = _number(value, trial)
        except optuna.TrialPruned:
            ended("pruned")
            raise
        except Exception as error:
            ended("failed", error=reason_of(error), **({"memory": True} if _of_memory(error) else {}))
            raise
        if math.isnan(metric):
            ended("failed", error="it gave NaN")
            return metric
        if self.artifacts is not None:
            keep(trial, self.breakdown(architecture, trial.params), self.artifacts)
        ended("trained", **{METRIC: metric})
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


def _is_of_sampler(error: BaseException) -> bool:
    """Whether an error that came out of `build` was raised by the study's sampler, which a trial asks for values."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in _OF_SAMPLERS:
            return True
        trace = trace.tb_next
    return False


def _rejection(judgement: Judgement, params: Mapping[str, Any]) -> str:
    """Why an architecture is not trained, for the log."""
    if judgement.reason:
        return f"no architecture can be made of {dict(params)!r:.200}: {judgement.reason}"
    worst = max(judgement.excess, key=lambda key: judgement.excess[key])
    if worst in judgement.own:
        return f"constraint {worst!r} is broken before training: {judgement.excess[worst]:.3g}"
    return f"over the budget before training: {worst} is {1 + judgement.excess[worst]:.3g} times its limit"


def _number(value: Any, trial: Any) -> float:
    """The metric that a training gave.

    Raises:
        ObjectiveError: it is no number, or infinite.
    """
    try:
        metric = float(value)
    except (TypeError, ValueError):
        raise ObjectiveError(f"evaluate must return a number, but returned {value!r:.80}") from None
    if math.isinf(metric):
        raise ObjectiveError(
            f"evaluate must return a finite number, but returned {metric} in trial {trial.number} "
            f"({dict(trial.params)}); return the worst possible value for a training that diverged"
        )
    return metric


def _of_memory(error: Exception) -> bool:
    """Whether a training ran out of memory."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _metric(trial: Any) -> float:
    """The metric that a trial has from another one."""
    return float(trial.user_attrs[ATTRIBUTE][METRIC])


__all__ = ["FORMS", "Form", "Judgement", "LatencyObjective", "ObjectiveError"]
