"""`run_study`: an Optuna study of an architecture search, which can be resumed and counts trainings.

    study = run_study(objective, trainings=60, storage="search.db", name="tiny-cnn within 5 ms")

If a study of that name exists it is continued until it has `trainings` trainings altogether. What it has trained is
never trained again. Several processes may make the same call on one database at the same time. With a storage that has
heartbeats (any SQL database) the trial of a worker that was killed is started again by another one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hwcost.search.candidates import NothingFits
from hwcost.search.detached_trial import random_chooser, try_build
from hwcost.search.objective import LatencyObjective, ObjectiveError
from hwcost.search.once import ATTRIBUTE, TrialReader, attribute_of, is_training
from hwcost.search.protocols import LatencyModel
from hwcost.search.sampler import ArchitectureSampler, FeasibleSampler
from hwcost.search.storage import StudyError, open_storage, without_experimental_warnings

Progress = Callable[..., None]  # called with (trainings done, trainings wanted, "trainings")
_SAMPLES = 64  # random architectures that show which parameters a space has
# A search ends early after so many in a row of:
_NOTHING_FITS_AFTER = 500  # trials without a training, where no trial of the study was within the budget
_FRUITLESS = 20  # proposals for which an `ArchitectureSampler` has found that everything feasible is trained
_IDLE_AFTER = 2000  # trials without a training, in any case


def run_study(
    objective: LatencyObjective,
    trainings: int = 60,
    seed: int = 0,
    storage: str | BaseStorage | None = None,
    sampler: BaseSampler | None = None,
    name: str | None = None,
    *,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> optuna.Study:
    """Search until the study has `trainings` trainings; trials that train nothing do not count.

    Args:
        objective: what to search; it gives the study its directions and metric names.
        trainings: of the whole study, those before a resume included.
        seed: of the sampler.
        storage: None for memory; a path or "sqlite:///f.db", "postgresql://...", "journal:///f.log", "grpc://host:port";
            or an Optuna storage.
        sampler: None for `ArchitectureSampler`; others than TPE are made to propose feasible architectures only.
        name: of the study; None makes one from the objective's form and metric.
        n_jobs: workers that train at the same time: threads, or whatever joblib is set to. Under
            `joblib.parallel_config("dask")` they are Dask's, and the storage must be a path or URL that they can open.
        progress: called with (trainings done, trainings wanted, "trainings").

    Returns:
        The study. It may have fewer trainings where everything that is feasible was trained.

    Raises:
        StudyError: the storage cannot be opened, or the study was made for another space, budget or form.
        NothingFits: no architecture is within the budget.
        ObjectiveError: from the objective; the finished trials of the study stay.
    """
    for what, value, least in (("trainings", trainings, 1), ("n_jobs", n_jobs, 1), ("seed", seed, 0)):
        if value < least:
            raise StudyError(f"{what} must be at least {least}, but got {value}")
    verbosity = optuna.logging.get_verbosity()
    if progress:  # Optuna's line for each trial would break up a progress bar
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = open_study(objective, seed=seed, storage=storage, sampler=sampler, name=name)
        if n_jobs > 1 and _has_other_processes():
            _run_in_processes(objective, trainings, seed, storage, sampler, study.study_name, n_jobs)
        # After workers in other processes this one reports the trainings, and makes those that are still missing.
        worker = _Worker(study, objective, trainings, progress or (lambda *_: None))
        if n_jobs == 1:
            worker.run()
        else:
            worker.run_in_threads(n_jobs)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return study


# -- opening a study ------------------------------------------------------------------------------


def open_study(
    objective: LatencyObjective,
    *,
    seed: int = 0,
    storage: str | BaseStorage | None = None,
    sampler: BaseSampler | None = None,
    name: str | None = None,
) -> optuna.Study:
    """The study of an objective, made or found; arguments and errors as of `run_study`."""
    study = _create(objective, _sampler(objective, sampler, seed), open_storage(storage), name)
    # The trials are read before the description: another worker writes its description before its first trial.
    has_trials = bool(study.get_trials(deepcopy=False))
    found = study.user_attrs.get(ATTRIBUTE)
    wanted = describe(objective)
    if found is None:
        if has_trials:
            raise StudyError(f"study {study.study_name!r} has trials that were not made by hwcost; use another name")
        study.set_user_attr(ATTRIBUTE, wanted)
        with without_experimental_warnings():
            study.set_metric_names(objective.metric_names)
    elif found != wanted:
        what, was, now = _difference(found, wanted)
        raise StudyError(
            f"study {study.study_name!r} was made with {what} {_short(was)}, but this search has {_short(now)}; "
            "use another name or storage"
        )
    return study


def _create(
    objective: LatencyObjective, sampler: BaseSampler, storage: BaseStorage | None, name: str | None
) -> optuna.Study:
    name = name or f"hwcost {objective.form} {objective.metric}"
    study = optuna.create_study(
        study_name=name, storage=storage, sampler=sampler, directions=objective.directions, load_if_exists=True
    )
    directions = [d.name.lower() for d in study.directions]
    if directions != objective.directions:
        raise StudyError(
            f"study {name!r} has directions {directions}, but form {objective.form!r} needs {objective.directions}; "
            "use another name or storage"
        )
    return study


def _sampler(objective: LatencyObjective, sampler: BaseSampler | None, seed: int) -> BaseSampler:
    """The sampler of a study; one that does not learn of the budget by itself is wrapped, if a budget rejects."""
    if sampler is None:
        return ArchitectureSampler(objective, seed=seed)
    learns_of_the_budget = isinstance(sampler, (TPESampler, ArchitectureSampler, FeasibleSampler))
    if learns_of_the_budget or not objective.gate:
        return sampler
    return FeasibleSampler(sampler, objective, seed=seed)


def describe(objective: LatencyObjective) -> dict[str, Any]:
    """What must stay the same when a study is resumed, as JSON: the parameters, models, budget and form."""
    rng = np.random.default_rng(0)
    parameters: dict[str, Any] = {}
    for _ in range(_SAMPLES):
        trial, _ = try_build(objective.build, random_chooser(rng))
        parameters |= {name: json.loads(distribution_to_json(d)) for name, d in trial.distributions.items()}
    described = {
        "space": {name: parameters[name] for name in sorted(parameters)},
        "model": {name: identity_of(model) for name, model in objective.models.items()},
        "form": objective.form,
        "metric": f"{objective.metric}, {objective.direction}d",
        "budget": {limit.key: limit.most for limit in objective.limits},
        "confidence": objective.confidence,
        "against": objective.against,
        "across": dict(objective.across) if isinstance(objective.across, Mapping) else objective.across,
        "weight": objective.weight,
    }
    return dict(json.loads(json.dumps(described)))


def identity_of(model: LatencyModel) -> str:
    """A text that is different for different models: the target, and a digest of the model's data.

    Of a user's own model it is the attribute `digest` where there is one, and the name of its class otherwise.
    """
    meta = getattr(model, "meta", None) or {}
    target = meta.get("target") or {name: getattr(model, name, None) for name in ("runtime", "threads")}
    digest = getattr(model, "digest", None) or meta.get("model") or type(model).__qualname__
    where = [str(value) for _, value in sorted(target.items()) if value is not None]
    return " ".join([*where, str(digest)])


def _difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The path to the first entry that differs between two nested mappings, and both values."""
    what = next(k for k in {**now, **was} if was.get(k) != now.get(k))
    a, b = was.get(what), now.get(what)
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return what, a, b
    inner, a, b = _difference(a, b)
    return f"{what} {inner}", a, b


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 160 else text[:150] + "..."


# -- workers in other processes -------------------------------------------------------------------


def _has_other_processes() -> bool:
    """Whether joblib is set to a backend of other processes or machines, such as `parallel_config("dask")`."""
    backend, _ = joblib.parallel.get_active_backend(prefer="threads")
    return not getattr(backend, "supports_sharedmem", False)


def _run_in_processes(
    objective: LatencyObjective,
    trainings: int,
    seed: int,
    storage: str | BaseStorage | None,
    sampler: BaseSampler | None,
    name: str,
    workers: int,
) -> None:
    """Run the study in workers of joblib's backend, which share nothing but the storage."""
    if not isinstance(storage, str):
        raise StudyError(
            "workers in other processes need a storage that each can open: give a path or URL, "
            f"not {'memory' if storage is None else type(storage).__name__}"
        )
    objective.check_picklable()
    work = joblib.delayed(_work)(objective, trainings, seed, storage, sampler, name)
    joblib.Parallel(n_jobs=workers, batch_size=1)([work] * workers)


def _work(
    objective: LatencyObjective, trainings: int, seed: int, storage: str, sampler: BaseSampler | None, name: str
) -> None:
    """One worker's part."""
    if sampler is not None:
        sampler.reseed_rng()  # each worker has a copy of the sampler, and all copies would propose the same
    with joblib.parallel_config("threading"):
        run_study(objective, trainings, seed, storage, sampler, name)


# -- a worker -------------------------------------------------------------------------------------


class _Worker:
    """Runs trials of a study in this process, in one thread or in several."""

    def __init__(self, study: optuna.Study, objective: LatencyObjective, trainings: int, progress: Progress) -> None:
        self._study = study
        self._objective = objective
        self._wanted = trainings
        self._progress = progress
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
        while not self._stopped.is_set():
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
            self._study.optimize(self._objective, n_trials=1)

    def _count(self) -> tuple[int, int]:
        """Trainings that are done, and trainings under way.

        Without heartbeats none is under way: it could belong to a worker that died, and would be waited for forever.
        """
        with self._lock:
            finished, others = self._reader.read(self._study)
            self._done += sum(map(is_training, finished))
            done = self._done + sum(map(is_training, others))
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
                raise NothingFits(
                    f"none of {len(trials)} proposed architectures is within the budget (feasible share 0 %); raise it"
                )
        sampler = self._study.sampler
        exhausted = isinstance(sampler, ArchitectureSampler) and sampler.fruitless >= _FRUITLESS
        return exhausted or idle >= _IDLE_AFTER


__all__ = ["NothingFits", "ObjectiveError", "StudyError", "describe", "open_storage", "open_study", "run_study"]
