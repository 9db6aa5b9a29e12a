"""`run_study`: an Optuna study of an architecture search, resumable, counted in trainings.

    study = run_study(objective, trainings=60, storage="search.db", name="tiny-cnn within 5 ms")

A study that exists under that name is continued until it has `trainings` trainings altogether; what it
trained is never trained again. Several processes may run the same call against one database at once; with a
storage that has heartbeats (any SQL database) the trial of a killed worker is taken up again.
"""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

from hwcost.search.candidates import NothingFits
from hwcost.search.detached_trial import built, random_choice
from hwcost.search.objective import LatencyObjective, ObjectiveError
from hwcost.search.once import ATTRIBUTE, Ledger, attribute_of, is_training
from hwcost.search.sampler import ArchitectureSampler, FeasibleSampler

Progress = Callable[..., None]
_HEARTBEAT, _GRACE = 10, 30  # s
_OPENINGS = 5  # attempts at a database that others are making at the same time
_LOST_AFTER = 500  # proposals in a row without a training, and without any feasible one ever
_IDLE_AFTER = 2000  # proposals in a row without a training: nothing new is proposed any more
_FRUITLESS = 20  # proposals in a row for which the sampler found nothing left to train
_PROBES = 64  # random architectures that tell which decisions a space has


class StudyError(ValueError):
    """A study that cannot be opened, or that belongs to another search."""


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
    """Search until the study has `trainings` trainings; proposals that cost none are not counted.

    Args:
        objective: what to search; sets directions and metric names.
        trainings: of the whole study, those before a resume included.
        seed: of the sampler.
        storage: None for memory; a path or "sqlite:///f.db", "postgresql://...", "journal:///f.log", "grpc://host:port";
            or an Optuna storage.
        sampler: None for `ArchitectureSampler`; others than TPE are made to propose feasible architectures only.
        name: of the study; None makes one from the objective's form and metric.
        n_jobs: workers that train at the same time: threads, or what joblib is set to. Under
            `joblib.parallel_config("dask")` they are Dask's, and the storage must be a path or URL that they can open.
        progress: called with (trainings done, trainings wanted, note).

    Raises:
        StudyError: the storage cannot be opened, or the study was made for another space, budget or form.
        NothingFits: no architecture is within the budget.
        ObjectiveError: from the objective; the study's finished trials stay.
    """
    for what, value, least in (("trainings", trainings, 1), ("n_jobs", n_jobs, 1), ("seed", seed, 0)):
        if value < least:
            raise StudyError(f"{what} must be at least {least}, but got {value}")
    verbosity = optuna.logging.get_verbosity()
    if progress:  # a bar and a log of every trial do not go together
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = open_study(objective, seed=seed, storage=storage, sampler=sampler, name=name)
        if n_jobs > 1 and _works_elsewhere():
            _run_elsewhere(objective, trainings, seed, storage, sampler, study.study_name, n_jobs)
        worker = _Worker(study, objective, trainings, progress or (lambda *_: None))
        worker.run() if n_jobs == 1 else worker.run_in_threads(n_jobs)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return study


def _works_elsewhere() -> bool:
    """Whether joblib is set to a backend of other processes or machines, such as `parallel_config("dask")`."""
    backend, _ = joblib.parallel.get_active_backend(prefer="threads")
    return not getattr(backend, "supports_sharedmem", False)


def _run_elsewhere(
    objective: LatencyObjective, trainings: int, seed: int, storage: Any, sampler: BaseSampler | None, name: str,
    workers: int,
) -> None:  # fmt: skip
    """Workers by joblib, where its backend runs them; they meet in the storage."""
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
    if sampler is not None:
        sampler.reseed_rng()  # each worker has a copy, which would propose the same
    with joblib.parallel_config("threading"):
        run_study(objective, trainings, seed, storage, sampler, name)


def open_study(
    objective: LatencyObjective,
    *,
    seed: int = 0,
    storage: str | BaseStorage | None = None,
    sampler: BaseSampler | None = None,
    name: str | None = None,
) -> optuna.Study:
    """The study of an objective, made or found; see `run_study`."""
    study = _create(objective, _sampler(objective, sampler, seed), open_storage(storage), name)
    has_trials = bool(study.get_trials(deepcopy=False))  # first: another worker describes the study before it tries
    found, wanted = study.user_attrs.get(ATTRIBUTE), describe(objective)
    if found is None:
        if has_trials:
            raise StudyError(f"study {study.study_name!r} has trials that were not made by hwcost; use another name")
        study.set_user_attr(ATTRIBUTE, wanted)
        with _experimental():
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
    if sampler is None:
        return ArchitectureSampler(objective, seed=seed)
    if isinstance(sampler, (TPESampler, ArchitectureSampler, FeasibleSampler)) or not objective.gate:
        return sampler
    return FeasibleSampler(sampler, objective, seed=seed)


def open_storage(storage: str | BaseStorage | None) -> BaseStorage | None:
    """A storage by URL or path; see `run_study`.

    Raises:
        StudyError: it cannot be opened.
    """
    if storage is None or isinstance(storage, BaseStorage):
        return storage
    scheme, _, rest = storage.partition("://")
    try:
        if not rest:
            return _sql(f"sqlite:///{storage}")
        if scheme == "journal":
            from optuna.storages.journal import JournalFileBackend, JournalStorage

            return JournalStorage(JournalFileBackend(rest.removeprefix("/")))  # as in sqlite:///
        if scheme == "grpc":
            from optuna.storages import GrpcStorageProxy

            host, _, port = rest.partition(":")
            proxy = GrpcStorageProxy(host=host, port=int(port or 13000))
            proxy.wait_server_ready(timeout=10)
            return proxy
        return _sql(storage)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StudyError(
            f"study storage {without_password(storage)!r} cannot be opened: {reason}; give a path such as study.db, or "
            "a URL of sqlite:///, journal:///, postgresql:// or grpc://"
        ) from error


def without_password(storage: str) -> str:
    """A storage as messages may show it."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # a path
        return storage


def _sql(url: str) -> BaseStorage:
    """An SQL storage; workers that start at once race to make its tables, and the losers find them made."""
    for _ in range(_OPENINGS):
        try:
            return _rdb(url)
        except (IntegrityError, ProgrammingError):
            time.sleep(0.5)
        except OperationalError as error:
            if "already exists" not in str(error):
                raise
            time.sleep(0.5)
    return _rdb(url)


def _rdb(url: str) -> BaseStorage:
    with _experimental():
        return optuna.storages.RDBStorage(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            heartbeat_interval=_HEARTBEAT,
            grace_period=_GRACE,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3),
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {},
        )


@contextmanager
def _experimental() -> Iterator[None]:
    """Heartbeats and metric names are marked experimental since Optuna 2.6 and 3.2; users need not hear of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def describe(objective: LatencyObjective) -> dict[str, Any]:
    """What must stay the same between resumes: the decisions, budget, form; as JSON."""
    rng = np.random.default_rng(0)
    decisions: dict[str, Any] = {}
    for _ in range(_PROBES):
        probe, _ = built(objective.build, random_choice(rng))
        decisions |= {name: json.loads(distribution_to_json(d)) for name, d in probe.distributions.items()}
    described = {
        "space": {name: decisions[name] for name in sorted(decisions)},
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


def identity_of(model: Any) -> str:
    """What tells a model from another: target and digest of its data; of a model of one's own its `digest`, or type."""
    meta = getattr(model, "meta", None) or {}
    target = meta.get("target") or {name: getattr(model, name, None) for name in ("runtime", "threads")}
    digest = getattr(model, "digest", None) or meta.get("model") or type(model).__qualname__
    where = [str(v) for name, v in sorted(target.items()) if v is not None]
    return " ".join([*where, str(digest)])


def _difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first entry that differs, and of a mapping's the entry within: its name, and both values."""
    what = next(k for k in {**now, **was} if was.get(k) != now.get(k))
    a, b = was.get(what), now.get(what)
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return what, a, b
    part, a, b = _difference(a, b)
    return f"{what} {part}", a, b


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 160 else text[:150] + "..."


class _Worker:
    """One process's or thread's part of a study."""

    def __init__(self, study: optuna.Study, objective: LatencyObjective, trainings: int, progress: Progress) -> None:
        self._study, self._objective, self._wanted, self._progress = study, objective, trainings, progress
        self._beats = optuna.storages._heartbeat.is_heartbeat_enabled(study._storage)
        self._reported = -1
        self._ledger, self._done = Ledger(), 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run_in_threads(self, threads: int) -> None:
        """`run` in each; what ends one, an error or Ctrl-C, lets the others end their training and begin none."""
        with ThreadPoolExecutor(threads) as pool:
            try:
                for done in as_completed([pool.submit(self.run) for _ in range(threads)]):
                    done.result()
            finally:
                self._stopped.set()

    def run(self) -> None:
        """Propose and train until the study has enough trainings, or nothing new is proposed."""
        idle, before = 0, -1
        while not self._stopped.is_set():
            done, busy = self._count()
            self._report(done)
            if done >= self._wanted:
                return
            if done + busy >= self._wanted:  # others are training the last ones; take up what they leave
                self._wait()
                continue
            idle = idle + 1 if done == before else 0
            before = done
            if self._is_over(idle, done):
                return
            self._study.optimize(self._objective, n_trials=1)

    def _count(self) -> tuple[int, int]:
        """Trainings done, and trainings under way whose worker would be missed if it died."""
        with self._lock:
            finished, others = self._ledger.read(self._study)
            self._done += sum(map(is_training, finished))
            done = self._done + sum(map(is_training, others))
        running = (t for t in others if t.state == TrialState.RUNNING) if self._beats else iter(())
        busy = sum(attribute_of(t).get("state") in ("claimed", "training") for t in running)
        return done, busy

    def _report(self, done: int) -> None:
        if done != self._reported:
            self._reported = done
            self._progress(min(done, self._wanted), self._wanted, "trainings")

    def _wait(self) -> None:
        time.sleep(0.2)
        with _experimental():
            optuna.storages.fail_stale_trials(self._study)

    def _is_over(self, idle: int, done: int) -> bool:
        if idle == _LOST_AFTER and done == 0:
            trials = self._study.get_trials(deepcopy=False)
            if not any(attribute_of(t).get("state") not in (None, "rejected") for t in trials):
                raise NothingFits(
                    f"none of {len(trials)} proposed architectures is within the budget (feasible share 0 %); raise it"
                )
        sampler = self._study.sampler
        exhausted = isinstance(sampler, ArchitectureSampler) and sampler.fruitless >= _FRUITLESS
        return exhausted or idle >= _IDLE_AFTER


__all__ = ["NothingFits", "ObjectiveError", "StudyError", "describe", "open_storage", "open_study", "run_study"]
