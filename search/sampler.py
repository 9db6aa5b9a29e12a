"""The samplers of an architecture search.

`ArchitectureSampler`, which `run_study` chooses, is Bayesian optimisation that uses what a search of
architectures knows and a general sampler does not: the cost of every candidate before it is trained, so
that only feasible ones are proposed and the cost is a feature of the surrogate; that places with the same
choices resemble each other; what the space tells of an architecture (`Space.features`); that nothing is worth
training twice.

1. The first trials are random, and those over the budget are rejected in the open, which shows how much
   of the space is feasible; after many rejections they are drawn from the feasible pool.
2. From then on: a Gaussian process of the metric (`surrogate`), and from a pool of random feasible
   architectures and neighbours of the best the one with most expected improvement (`ranking`).

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
from hwcost.search.detached_trial import Probe, built, draw, fixed_or_random, random_choice
from hwcost.search.objective import LatencyObjective
from hwcost.search.once import attribute_of, is_training
from hwcost.search.ranking import Encoded, Ranking

Array = NDArray[np.float64]
_LOOKS, _LOOKS_AT_MODULES = 3000, 300  # random architectures looked at for the first pool
_PARENTS, _CLIMBS = 6, 3
_REJECTIONS = 100  # random proposals without a training before the start is drawn from the pool
_TRIES = 50  # of another sampler, before the nearest feasible candidate is taken


class _Proposing(optuna.samplers.BaseSampler):
    """A sampler that proposes whole candidates, from a pool of feasible ones."""

    def __init__(self, objective: LatencyObjective, seed: int, looks: int | None) -> None:
        self._objective, self._seed, self._looks = objective, seed, looks
        self._start()

    def _start(self) -> None:
        self._pool = Pool(self._objective)
        self._lock = threading.RLock()
        self._proposed: dict[int, Candidate] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_pool", "_proposed")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def pool(self) -> Pool:
        """The feasible candidates, filled when first asked for."""
        with self._lock:
            if not self._pool.feasible:
                self._pool.fill(np.random.default_rng([self._seed, 1]), self.looks // 3, self.looks)
            return self._pool

    @property
    def looks(self) -> int:
        """Architectures to look at for the first pool; what is looked at for a proposal is in proportion."""
        if self._looks is None:
            choose = random_choice(np.random.default_rng(self._seed))
            looked = (built(self._objective.build, choose)[1] for _ in range(_LOOKS))
            some = next((architecture for architecture in looked if architecture is not None), None)
            self._looks = _LOOKS_AT_MODULES if callable(getattr(some, "forward", None)) else _LOOKS
        return self._looks

    def _grow(self, around: list[Candidate], rng: np.random.Generator) -> None:
        self._pool.grow(around, rng, -(-self.looks // 75))

    def propose(self, study: optuna.Study, trial: FrozenTrial, rng: np.random.Generator) -> Candidate | None:
        """The next candidate; None for a random trial."""
        raise NotImplementedError

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Of the candidate that is proposed."""
        with self._lock:
            candidate = self.propose(study, trial, np.random.default_rng([self._seed, 2, trial.number]))
        if candidate is None:
            return {}
        self._proposed[trial.number] = candidate
        return dict(candidate.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The candidate's parameters."""
        candidate = self._proposed.pop(trial.number, None)
        return dict(candidate.params) if candidate else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Random; only where no candidate was proposed."""
        name = sum(ord(c) * 31**i for i, c in enumerate(param_name)) % 2**32
        return draw(param_distribution, np.random.default_rng([self._seed, 3, trial.number, name]))


class ArchitectureSampler(_Proposing):
    """See the module.

    Args:
        objective: the study's objective; its `build` is called with probes.
        seed: of everything random.
        start: random trainings before the surrogate is asked.
        looks: architectures to look at for a first pool, at most, and in proportion for each proposal; None is 3000,
            or 300 where `build` gives modules, each of which must be built and traced to be looked at.
    """

    def __init__(
        self, objective: LatencyObjective, *, seed: int = 0, start: int = 10, looks: int | None = None
    ) -> None:
        super().__init__(objective, seed, looks)
        self._first = start
        self._known: dict[int, Candidate] = {}
        self._encoded = Encoded(objective.build)
        self.fruitless = 0  # proposals in a row that found nothing feasible that is not trained already

    def propose(self, study: optuna.Study, trial: FrozenTrial, rng: np.random.Generator) -> Candidate | None:
        """Random at first, then the candidate with most expected improvement."""
        trials = study.get_trials(deepcopy=False)
        trained = [t for t in trials if is_training(t)]
        starting = len(trained) < self._first
        if starting and len(trials) - len(trained) < _REJECTIONS:
            return None
        self.pool.explore(rng, self.looks // 50)
        self._grow(self._best(trained), rng)
        taken = {attribute_of(t).get("key") for t in trials if t.state in (TrialState.COMPLETE, TrialState.RUNNING)}
        free = self._free(taken)
        self.fruitless = 0 if free else self.fruitless + 1
        if not free:
            return None
        if starting:
            return free[int(rng.integers(len(free)))]
        running = [t for t in trials if t.state == TrialState.RUNNING and attribute_of(t).get("key")]
        return self._climb(self._ranking(trained, running, free, rng), free, taken, rng)

    def _free(self, taken: set[Any]) -> list[Candidate]:
        return [c for key, c in self.pool.feasible.items() if key not in taken]

    def _climb(self, ranking: Ranking, free: list[Candidate], taken: set[Any], rng: np.random.Generator) -> Candidate:
        """The candidate that ranks first, after looking at the neighbours of those that do."""
        scores = ranking(free)
        for _ in range(_CLIMBS):
            first = [free[int(i)] for i in np.argsort(-scores, kind="stable")[:_PARENTS]]
            known = len(self.pool.feasible)
            self._grow(first, rng)
            new = [c for c in list(self.pool.feasible.values())[known:] if c.judgement.key not in taken]
            if new:
                free, scores = [*free, *new], np.concatenate([scores, ranking(new)])
        return free[int(np.argmax(scores))]

    def _ranking(
        self,
        trained: Sequence[FrozenTrial],
        running: Sequence[FrozenTrial],
        free: Sequence[Candidate],
        rng: np.random.Generator,
    ) -> Ranking:
        values = np.array([self._upward(t)[0] for t in trained])
        device = int(rng.integers(len(self._objective.models)))
        old, now = [self._candidate(t) for t in trained], [self._candidate(t) for t in running]
        self._encoded.learn([*old, *now, *free])
        several = len(self._objective.directions) > 1
        return Ranking(self._encoded, old, values, now, free, device=device, several=several, rng=rng)

    def _best(self, trained: Sequence[FrozenTrial]) -> list[Candidate]:
        """The trained architectures whose neighbours are worth looking at: the front, and the best by metric."""
        if not trained:
            return []
        values = np.array([self._upward(t) for t in trained])
        order = np.argsort(-values[:, 0], kind="stable")
        front = [i for i in order if not (np.all(values >= values[i], 1) & np.any(values > values[i], 1)).any()]
        chosen = dict.fromkeys([*front[:_PARENTS], *order[:_PARENTS].tolist()])
        return [self._candidate(trained[i]) for i in list(chosen)[: 2 * _PARENTS]]

    def _candidate(self, trial: FrozenTrial) -> Candidate:
        known = self._known.get(trial.number)
        if known is None:
            probe = Probe(fixed_or_random(trial.params, np.random.default_rng(self._seed)))
            judgement = self._objective.judge(self._objective.build(probe), probe.params)
            known = self._known[trial.number] = Candidate(probe.params, probe.distributions, judgement)
        return known

    def _upward(self, trial: FrozenTrial) -> list[float]:
        """The trial's values, all to be maximised."""
        signs = [1.0 if d == "maximize" else -1.0 for d in self._objective.directions]
        return [s * v for s, v in zip(signs, trial.values or (), strict=True)]


class FeasibleSampler(_Proposing):
    """Makes `base` propose feasible architectures only.

    For samplers that ignore pruned trials (random, GP, NSGA-II), which otherwise propose what is over the budget
    again and again. What `base` proposes is judged before the trial sees it; after some infeasible proposals the
    feasible candidate with fewest differing parameters is taken.
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
        """The first feasible proposal of the base sampler, or the feasible candidate nearest to one."""
        wished: Candidate | None = None
        for _ in range(_TRIES):
            asked = self._ask(study, trial)
            if asked.judgement.feasible:
                return asked
            if wished is not None and asked.params == wished.params:
                break  # a sampler that is certain
            wished = asked
        assert wished is not None
        self._grow([wished], rng)
        return min(self.pool.feasible.values(), key=lambda c: _differences(c, wished))

    def _ask(self, study: optuna.Study, trial: FrozenTrial) -> Candidate:
        space = self._base.infer_relative_search_space(study, trial)
        relative = self._base.sample_relative(study, trial, space)

        def choose(name: str, distribution: BaseDistribution) -> Any:
            if name in relative:
                return relative[name]
            return self._base.sample_independent(study, trial, name, distribution)

        return self._pool.look(choose)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As the base sampler does."""
        self._base.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the base sampler does."""
        self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """As the base sampler does."""
        self._base.reseed_rng()


def _differences(a: Candidate, b: Candidate) -> int:
    names = a.params.keys() | b.params.keys()
    return sum(a.params.get(n, ...) != b.params.get(n, ...) for n in names)
