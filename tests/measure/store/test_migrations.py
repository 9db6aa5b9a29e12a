"""Tests of hwcost.measure.store.migrations: a store of every earlier version opens with all that it held.

The tables of an earlier version are written out here as that version made them, not by the code under test.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, create_engine, inspect

from hwcost.measure.store import migrations
from hwcost.measure.store import schema as s
from hwcost.measure.store.store import Store, StoreError

VERSION_1 = """
CREATE TABLE hwcost_store (key VARCHAR(40) NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key));
CREATE TABLE hwcost_environment (
    id INTEGER NOT NULL, digest VARCHAR(20) NOT NULL, runtime VARCHAR(40) NOT NULL, threads INTEGER NOT NULL,
    description TEXT NOT NULL, created FLOAT NOT NULL, PRIMARY KEY (id), UNIQUE (digest));
CREATE TABLE hwcost_kernel (
    id INTEGER NOT NULL, digest VARCHAR(20) NOT NULL, description TEXT NOT NULL, PRIMARY KEY (id), UNIQUE (digest));
CREATE TABLE hwcost_network (
    id INTEGER NOT NULL, environment_id INTEGER NOT NULL, name VARCHAR(300) NOT NULL, family VARCHAR(300) NOT NULL,
    spec TEXT NOT NULL, calls INTEGER NOT NULL, kernels BLOB NOT NULL, distances BLOB NOT NULL, modules TEXT NOT NULL,
    created FLOAT NOT NULL, PRIMARY KEY (id), UNIQUE (environment_id, name),
    FOREIGN KEY(environment_id) REFERENCES hwcost_environment (id));
CREATE TABLE hwcost_round (
    network_id INTEGER NOT NULL, number INTEGER NOT NULL, taken FLOAT NOT NULL, seconds FLOAT NOT NULL,
    steal FLOAT NOT NULL, switches BIGINT NOT NULL, waited FLOAT NOT NULL, whole BLOB NOT NULL, waits BLOB NOT NULL,
    kernels BLOB NOT NULL, PRIMARY KEY (network_id, number), FOREIGN KEY(network_id) REFERENCES hwcost_network (id));
CREATE TABLE hwcost_claim (
    environment_id INTEGER NOT NULL, name VARCHAR(300) NOT NULL, worker VARCHAR(80) NOT NULL, until FLOAT NOT NULL,
    PRIMARY KEY (environment_id, name), FOREIGN KEY(environment_id) REFERENCES hwcost_environment (id));
INSERT INTO hwcost_store VALUES ('version', '1');
"""
POSTGRESQL = os.environ.get("HWCOST_TEST_POSTGRESQL", "")
ENVIRONMENT = '{"cpu": "A", "cores": 2, "runtime": "torch-eager", "threads": 1}'
RELU = '[{"in":[{"name":"self","shape":[8]}],"kind":"relu","out":[{"name":"out","shape":[8]}]}]'


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store of version 1 with one network of one kernel, measured in two rounds of 2 ms and 3 ms."""
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
        connection.execute("INSERT INTO hwcost_environment VALUES (1, 'x', 'torch-eager', 1, ?, 0)", [ENVIRONMENT])
        connection.execute("INSERT INTO hwcost_kernel VALUES (1, 'y', ?)", [RELU])
        one, distance = np.array([1], "<i4").tobytes(), np.array([32], "<i8").tobytes()
        connection.execute(
            "INSERT INTO hwcost_network VALUES (1, 1, 'toy/1', 'toy', '{}', 1, ?, ?, '[\"a\"]', 0)", [one, distance]
        )
        for number, seconds in enumerate([0.002, 0.003]):
            times = [np.array([t], "<f4").tobytes() for t in (seconds, 0.0, seconds / 2)]
            connection.execute("INSERT INTO hwcost_round VALUES (1, ?, 0, 1, 0, 0, 0, ?, ?, ?)", [number, *times])
    connection.close()
    return path


@pytest.fixture
def old_server() -> Iterator[str]:
    """The same store on PostgreSQL, as version 1 made it there."""
    if not POSTGRESQL:
        pytest.skip("HWCOST_TEST_POSTGRESQL names no database")
    engine = create_engine(POSTGRESQL.replace("postgresql:", "postgresql+psycopg:"))
    s.metadata.drop_all(engine)
    statements = VERSION_1.replace("BLOB", "BYTEA").split(";")
    with engine.begin() as connection:
        for statement in filter(str.strip, statements):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(
            "INSERT INTO hwcost_environment VALUES (1, 'x', 'torch-eager', 1, %s, 0)", (ENVIRONMENT,)
        )
        connection.exec_driver_sql("INSERT INTO hwcost_kernel VALUES (1, 'y', %s)", (RELU,))
        blobs = (np.array([1], "<i4").tobytes(), np.array([32], "<i8").tobytes())
        connection.exec_driver_sql(
            "INSERT INTO hwcost_network VALUES (1, 1, 'toy/1', 'toy', '{}', 1, %s, %s, '[\"a\"]', 0)", blobs
        )
        times = tuple(np.array([t], "<f4").tobytes() for t in (0.002, 0.0, 0.001))
        connection.exec_driver_sql("INSERT INTO hwcost_round VALUES (1, 0, 0, 1, 0, 0, 0, %s, %s, %s)", times)
    yield POSTGRESQL
    s.metadata.drop_all(engine)
    engine.dispose()


def version(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return str(connection.execute("SELECT value FROM hwcost_store WHERE key = 'version'").fetchone()[0])


def test_a_store_of_version_1_opens_with_what_it_held(old: Path) -> None:
    (network,) = Store.open(old).measurements("torch-eager", 1).networks
    assert (network.name, network.timing.rounds) == ("toy/1", 2)
    assert network.timing.latency == pytest.approx(0.002)
    assert network.kernels[0].kernel.name == "relu"
    assert version(old) == str(s.VERSION)


def test_a_store_of_version_1_on_a_server_opens_with_what_it_held(old_server: str) -> None:
    store = Store.open(old_server)
    (network,) = store.measurements("torch-eager", 1).networks
    assert (network.name, network.timing.rounds) == ("toy/1", 1)
    assert network.timing.latency == pytest.approx(0.002)
    assert store.rounds(1)["toy/1"][0].paces.size == 0  # a column that version 1 did not have
    store.close()
    assert len(Store.open(old_server).measurements()) == 1  # and again, as one of this version


def test_a_migrated_store_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    Store.open(old).close()
    Store.open(tmp_path / "new.db", create=True).close()

    def tables(path: Path) -> dict[str, set[tuple[str, bool, bool]]]:
        found = inspect(create_engine(f"sqlite:///{path}"))
        return {
            t: {(c["name"], bool(c["nullable"]), bool(c["primary_key"])) for c in found.get_columns(t)}
            for t in found.get_table_names()
        }

    assert tables(old) == tables(tmp_path / "new.db")


def test_every_version_has_its_step() -> None:
    assert sorted(migrations.STEPS) == list(range(1, s.VERSION))


def test_a_step_that_fails_leaves_the_store_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = migrations.STEPS[1]

    def breaks(connection: Connection) -> None:
        first(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr(migrations, "STEPS", migrations.STEPS | {1: breaks})
    with pytest.raises(RuntimeError, match="power cut"):
        Store.open(old)
    assert version(old) == "1"
    with sqlite3.connect(old) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "hwcost_summary" not in tables
    monkeypatch.undo()
    assert len(Store.open(old).measurements()) == 1


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("99", f"has version 99, but this hwcost reads up to version {s.VERSION}; update hwcost"),
        ("x", "but it states 'x'"),
    ],
)
def test_a_newer_store_and_one_without_a_version_are_refused(tmp_path: Path, stated: str, said: str) -> None:
    Store.open(tmp_path / "m.db", create=True).close()
    with sqlite3.connect(tmp_path / "m.db") as connection:
        connection.execute("UPDATE hwcost_store SET value = ? WHERE key = 'version'", [stated])
    with pytest.raises(StoreError, match=said):
        Store.open(tmp_path / "m.db")
