"""The database of a store: how it is opened and created, its errors in one line, and where SQL dialects differ."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from hwcost.measure.store import schema as s
from hwcost.measure.store.migrations import migrate
from hwcost.measure.types import MeasurementError

_BUSY = 60  # s that a process waits for another one's write to a SQLite file


class StoreError(MeasurementError):
    """A store that cannot be opened, read or written; the message is one line."""


def parse_url(url: str | os.PathLike[str]) -> URL:
    """The URL of a store from a path or an URL.

    Raises:
        StoreError: it names neither a SQLite file nor a PostgreSQL database.
    """
    text = os.fspath(url)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        parsed = make_url(text)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(f"a store is a path or an URL such as sqlite:///file.db, but got {text!r}") from error
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not parsed.database:
        raise StoreError(f"a store must be a SQLite file or a PostgreSQL database, but got {text!r}")
    return parsed


def check_file(path: Path, *, create: bool) -> None:
    """Refuse a path where no store can be opened or created; SQLite's own messages do not say why.

    Raises:
        StoreError: the message says what is wrong with the path.
    """
    if path.is_dir():
        raise StoreError(f"a store must be a file, but {path} is a directory")
    if create and not path.parent.is_dir():
        raise StoreError(f"the directory {path.parent} of store {path.name} does not exist; make it first")
    if create and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StoreError(f"store {path} cannot be written; choose another place")
    if not create and not path.exists():
        raise StoreError(f"no store at {path}; `hwcost measure --store {path}` makes one")


def make_engine(url: URL) -> Engine:
    """An engine for the database; a SQLite file that cannot be written to is opened for reading only."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    path = Path(str(url.database))
    if path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        settled = "" if Path(f"{path}-wal").exists() else "&immutable=1"
        return create_engine(f"sqlite:///file:{path}?mode=ro{settled}&uri=true", poolclass=NullPool)
    engine = create_engine(url, connect_args={"timeout": _BUSY})
    event.listen(engine, "connect", _settings)
    return engine


def _settings(connection: Any, _: Any) -> None:
    """Use a write-ahead log: readers need not wait, and what a killed process leaves are complete transactions."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


_CREATION_LOCK = 0x68776373  # an arbitrary number; two processes must not create a server's tables at the same time


def create_tables(engine: Engine) -> None:
    """Create all tables in one transaction, so that nobody ever finds half a store."""
    with engine.begin() as connection:
        _alone(connection)
        for table in s.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
        connection.execute(insert_new(connection, s.about), [{"key": "version", "value": str(s.VERSION)}])


def _alone(connection: Connection) -> None:
    """Begin a transaction during which no other process can create or change tables."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver begins none before it changes tables


def prepare(engine: Engine, name: str, *, create: bool) -> None:
    """Create the tables if there are none and `create` is set, and bring an older store to the present version.

    Raises:
        StoreError: there are no tables, or the store is of a newer version.
    """
    if create and not inspect(engine).has_table(s.about.name):
        create_tables(engine)
    if not inspect(engine).has_table(s.about.name):
        raise StoreError(f"{name} is a database without measurements; `hwcost measure --store` makes a store")
    with engine.connect() as connection:
        version = _version(connection, name)
    if version > s.VERSION:
        raise StoreError(
            f"store {name} has version {version}, but this hwcost reads up to version {s.VERSION}; update hwcost"
        )
    if version < s.VERSION:
        _upgrade(engine, name)


def _version(connection: Connection, name: str) -> int:
    text = connection.scalar(select(s.about.c.value).where(s.about.c.key == "version"))
    if text is None or not text.isdigit() or int(text) < 1:
        raise StoreError(f"store {name} must state its version, a number from 1 on, but it states {text!r}")
    return int(text)


def _upgrade(engine: Engine, name: str) -> None:
    """Bring a store to the present version in one transaction, for which other processes that try the same wait."""
    if "mode=ro" in str(engine.url):
        raise StoreError(
            f"store {name} is of an earlier version and cannot be written to upgrade it; open a copy of it"
        )
    with engine.begin() as connection:
        _alone(connection)
        version = _version(connection, name)  # read again: another process may have upgraded it meanwhile
        migrate(connection, version, s.VERSION)
        connection.execute(update(s.about).where(s.about.c.key == "version").values(value=str(s.VERSION)))


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn database errors inside into a StoreError of one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise StoreError(f"store {name} needs the package {error.name}; install hwcost[postgresql]") from error
    except DBAPIError as error:
        said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        raise StoreError(f"store {name} cannot be used: {said}") from error


def parts(values: list[Any], size: int = 500) -> Iterator[list[Any]]:
    """Cut a list into parts of at most `size`, because databases limit the number of parameters of a statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def insert_new(connection: Connection, table: Any) -> Any:
    """An insert that skips rows whose key exists already."""
    dialect = {"sqlite": sqlite, "postgresql": postgresql}[connection.dialect.name]
    return dialect.insert(table).on_conflict_do_nothing()
