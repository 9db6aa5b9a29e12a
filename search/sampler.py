"""The samplers of an architecture search.

`ArchitectureSampler`, the default of `run_study`, is Bayesian optimisation that uses what a search of architectures
knows and a general sampler does not:

* The cost of every architecture is known before it is trained. Only feasible ones are proposed, and the cost is an
  input of the surrogate.
* Parameters with the same list of choices have similar effects, and the space may tell more of an architecture than its
  parameters do (`encoding`).
* No architecture is worth training twice, unless its training has parameters of its own: then these are searched
  together with it (`joint`).

It proposes in two phases:

1. Random architectures until enough are trained. Those over the budget are rejected as trials of the study, which
   shows how much of the space is feasible. After many rejections the rest are drawn from a pool of feasible ones.
2. From then on a Gaussian process predicts the metric (`surrogate`). Of a pool of random feasible architectures and of
   neighbours of the best, the one with the largest expected improvement is proposed (`ranking`).

`FeasibleSampler` makes any other sampler propose feasible architectures only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hwcost.search.candidates import Candidate, Pool
from hwcost.search.detached_trial import Invalid, building_for, draw, random_chooser, try_build
from hwcost.search.joint import best_of, drawn, with_tuned
from hwcost.search.learning import Learner, Lesson, whole
from hwcost.search.objective import LatencyObjective
from hwcost.search.once import tuned_of
from hwcost.search.ranking import CachedViews, Ranking

_LOOKS = 3000  # architectures that are examined for the first pool
_LOOKS_AT_MODULES = 300  # the same where `build` gives modules, which take longer to build and estimate
_PARENTS = 6  # of the front, of the best by metric and of those that rank first: those whose neighbours are examined
_CLIMBS = 3  # rounds of examining the neighbours of the candidates that rank first
_REJECTIONS = 100  # trials without a training, after which the first phase draws from the pool
_TUNED = 16  # architectures that are ranked with many parameters of the training
_CHEAP = (
    optuna.samplers.RandomSampler,
    optuna.samplers.QMCSampler,
    optuna.samplers.NSGAIISampler,
    optuna.samplers.CmaEsSampler,
)
_TRIES = 50  # proposals of another sampler, before the nearest feasible candidate is taken


class _PoolSampler(optuna.samplers.BaseSampler):
    """A sampler that proposes whole architectures from a pool of feasible ones; `propose` chooses."""

    def __init__(self, objective: LatencyObjective, seed: int, looks: int | None) -> None:
        self._objective = objective
        self._seed = seed
        self._looks = looks
        self._start()

    def _start(self) -> None:
        """Make what belongs to one process and is never pickled."""
        self._pool = Pool(self._objective)
        self._learner = Learner(self._objective)
        self._lock = threading.RLock()
        self._proposed: dict[int, Candidate] = {}  # number of a trial -> its candidate

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_pool", "_learner", "_proposed")
        return {k: v for k, v in self.__dict__.items() if k not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def propose(self, study: optuna.Study, trial: FrozenTrial, rng: np.random.Generator) -> Candidate | None:
        """The architecture of the next trial; None for a random one."""
        raise NotImplementedError

    @property
    def pool(self) -> Pool:
        """The feasible candidates; random ones are examined first where there is none yet."""
        with self._lock:
            if not self._pool.feasible:
                self._pool.fill(np.random.default_rng([self._seed, 1]), self.looks // 3, self.looks)
            return self._pool

    @property
    def looks(self) -> int:
        """Architectures that are examined for a first pool, at most; for each proposal it is a fixed share of that."""
        if self._looks is None:
            choose = random_chooser(np.random.default_rng(self._seed))
            architectures = (try_build(self._objective.build, choose)[1] for _ in range(_LOOKS))
            first = next((a for a in architectures if not isinstance(a, Invalid)), None)
            self._looks = _LOOKS_AT_MODULES if callable(getattr(first, "forward", None)) else _LOOKS
        return self._looks

    def _examine_neighbours(self, parents: list[Candidate], rng: np.random.Generator) -> None:
        """Examine neighbours of each parent, 40 for 3000 `looks` and 4 for 300; feasible ones join the pool."""
        each = -(-self.looks // 75)  # rounded up
        self._pool.examine_neighbours(parents, rng, each)

    # -- what Optuna calls ------------------------------------------------------------------------

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The distributions of the candidate that is proposed for `trial`; empty for a random trial."""
        with self._lock, building_for(whole(study)):
            fixed = _fixed_params(study.sampler)
            if fixed != self._pool.fixed:
                self._pool = Pool(self._objective, fixed)
            candidate = self.propose(study, trial, np.random.default_rng([self._seed, 2, trial.number]))
        if candidate is None:
            return {}
        self._proposed[trial.number] = candidate
        return dict(candidate.all_distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of the candidate that is proposed for `trial`, those in `search_space`."""
        candidate = self._proposed.pop(trial.number, None)
        return {n: v for n, v in candidate.all_params.items() if n in search_space} if candidate else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, of a parameter that the candidate has not; it depends on seed, trial and name alone."""
        name = sum(ord(c) * 31**i for i, c in enumerate(param_name)) % 2**32
        return draw(param_distribution, np.random.default_rng([self._seed, 3, trial.number, name]))


class ArchitectureSampler(_PoolSampler):
    """See the module.

    Args:
        objective: the study's objective; its `build` is called with detached trials too.
        seed: of everything random.
        start: trainings before the second phase.
        looks: architectures to examine for a first pool, at most; for each proposal it is a share of that. None is
            3000, or 300 where `build` gives modules, each of which must be built and traced.
    """

    def __init__(
        self, objective: LatencyObjective, *, seed: int = 0, start: int = 10, looks: int | None = None
    ) -> None:
        super().__init__(objective, seed, looks)
        self._trainings_to_start = start
        self._views = CachedViews(objective.build)
        self.fruitless = 0  # proposals in a row for which all feasible candidates were trained already

    def propose(self, study: optuna.Study, trial: FrozenTrial, rng: np.random.Generator) -> Candidate | None:
        """Random at first, then the candidate with the largest expected improvement."""
        trials = whole(study).get_trials(deepcopy=False)
        lesson = self._learner.lesson(trials)
        done = len(lesson.trials)
        starting = done < self._trainings_to_start
        if starting and len(trials) - done < _REJECTIONS:
            return None
        self.pool.explore(rng, self.looks // 50)
        self._examine_neighbours(self._best(lesson), rng)
        free = [candidate for key, candidate in self.pool.feasible.items() if key not in lesson.taken]
        if not free:
            self.fruitless += 1
            return None
        self.fruitless = 0
        if starting:
            return free[int(rng.integers(len(free)))]
        ranking = self._rank(lesson, free, rng)
        if not lesson.tuned:
            return self._climb(ranking, free, lesson.taken, rng)[0]
        return self._tune(whole(study), trial, lesson, ranking, free, rng)

    def _best(self, lesson: Lesson) -> list[Candidate]:
        """The trained architectures whose neighbours are examined: some of the front, and the best by metric."""
        values = lesson.values
        order = np.argsort(-values[:, 0], kind="stable")
        front = []
        for i in order:
            dominates = np.all(values >= values[i], axis=1) & np.any(values > values[i], axis=1)
            if not dominates.any():
                front.append(i)
        chosen = list(dict.fromkeys([*front[:_PARENTS], *order[:_PARENTS].tolist()]))
        return [lesson.candidates[i] for i in chosen[: 2 * _PARENTS]]

    def _rank(self, lesson: Lesson, free: Sequence[Candidate], rng: np.random.Generator) -> Ranking:
        """A ranking by the metric, and by the cost on one device, drawn at random, where cost is an objective too."""
        device = int(rng.integers(len(self._objective.models)))
        self._views.add_parameters([*lesson.candidates, *lesson.running, *free])
        return Ranking(
            self._views,
            lesson.candidates,
            lesson.values[:, 0],
            lesson.running,
            free,
            device=device,
            several=len(self._objective.directions) > 1,
            rng=rng,
        )

    def _tune(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        lesson: Lesson,
        ranking: Ranking,
        free: Sequence[Candidate],
        rng: np.random.Generator,
    ) -> Candidate | None:
        """The architecture and the parameters of its training that rank first together.

        Architectures are ranked with the parameters of the best training first, and those at the top then with many.
        """
        values = dict(zip((t.number for t in lesson.trials), lesson.values[:, 0].tolist(), strict=True))
        best = best_of(lesson.tuned, values, _PARENTS)
        tuned = drawn(study, trial, lesson.tuned, best, rng)
        usual = (tuned_of(best[0]), {name: best[0].distributions[name] for name in tuned_of(best[0])})
        architectures = self._climb(ranking, [with_tuned(c, usual) for c in free], lesson.taken, rng)
        joint = [with_tuned(c, t) for c in architectures[:_TUNED] for t in tuned]
        new = [c for c in joint if c.key not in lesson.taken]
        if not new:
            self.fruitless += 1
            return None
        return new[int(np.argmax(ranking(new)))]

    def _climb(
        self, ranking: Ranking, free: list[Candidate], taken: set[str], rng: np.random.Generator
    ) -> list[Candidate]:
        """`free` and neighbours of those at the top, examined `_CLIMBS` times, in the order of their rank.

        Args:
            ranking: scores candidates.
            free: feasible candidates that are not trained, all with the same parameters of the training, if any.
            taken: keys of the candidates that are trained or being trained.
            rng: draws the neighbours.
        """
        tuned = free[0].tuned, free[0].tuned_distributions
        scores = ranking(free)
        for _ in range(_CLIMBS):
            first = [free[int(i)] for i in np.argsort(-scores, kind="stable")[:_PARENTS]]
            before = len(self.pool.feasible)
            self._examine_neighbours(first, rng)
            new = [with_tuned(c, tuned) for c in list(self.pool.feasible.values())[before:]]
            new = [c for c in new if c.judgement.key not in taken]
            if new:
                free = [*free, *new]
                scores = np.concatenate([scores, ranking(new)])
        return [free[int(i)] for i in np.argsort(-scores, kind="stable")]


class FeasibleSampler(_PoolSampler):
    """Makes another sampler propose feasible architectures only.

    Meant for samplers that do not learn from pruned trials (random, GP, NSGA-II) and would propose what is over the
    budget again and again. What `base` proposes is judged before it becomes a trial. If too many proposals are over the
    budget, the feasible candidate that differs in the fewest parameters is taken.

    Args:
        base: the other sampler.
        objective: the study's objective; its `build` is called with detached trials too.
        seed: of everything random that is not the other sampler's.
        looks: as of `ArchitectureSampler`.
    """

    def __init__(
        self,
        base: optuna.samplers.BaseSampler,
        objective: LatencyObjective,
        *,
        seed: int = 0,
        looks: int | None = None,
    ) -> None:
        super().__init__(objective, seed, looks)
        self._base = base

    def propose(self, study: optuna.Study, trial: FrozenTrial, rng: np.random.Generator) -> Candidate | None:
        """The first feasible proposal of the other sampler, or the feasible candidate nearest to its last one.

        Of candidates that were not trained yet, where there are any.
        """
        rejected: Candidate | None = None
        for _ in range(_TRIES):
            proposal, costly = self._ask_base(study, trial)
            if proposal.judgement.feasible:
                return proposal
            repeats = rejected is not None and proposal.params == rejected.params
            rejected = proposal
            if repeats or costly:
                break  # it would repeat itself, or fit its model once more
        assert rejected is not None
        last = rejected
        self._examine_neighbours([last], rng)
        taken = self._learner.lesson(whole(study).get_trials(deepcopy=False)).taken
        feasible = list(self.pool.feasible.values())
        free = [candidate for candidate in feasible if candidate.judgement.key not in taken] or feasible
        nearest = min(free, key=lambda candidate: _distance(candidate, last))
        return with_tuned(nearest, (dict(last.tuned), dict(last.tuned_distributions)))

    def _ask_base(self, study: optuna.Study, trial: FrozenTrial) -> tuple[Candidate, bool]:
        """A proposal of the other sampler, and whether another one may be costly, because a model is fitted for it."""
        space = self._base.infer_relative_search_space(study, trial)
        relative = self._base.sample_relative(study, trial, space)

        def choose(name: str, distribution: BaseDistribution) -> Any:
            if name in relative:
                return relative[name]
            return self._base.sample_independent(study, trial, name, distribution)

        candidate = self._pool.examine(choose)
        rest = {name: value for name, value in relative.items() if name not in candidate.params}
        proposal = with_tuned(candidate, (rest, {name: space[name] for name in rest}))
        return proposal, bool(relative) and not isinstance(self._base, _CHEAP)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The other sampler's: of a parameter that the architecture has not, such as a learning rate."""
        return self._base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Passed on to the other sampler."""
        self._base.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Passed on to the other sampler."""
        self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Passed on to the other sampler."""
        self._base.reseed_rng()


def _distance(a: Candidate, b: Candidate) -> float:
    """How far two candidates are apart: 1 for each category that differs or that only one has, and for numbers the
    share of the range between them, but at least a little.
    """
    total = 0.0
    for name in a.params.keys() | b.params.keys():
        one, other = a.params.get(name, ...), b.params.get(name, ...)
        if one == other:
            continue
        distribution = a.distributions.get(name)
        if one is ... or other is ... or not isinstance(distribution, (IntDistribution, FloatDistribution)):
            total += 1.0
            continue
        scale = math.log if distribution.log else float
        width = scale(distribution.high) - scale(distribution.low)
        total += 0.05 + 0.95 * abs(scale(one) - scale(other)) / width
    return total


def _fixed_params(sampler: Any) -> dict[str, Any]:
    """The parameters that a PartialFixedSampler fixes, around a sampler or inside of it."""
    fixed: dict[str, Any] = {}
    while sampler is not None:
        fixed = {**getattr(sampler, "_fixed_params", {}), **fixed}
        sampler = getattr(sampler, "_base_sampler", None) or getattr(sampler, "_base", None)
    return fixed
