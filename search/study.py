"""`run_study`: an Optuna study of an architecture search, which can be resumed and counts trainings.

    study = run_study(objective, trainings=60, storage="search.db", name="tiny-cnn within 5 ms")

If a study of that name exists it is continued until it has `trainings` trainings altogether. What it has trained is
never trained again. Several processes may make the same call on one database at the same time. With a storage that has
heartbeats (any SQL database) the trial of a worker that was killed is started again by another one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, PartialFixedSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hwcost.search.candidates import NothingFits
from hwcost.search.detached_trial import DetachedTrial, building_for, fixed_chooser
from hwcost.search.lenient import lenient
from hwcost.search.objective import LatencyObjective, ObjectiveError
from hwcost.search.once import ATTRIBUTE
from hwcost.search.record import describe
from hwcost.search.reuse import Sources, tell_again
from hwcost.search.sampler import ArchitectureSampler, FeasibleSampler
from hwcost.search.storage import StudyError, open_storage, without_experimental_warnings
from hwcost.search.worker import Callback, Progress, Ways, Worker


def run_study(
    objective: LatencyObjective,
    trainings: int = 60,
    seed: int = 0,
    storage: str | Path | BaseStorage | None = None,
    sampler: BaseSampler | None = None,
    name: str | None = None,
    *,
    n_jobs: int = 1,
    progress: Progress | None = None,
    reuse: Sources | None = None,
    catch: Iterable[type[Exception]] | type[Exception] = (),
    timeout: float | None = None,
    callbacks: Sequence[Callback] | None = None,
    pruner: BasePruner | None = None,
    study: optuna.Study | None = None,
) -> optuna.Study:
    """Search until the study has `trainings` trainings; trials that train nothing do not count.

    A training counts where it was paid: to the end, until a pruner stopped it, or until it failed with an error of
    `catch` or gave NaN.

    Args:
        objective: what to search; it gives the study its directions and metric names.
        trainings: of the whole study, those before a resume included.
        seed: of the sampler.
        storage: None for memory; a path or "sqlite:///f.db", "postgresql://...", "journal:///f.log", "grpc://host:port";
            or an Optuna storage.
        sampler: None for `ArchitectureSampler`; others that do not learn of the budget by themselves are made to
            propose feasible architectures only.
        name: of the study; None makes one from the objective's form and metric.
        n_jobs: workers that train at the same time: threads, or whatever joblib is set to. Under
            `joblib.parallel_config("dask")` they are Dask's, and the storage must be a path or URL that they can open.
        progress: called with (trainings done, trainings wanted, "trainings").
        reuse: studies, or storages with studies, whose trainings are told again in this one (`reuse`).
        catch: errors of a training that fail its trial and do not end the search.
        timeout: seconds after which no other trial is begun.
        callbacks: called with (study, trial) after each trial; they may stop the study.
        pruner: what `trial.should_prune` asks; None is Optuna's default.
        study: one that exists, with its storage, sampler, pruner, trials and enqueued trials, in place of `storage` and
            `name`; a `sampler` or `pruner` that is given replaces its own.

    Returns:
        The study. It may have fewer trainings where everything that is feasible was trained.

    Raises:
        StudyError: the storage cannot be opened, or the study was made with another space, training, budget or form.
        NothingFits: no architecture is within the budget.
        ObjectiveError: from the objective; the finished trials of the study stay.
    """
    for what, value, least in (("trainings", trainings, 1), ("n_jobs", n_jobs, 1), ("seed", seed, 0)):
        if value < least:
            raise StudyError(f"{what} must be at least {least}, but got {value}")
    if study is not None and (storage is not None or name is not None):
        raise StudyError("a study comes with its storage and name; leave storage and name out, or study")
    ways = Ways(catch=_types(catch), timeout=timeout, callbacks=tuple(callbacks or ()))
    verbosity = optuna.logging.get_verbosity()
    if progress:  # Optuna's line for each trial would break up a progress bar
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        opened = open_study(
            objective, seed=seed, storage=storage, sampler=sampler, name=name, pruner=pruner, study=study
        )
        if reuse is not None:
            tell_again(opened, objective, reuse)
        if n_jobs > 1 and _has_other_processes():
            _run_in_processes(objective, trainings, seed, storage, sampler, opened.study_name, n_jobs, ways, pruner)
        # After workers in other processes this one reports the trainings, and makes those that are still missing.
        worker = Worker(opened, objective, trainings, progress, ways)
        if n_jobs == 1:
            worker.run()
        else:
            worker.run_in_threads(n_jobs)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return opened


def _types(catch: Iterable[type[Exception]] | type[Exception]) -> tuple[type[Exception], ...]:
    return (catch,) if isinstance(catch, type) else tuple(catch or ())


# -- opening a study ------------------------------------------------------------------------------


def open_study(
    objective: LatencyObjective,
    *,
    seed: int = 0,
    storage: str | Path | BaseStorage | None = None,
    sampler: BaseSampler | None = None,
    name: str | None = None,
    pruner: BasePruner | None = None,
    study: optuna.Study | None = None,
) -> optuna.Study:
    """The study of an objective, made or found; arguments and errors as of `run_study`."""
    if study is not None:
        storage, name = study._storage, study.study_name
        sampler, pruner = sampler or study.sampler, pruner or study.pruner
    opened = _create(objective, _sampler(objective, sampler, seed), open_storage(storage), name, pruner)
    # The trials are read before the record: another worker writes its record before its first trial.
    others = [t for t in opened.get_trials(deepcopy=False) if ATTRIBUTE not in t.user_attrs]
    is_new = ATTRIBUTE not in opened.user_attrs
    objective.check_study(opened, space=True)
    if is_new:
        _warn_of_infeasible(opened, objective, others)
        with without_experimental_warnings():
            opened.set_metric_names(objective.metric_names)
    return opened


def _create(
    objective: LatencyObjective,
    sampler: BaseSampler,
    storage: BaseStorage | None,
    name: str | None,
    pruner: BasePruner | None,
) -> optuna.Study:
    name = name or f"hwcost {objective.form} {objective.metric}"
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        directions=objective.directions,
        load_if_exists=True,
    )
    directions = [d.name.lower() for d in study.directions]
    if directions != objective.directions:
        raise StudyError(
            f"study {name!r} has directions {directions}, but form {objective.form!r} needs {objective.directions}; "
            "use another name or storage"
        )
    return study


def _warn_of_infeasible(study: optuna.Study, objective: LatencyObjective, trials: Sequence[Any]) -> None:
    """Warn of finished trials that were made without the objective, and that it would not have trained."""
    over = []
    for trial in (t for t in trials if t.state == TrialState.COMPLETE):
        detached = DetachedTrial(fixed_chooser(trial.params, np.random.default_rng(0)))
        with building_for(study), suppress(Exception):  # it may be a trial of something else
            judgement = objective.judge(objective.build(detached), detached.params, detached.constraints)
            if not judgement.feasible:
                over.append(trial.number)
    if over:
        warnings.warn(
            f"study {study.study_name!r} has {len(over)} finished trials that were made without this objective and are "
            f"over its budget (trial {over[0]}, for one); Optuna takes them for feasible, so best_trial may be one",
            stacklevel=3,
        )


def _sampler(objective: LatencyObjective, sampler: BaseSampler | None, seed: int) -> BaseSampler:
    """The sampler of a study; one that does not learn of the budget by itself is wrapped, if a budget rejects."""
    if sampler is None:
        return ArchitectureSampler(objective, seed=seed)
    base = sampler
    while isinstance(base, PartialFixedSampler):
        base = base._base_sampler
    # A grid is walked point by point, and TPE learns from constraints.
    learns_of_the_budget = isinstance(
        base, (TPESampler, ArchitectureSampler, FeasibleSampler, GridSampler, BruteForceSampler)
    )
    if learns_of_the_budget or not objective.gate:
        return lenient(sampler)
    return lenient(FeasibleSampler(sampler, objective, seed=seed))


# -- workers in other processes -------------------------------------------------------------------


def _has_other_processes() -> bool:
    """Whether joblib is set to a backend of other processes or machines, such as `parallel_config("dask")`."""
    backend, _ = joblib.parallel.get_active_backend(prefer="threads")
    return not getattr(backend, "supports_sharedmem", False)


def _run_in_processes(
    objective: LatencyObjective,
    trainings: int,
    seed: int,
    storage: str | Path | BaseStorage | None,
    sampler: BaseSampler | None,
    name: str,
    workers: int,
    ways: Ways,
    pruner: BasePruner | None,
) -> None:
    """Run the study in workers of joblib's backend, which share nothing but the storage."""
    if not isinstance(storage, (str, Path)):
        raise StudyError(
            "workers in other processes need a storage that each can open: give a path or URL, "
            f"not {'memory' if storage is None else type(storage).__name__}"
        )
    objective.check_picklable()
    work = joblib.delayed(_work)(objective, trainings, seed, storage, sampler, name, ways, pruner)
    joblib.Parallel(n_jobs=workers, batch_size=1)([work] * workers)


def _work(
    objective: LatencyObjective,
    trainings: int,
    seed: int,
    storage: str | Path,
    sampler: BaseSampler | None,
    name: str,
    ways: Ways,
    pruner: BasePruner | None,
) -> None:
    """One worker's part."""
    if sampler is not None:
        sampler.reseed_rng()  # each worker has a copy of the sampler, and all copies would propose the same
    with joblib.parallel_config("threading"):
        study = open_study(objective, seed=seed, storage=storage, sampler=sampler, name=name, pruner=pruner)
        Worker(study, objective, trainings, None, ways).run()


__all__ = ["NothingFits", "ObjectiveError", "StudyError", "describe", "open_storage", "open_study", "run_study"]
