"""The samplers of an architecture search.

`ArchitectureSampler`, the default of `run_study`, is Bayesian optimisation that uses what a search of architectures
knows and a general sampler does not:

* The cost of every architecture is known before it is trained. Only feasible ones are proposed, and the cost is an
  input of the surrogate.
* Parameters with the same list of choices have similar effects, and the space may tell more of an architecture than its
  parameters do (`encoding`).
* No architecture is worth training twice.

It proposes in two phases:

1. Random architectures until enough are trained. Those over the budget are rejected as trials of the study, which
   shows how much of the space is feasible. After many rejections the rest are drawn from a pool of feasible ones.
2. From then on a Gaussian process predicts the metric (`surrogate`). Of a pool of random feasible architectures and of
   neighbours of the best, the one with the largest expected improvement is proposed (`ranking`).

`FeasibleSampler` makes any other sampler propose feasible architectures only.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hwcost.search.candidates import Candidate, Pool
from hwcost.search.detached_trial import DetachedTrial, draw, fixed_chooser, random_chooser, try_build
from hwcost.search.objective import LatencyObjective
from hwcost.search.once import attribute_of, is_training
from hwcost.search.ranking import CachedViews, Ranking

Array = NDArray[np.float64]
_LOOKS = 3000  # architectures that are examined for the first pool
_LOOKS_AT_MODULES = 300  # the same where `build` gives modules, which take longer to build and estimate
_PARENTS = 6  # of the front, of the best by metric and of those that rank first: those whose neighbours are examined
_CLIMBS = 3  # rounds of examining the neighbours of the candidates that rank first
_REJECTIONS = 100  # trials without a training, after which the first phase draws from the pool
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
        self._lock = threading.RLock()
        self._proposed: dict[int, Candidate] = {}  # number of a trial -> its candidate

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_pool", "_proposed")}

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
            first = next((architecture for architecture in architectures if architecture is not None), None)
            self._looks = _LOOKS_AT_MODULES if callable(getattr(first, "forward", None)) else _LOOKS
        return self._looks

    def _examine_neighbours(self, parents: list[Candidate], rng: np.random.Generator) -> None:
        """Examine neighbours of each parent, 40 for 3000 `looks` and 4 for 300; feasible ones join the pool."""
        each = -(-self.looks // 75)  # rounded up
        self._pool.examine_neighbours(parents, rng, each)

    # -- what Optuna calls ------------------------------------------------------------------------

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The distributions of the candidate that is proposed for `trial`; empty for a random trial."""
        with self._lock:
            candidate = self.propose(study, trial, np.random.default_rng([self._seed, 2, trial.number]))
        if candidate is None:
            return {}
        self._proposed[trial.number] = candidate
        return dict(candidate.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of the candidate that is proposed for `trial`."""
        candidate = self._proposed.pop(trial.number, None)
        return dict(candidate.params) if candidate else {}

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
        self._candidates: dict[int, Candidate] = {}  # number of a trial -> its candidate
        self._views = CachedViews(objective.build)
        self.fruitless = 0  # proposals in a row for which all feasible candidates were trained already

    def propose(self, study: optuna.Study, trial: FrozenTrial, rng: np.random.Generator) -> Candidate | None:
        """Random at first, then the candidate with the largest expected improvement."""
        trials = study.get_trials(deepcopy=False)
        trained = [t for t in trials if is_training(t)]
        starting = len(trained) < self._trainings_to_start
        if starting and len(trials) - len(trained) < _REJECTIONS:
            return None
        self.pool.explore(rng, self.looks // 50)
        self._examine_neighbours(self._best(trained), rng)
        taken = {attribute_of(t).get("key") for t in trials if t.state in (TrialState.COMPLETE, TrialState.RUNNING)}
        free = [candidate for key, candidate in self.pool.feasible.items() if key not in taken]
        if not free:
            self.fruitless += 1
            return None
        self.fruitless = 0
        if starting:
            return free[int(rng.integers(len(free)))]
        running = [t for t in trials if t.state == TrialState.RUNNING and attribute_of(t).get("key")]
        ranking = self._rank(trained, running, free, rng)
        return self._climb(ranking, free, taken, rng)

    def _best(self, trained: Sequence[FrozenTrial]) -> list[Candidate]:
        """The trained architectures whose neighbours are examined: some of the front, and the best by metric."""
        if not trained:
            return []
        values = np.array([self._to_maximise(t) for t in trained])  # [trial, objective]
        order = np.argsort(-values[:, 0], kind="stable")
        front = []
        for i in order:
            dominates = np.all(values >= values[i], axis=1) & np.any(values > values[i], axis=1)
            if not dominates.any():
                front.append(i)
        chosen = list(dict.fromkeys([*front[:_PARENTS], *order[:_PARENTS].tolist()]))
        return [self._candidate(trained[i]) for i in chosen[: 2 * _PARENTS]]

    def _rank(
        self,
        trained: Sequence[FrozenTrial],
        running: Sequence[FrozenTrial],
        free: Sequence[Candidate],
        rng: np.random.Generator,
    ) -> Ranking:
        """A ranking by the metric, and by the cost on one device, drawn at random, where cost is an objective too."""
        metrics = np.array([self._to_maximise(t)[0] for t in trained])
        device = int(rng.integers(len(self._objective.models)))
        trained_candidates = [self._candidate(t) for t in trained]
        running_candidates = [self._candidate(t) for t in running]
        self._views.add_parameters([*trained_candidates, *running_candidates, *free])
        return Ranking(
            self._views,
            trained_candidates,
            metrics,
            running_candidates,
            free,
            device=device,
            several=len(self._objective.directions) > 1,
            rng=rng,
        )

    def _climb(self, ranking: Ranking, free: list[Candidate], taken: set[Any], rng: np.random.Generator) -> Candidate:
        """The candidate that ranks first, among `free` and neighbours of those at the top, examined `_CLIMBS` times.

        Args:
            ranking: scores candidates.
            free: feasible candidates that are not trained.
            taken: keys of the architectures that are trained or being trained.
            rng: draws the neighbours.
        """
        scores = ranking(free)
        for _ in range(_CLIMBS):
            first = [free[int(i)] for i in np.argsort(-scores, kind="stable")[:_PARENTS]]
            before = len(self.pool.feasible)
            self._examine_neighbours(first, rng)
            new = [c for c in list(self.pool.feasible.values())[before:] if c.judgement.key not in taken]
            if new:
                free = [*free, *new]
                scores = np.concatenate([scores, ranking(new)])
        return free[int(np.argmax(scores))]

    def _candidate(self, trial: FrozenTrial) -> Candidate:
        """The candidate of a trial, built anew from its parameters."""
        candidate = self._candidates.get(trial.number)
        if candidate is None:
            detached = DetachedTrial(fixed_chooser(trial.params, np.random.default_rng(self._seed)))
            judgement = self._objective.judge(self._objective.build(detached), detached.params)
            candidate = Candidate(detached.params, detached.distributions, judgement)
            self._candidates[trial.number] = candidate
        return candidate

    def _to_maximise(self, trial: FrozenTrial) -> list[float]:
        """The values of a trial, with the sign of those that are minimised changed."""
        signs = [1.0 if direction == "maximize" else -1.0 for direction in self._objective.directions]
        return [sign * value for sign, value in zip(signs, trial.values or (), strict=True)]


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
        """The first feasible proposal of the other sampler, or the feasible candidate nearest to its last one."""
        rejected: Candidate | None = None
        for _ in range(_TRIES):
            proposal = self._ask_base(study, trial)
            if proposal.judgement.feasible:
                return proposal
            if rejected is not None and proposal.params == rejected.params:
                break  # a deterministic sampler would repeat itself
            rejected = proposal
        assert rejected is not None
        last = rejected
        self._examine_neighbours([last], rng)
        return min(self.pool.feasible.values(), key=lambda candidate: _differences(candidate, last))

    def _ask_base(self, study: optuna.Study, trial: FrozenTrial) -> Candidate:
        space = self._base.infer_relative_search_space(study, trial)
        relative = self._base.sample_relative(study, trial, space)

        def choose(name: str, distribution: BaseDistribution) -> Any:
            if name in relative:
                return relative[name]
            return self._base.sample_independent(study, trial, name, distribution)

        return self._pool.examine(choose)

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


def _differences(a: Candidate, b: Candidate) -> int:
    """Number of parameters in which two candidates differ; one that only one of them has counts."""
    names = a.params.keys() | b.params.keys()
    return sum(a.params.get(n, ...) != b.params.get(n, ...) for n in names)
