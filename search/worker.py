"""A worker: runs trials of a study until it has enough trainings, time is up, or nothing is left to train."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import PartialFixedSampler
from optuna.trial import FrozenTrial, TrialState

from hwcost.search.candidates import NothingFits
from hwcost.search.objective import LatencyObjective
from hwcost.search.once import ATTRIBUTE, TrialReader, attribute_of, is_paid
from hwcost.search.sampler import ArchitectureSampler
from hwcost.search.storage import StudyError, without_experimental_warnings

Progress = Callable[..., None]  # called with (trainings done, trainings wanted, "trainings")
Callback = Callable[[optuna.Study, FrozenTrial], None]
# A search ends early after so many in a row of:
_NOTHING_FITS_AFTER = 500  # trials without a training, where no trial of the study was within the budget
_FRUITLESS = 20  # proposals for which an `ArchitectureSampler` has found that everything feasible is trained
_IDLE_AFTER = 2000  # trials without a training, in any case


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How the trials of a search are run, as Optuna's `study.optimize` takes it."""

    catch: tuple[type[Exception], ...] = ()  # errors of a training that do not end the search
    timeout: float | None = None  # seconds of the whole search; a training that is running then ends
    callbacks: Sequence[Callback] = ()


class Worker:
    """Runs trials of a study in this process, in one thread or in several."""

    def __init__(
        self,
        study: optuna.Study,
        objective: LatencyObjective,
        trainings: int,
        progress: Progress | None = None,
        ways: Ways | None = None,
    ) -> None:
        self._study = study
        self._objective = objective
        self._wanted = trainings
        self._progress = progress or (lambda *_: None)
        self._ways = ways or Ways()
        self._end = None if self._ways.timeout is None else time.monotonic() + self._ways.timeout
        self._has_heartbeats = optuna.storages._heartbeat.is_heartbeat_enabled(study._storage)
        self._reported = -1  # trainings that `progress` was told of
        self._reader = TrialReader()
        self._done = 0  # trainings among the trials that the reader does not return again
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run_in_threads(self, threads: int) -> None:
        """`run` in each thread. After an error or Ctrl-C the others end their training and begin no other."""
        with ThreadPoolExecutor(threads) as pool:
            try:
                for done in as_completed([pool.submit(self.run) for _ in range(threads)]):
                    done.result()
            finally:
                self._stopped.set()

    def run(self) -> None:
        """Run trials until the study has enough trainings, or finds nothing new to train."""
        idle, before = 0, -1  # trials in a row without a training; trainings before the last trial
        while not self._stopped.is_set() and not self._is_late():
            done, busy = self._count()
            self._report(done)
            if done >= self._wanted:
                return
            if done + busy >= self._wanted:  # other workers are at the last trainings; one may fail
                self._wait()
                continue
            idle = idle + 1 if done == before else 0
            before = done
            if self._is_over(idle, done):
                return
            self._run_trial()

    def _run_trial(self) -> None:
        """One trial. A sampler or a callback may stop the study with it."""
        study, ways = self._study, self._ways
        stopped = False

        def note_stop(study: optuna.Study, trial: FrozenTrial) -> None:
            nonlocal stopped
            stopped = study._stop_flag

        study.optimize(self._call, n_trials=1, catch=ways.catch, callbacks=[*ways.callbacks, note_stop])
        if stopped:
            self._stopped.set()

    def _call(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """The objective; a failure that ends the search is marked, so that it does not count as a training."""
        try:
            return self._objective(trial)
        except Exception as error:
            facts: dict[str, Any] = trial.user_attrs.get(ATTRIBUTE, {})
            if facts.get("state") == "failed" and not isinstance(error, self._ways.catch):
                trial.set_user_attr(ATTRIBUTE, {**facts, "ended_the_search": True})
            raise

    def _is_late(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def _count(self) -> tuple[int, int]:
        """Trainings that are done, and trainings under way.

        Without heartbeats none is under way: it could belong to a worker that died, and would be waited for forever.
        """
        with self._lock:
            finished, others = self._reader.read(self._study)
            self._done += sum(map(is_paid, finished))
            done = self._done + sum(map(is_paid, others))
        if not self._has_heartbeats:
            return done, 0
        running = [t for t in others if t.state == TrialState.RUNNING]
        return done, sum(attribute_of(t).get("state") in ("claimed", "training") for t in running)

    def _report(self, done: int) -> None:
        """Tell `progress` the number of trainings, where it has changed."""
        if done != self._reported:
            self._reported = done
            self._progress(min(done, self._wanted), self._wanted, "trainings")

    def _wait(self) -> None:
        """Give other workers time, and mark as failed the trials whose worker has died."""
        time.sleep(0.2)
        with without_experimental_warnings():
            optuna.storages.fail_stale_trials(self._study)

    def _is_over(self, idle: int, done: int) -> bool:
        """Whether to end the search after `idle` trials in a row without a training, `done` before them.

        Raises:
            NothingFits: no trial of the study was within the budget.
        """
        if idle == _NOTHING_FITS_AFTER and done == 0:
            trials = self._study.get_trials(deepcopy=False)
            if all(attribute_of(t).get("state") in (None, "rejected") for t in trials):
                reasons = {attribute_of(t).get("reason") for t in trials} - {None}
                known = f", or none at all ({reasons.pop()})" if reasons else ""
                raise NothingFits(
                    f"none of {len(trials)} proposed architectures is within the budget (feasible share 0 %){known}; "
                    "raise it"
                )
        sampler: Any = self._study.sampler
        while isinstance(sampler, PartialFixedSampler):
            sampler = sampler._base_sampler
        exhausted = isinstance(sampler, ArchitectureSampler) and sampler.fruitless >= _FRUITLESS
        return exhausted or idle >= _IDLE_AFTER


__all__ = ["Callback", "Progress", "StudyError", "Ways", "Worker"]
