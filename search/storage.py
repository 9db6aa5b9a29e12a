"""Where a study is kept: a file, a database, a journal, or a gRPC proxy of Optuna."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

HEARTBEAT = 10  # seconds between two signs of life of a running trial's worker
GRACE = 30  # seconds without one, after which the trial is started again
_ATTEMPTS = 6  # at opening a database whose tables other workers are creating at the same time
_GRPC_PORT = 13000  # Optuna's default


class StudyError(ValueError):
    """A study that cannot be opened, or that belongs to another search."""


def open_storage(storage: str | BaseStorage | None) -> BaseStorage | None:
    """A storage by path or URL.

    Args:
        storage: a path, which is a SQLite file; "sqlite:///f.db", "postgresql://...", "journal:///f.log" or
            "grpc://host:port"; an Optuna storage, or None for memory, which are returned as they are.

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
            return _journal(rest)
        if scheme == "grpc":
            return _grpc(rest)
        return _sql(storage)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StudyError(
            f"study storage {without_password(storage)!r} cannot be opened: {reason}; give a path such as study.db, or "
            "a URL of sqlite:///, journal:///, postgresql:// or grpc://"
        ) from error


def without_password(storage: str) -> str:
    """A path or URL as messages may show it, with "***" in place of a password."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # a path
        return storage


def _journal(rest: str) -> BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    path = rest.removeprefix("/")  # three slashes for a relative path and four for an absolute one, as with sqlite
    return JournalStorage(JournalFileBackend(path))


def _grpc(address: str) -> BaseStorage:
    from optuna.storages import GrpcStorageProxy

    host, _, port = address.partition(":")
    with without_experimental_warnings():
        proxy = GrpcStorageProxy(host=host, port=int(port or _GRPC_PORT))
    proxy.wait_server_ready(timeout=10)
    return proxy


def _sql(url: str) -> BaseStorage:
    """An SQL storage.

    Of several workers that start at the same time with a new database, one creates the tables. The others may fail on
    tables that exist halfway, and try again.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return _rdb(url)
        except (IntegrityError, ProgrammingError):
            pass
        except OperationalError as error:
            if "already exists" not in str(error):
                raise
        time.sleep(0.5)
    return _rdb(url)


def _rdb(url: str) -> BaseStorage:
    with without_experimental_warnings():
        return optuna.storages.RDBStorage(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3),
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {},
        )


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Silence the warnings of heartbeats, metric names and gRPC, which Optuna marks as experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
