"""Tests of hwcost.measure.store.store: what goes in comes out, and what cannot be used says why.

The tests run on SQLite, and on PostgreSQL too where HWCOST_TEST_POSTGRESQL holds the URL of an empty
database.
"""

import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine

from hwcost.graph import OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.measure.clock import Round
from hwcost.measure.disturbance import Disturbance
from hwcost.measure.process import worker_name
from hwcost.measure.store import database
from hwcost.measure.store import schema as s
from hwcost.measure.store.store import Store, StoreError
from hwcost.measure.types import Environment, Item, MeasurementError, Measurements
from hwcost.runtimes.base import Network, Placed

POSTGRESQL = os.environ.get("HWCOST_TEST_POSTGRESQL", "")
here = Environment(cpu="A", cores=2, runtime="torch-eager", threads=1)


def relu(n: int) -> Kernel:
    return Kernel((OpSpec("relu", (TensorSpec("self", (n,)),), (TensorSpec("out", (n,)),)),))


def item(name: str) -> Item:
    return Item(name=name, family="toy", spec={"n": 1}, build=lambda: (None, ()))


network = Network((Placed(relu(8), "a", -1), Placed(relu(16), "b", 32), Placed(relu(8), "c", 0)), 4, "torch-eager")


def visit(seconds: float, *, waited: float = 0.0) -> Round:
    kernels = np.array([[1, 2, 3], [2, 1, 3]], np.float32) * np.float32(seconds / 10)
    whole = np.array([seconds, seconds * 2], np.float32)
    return Round(whole, np.zeros(2, np.float32), kernels, Disturbance(0.0, 3, waited), seconds=1.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = str(tmp_path / "m.db")
    if request.param == "postgresql":
        if not POSTGRESQL:
            pytest.skip("HWCOST_TEST_POSTGRESQL names no database")
        url = POSTGRESQL
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        s.metadata.drop_all(engine)
        engine.dispose()
    store = Store.open(url, create=True)
    yield store
    store.close()


def test_rounds_come_back_as_a_measurement(store: Store) -> None:
    place = store.environment_id(here)
    number = store.add_network(place, item("toy/1"), network)
    for i, seconds in enumerate([4.0, 2.0, 3.0]):
        store.add_round(number, i, visit(seconds))
    (found,) = store.measurements("torch-eager", 1).networks
    assert (found.name, found.family, found.spec, found.calls) == ("toy/1", "toy", {"n": 1}, 4)
    assert found.timing.latency == 2.0
    assert found.timing.rounds == 3
    assert [m.kernel for m in found.kernels] == [relu(8), relu(16), relu(8)]
    assert [m.module for m in found.kernels] == ["a", "b", "c"]
    assert [m.distance for m in found.kernels] == [-1, 32, 0]
    # the two profiles of a visit hold (1, 2, 3) and (2, 1, 3) tenths: singly 5 tenths at the least, together 6
    assert [m.timing.latency for m in found.kernels] == pytest.approx([0.24, 0.24, 0.72], rel=2**-10)


def test_disturbed_rounds_are_kept_and_do_not_count(store: Store) -> None:
    number = store.add_network(store.environment_id(here), item("toy/1"), network)
    for i, (seconds, waited) in enumerate([(4.0, 0.0), (1.0, 0.5), (3.0, 0.01)]):
        store.add_round(number, i, visit(seconds, waited=waited))
    assert store.measurements().networks[0].timing.latency == 3.0
    assert [r.disturbed for r in store.rounds(store.environment_id(here))["toy/1"]] == [False, True, False]


def test_what_disagrees_more_than_was_asked_for_says_so(store: Store) -> None:
    number = store.add_network(store.environment_id(here), item("toy/1"), network)
    for i, seconds in enumerate([3.0, 3.3]):
        store.add_round(number, i, visit(seconds))
    assert [store.measurements(spread=s).networks[0].timing.flags for s in (0.2, 0.05)] == [(), ("unstable",)]


def test_a_network_is_written_once_and_a_changed_one_is_refused(store: Store) -> None:
    place = store.environment_id(here)
    assert store.add_network(place, item("toy/1"), network) == store.add_network(place, item("toy/1"), network)
    changed = replace(network, kernels=network.kernels[:2])
    with pytest.raises(StoreError, match="'toy/1' with other kernels than it has now"):
        store.add_network(place, item("toy/1"), changed)


def test_a_round_cannot_be_written_twice(store: Store) -> None:
    number = store.add_network(store.environment_id(here), item("toy/1"), network)
    store.add_round(number, 0, visit(1.0))
    with pytest.raises(StoreError):
        store.add_round(number, 0, visit(2.0))
    assert [r.whole[0] for r in store.rounds(store.environment_id(here))["toy/1"]] == [1.0]


def test_environments_stand_side_by_side(store: Store) -> None:
    two = replace(here, threads=2)
    for place, seconds in ((here, 1.0), (two, 0.6)):
        store.add_round(store.add_network(store.environment_id(place), item("toy/1"), network), 0, visit(seconds))
    assert [(e.threads, n) for e, n in store.environments()] == [(1, 1), (2, 1)]
    assert store.measurements(threads=1).environment == here
    assert store.measurements(environment=two.digest[:6]).environment == two
    with pytest.raises(StoreError, match=f"2 environments that fit, choose one .* {here.digest[:8]}: threads 1; "):
        store.measurements()
    assert store.measurements(environment=here).networks[0].timing.latency == 1.0
    with pytest.raises(MeasurementError, match="threads is 1 here and 2 there"):
        store.measurements(threads=1) + store.measurements(threads=2)


def test_what_is_not_there_is_said_with_what_is(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no measurements of onnxruntime with 1 thread.*it is empty"):
        store.measurements("onnxruntime", 1)
    store.add_round(store.add_network(store.environment_id(here), item("toy/1"), network), 0, visit(1.0))
    with pytest.raises(StoreError, match=r"onnxruntime with 1 thread\(s\); it has torch-eager with 1 thread"):
        store.measurements("onnxruntime", 1)


def test_a_claimed_network_is_left_to_its_worker_until_the_claim_lapses(store: Store) -> None:
    place = store.environment_id(here)
    assert store.claim(place, ["a", "b"], "first", seconds=60) == {"a", "b"}
    assert store.claim(place, ["b", "c"], "second", seconds=60) == {"c"}
    assert store.claim(place, ["a"], "first", seconds=-1) == {"a"}  # renewed, and out of date at once
    assert store.claim(place, ["a", "b"], "second", seconds=60) == {"a"}
    store.release(place, "first")
    assert store.claim(place, ["b"], "second", seconds=60) == {"b"}


def test_a_claim_of_a_dead_process_is_void(store: Store) -> None:
    place = store.environment_id(here)
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = f"{worker_name().rpartition(':')[0]}:{process.stdout.strip()}"
    assert store.claim(place, ["a"], dead, seconds=60) == {"a"}
    clone = f"{platform.node()}/0:{process.stdout.strip()}"  # a host of the same name, started another time
    assert store.claim(place, ["a"], clone, seconds=60) == {"a"}
    assert store.claim(place, ["a"], worker_name(), seconds=60) == set()  # the clone may be alive for all we know


def test_a_network_may_have_no_kernels(store: Store) -> None:
    empty = Round(
        np.ones(2, np.float32), np.zeros(2, np.float32), np.zeros((1, 0), np.float32), Disturbance(0, 0, 0), 1.0
    )
    store.add_round(store.add_network(store.environment_id(here), item("nothing"), Network((), 0, "x")), 0, empty)
    assert store.measurements().networks[0].kernels == ()


def test_a_network_with_rounds_is_told_by_them_and_not_by_what_was_imported(store: Store) -> None:
    number = store.add_network(store.environment_id(here), item("toy/1"), network)
    store.add_round(number, 0, visit(1.0))
    before = store.measurements()
    slow = replace(before.networks[0].timing, latency=9.0)
    other = replace(before.networks[0], name="toy/2", timing=slow)
    both = Measurements(environment=here, networks=(replace(before.networks[0], timing=slow), other))
    assert store.add_measurements(both) == 1
    assert [n.timing.latency for n in store.measurements().networks] == [1.0, 9.0]


def test_what_was_imported_counts_until_rounds_are_as_sure(store: Store) -> None:
    place = store.environment_id(here)
    store.add_round(store.add_network(place, item("toy/1"), network), 0, visit(1.0))
    (one,) = store.measurements().networks
    imported = replace(one, name="toy/2", timing=replace(one.timing, latency=2.0, spread=0.05, rounds=8))
    store.add_measurements(Measurements(environment=here, networks=(imported,)))
    number, found = store.add_network(place, item("toy/2"), network), []
    for i in range(3):
        store.add_round(number, i, visit(3.0))
        found.append(store.measurements().networks[1].timing.latency)
    assert found == [2.0, 3.0, 3.0]  # one round tells no spread; two that agree are surer than 5 %


def test_contexts_are_those_of_networks_with_enough_rounds(store: Store) -> None:
    place = store.environment_id(here)
    for name, rounds in (("toy/1", 1), ("toy/2", 3)):
        number = store.add_network(place, item(name), network)
        for i in range(rounds):
            store.add_round(number, i, visit(1.0))
    assert len(store.contexts(place, 4)) == 0
    assert store.contexts(place, 2) == [[(relu(8).digest, -1), (relu(16).digest, 32), (relu(8).digest, 0)]]


def test_a_store_whose_making_was_cut_off_is_made_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(database, "insert_new", killed)  # all tables are there, and what says their version is not
    with pytest.raises(KeyboardInterrupt):
        Store.open(tmp_path / "m.db", create=True)
    monkeypatch.undo()
    assert Store.open(tmp_path / "m.db", create=True).environments() == ()


# -- stores that cannot be used ---------------------------------------------------------------------


def test_a_missing_store_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*m\.db; `hwcost measure --store"):
        Store.open(tmp_path / "m.db")
    assert not (tmp_path / "m.db").exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the directory .*nowhere of store m.db does not exist"):
        Store.open(tmp_path / "nowhere" / "m.db", create=True)


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a directory"):
        Store.open(tmp_path, create=True)


@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to have a header of one" * 20)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"notes.txt cannot be used: file is not a database"):
        Store.open(path, create=create)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_said_to_be_one(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(StoreError, match="a database without measurements"):
        Store.open(tmp_path / "other.db")


@pytest.mark.parametrize("url", ["mysql://h/x", "nonsense://x", "sqlite://", "http://example.org"])
def test_an_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"a store must be a SQLite file or a PostgreSQL database|a store is a path"):
        Store.open(url)


def test_a_server_that_does_not_answer_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="refused") as caught:
        Store.open("postgresql://me:secret@127.0.0.1:1/x", create=True)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_store_can_be_read_and_not_written(tmp_path: Path) -> None:
    Store.open(tmp_path / "m.db", create=True).close()
    (tmp_path / "m.db").chmod(0o444)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(tmp_path / "m.db", create=True)
    assert Store.open(tmp_path / "m.db").environments() == ()
