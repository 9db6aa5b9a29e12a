"""Studies in journal files and behind a gRPC proxy, and studies by workers of joblib and Dask."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import optuna
import pytest

from hwcost.search import LatencyObjective, ObjectiveError, StudyError, run_study
from hwcost.search.once import is_training
from hwcost.search.storage import open_storage

Toys = Any
SERVER = """
import sys
from optuna.storages import run_grpc_proxy_server
from hwcost.search.storage import open_storage
run_grpc_proxy_server(open_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


class Model:
    """a + b milliseconds."""

    def estimate(self, architecture: Any, inputs: Any = None) -> Any:
        t = 1e-3 * (architecture["a"] + architecture["b"])
        return SimpleNamespace(latency=t, low=t, high=t)


def build(trial: Any) -> dict[str, int]:
    """36 architectures."""
    return {k: trial.suggest_int(k, 1, 6) for k in "ab"}


@dataclass(frozen=True)
class Logged:
    """A training that appends a line to a file, in whichever process it runs."""

    log: str

    def __call__(self, architecture: Any, trial: Any) -> float:
        with open(self.log, "a") as file:
            file.write(f"{architecture['a']} {architecture['b']}\n")
        return float(architecture["a"] + architecture["b"] / 10)


def objective(log: Path) -> LatencyObjective:
    return LatencyObjective(build, Logged(str(log)), model=Model(), budget="8 ms")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    """The URL of a real gRPC proxy for a SQLite file."""
    pytest.importorskip("grpc", reason="grpcio is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path / "study.db"), str(port)])
    yield f"grpc://127.0.0.1:{port}"
    server.terminate()
    server.wait(30)


def test_a_study_by_grpc_proxy_trains_once_and_resumes(proxy: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(30):  # until the server answers
        try:
            storage = open_storage(proxy)
            break
        except StudyError:
            continue
    run_study(objective(log), 4, storage=storage, name="s")
    run_study(objective(log), 6, storage=proxy, name="s")
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 6
    behind = optuna.load_study(study_name="s", storage=open_storage(str(tmp_path / "study.db")))
    assert sum(is_training(t) for t in behind.trials) == 6
    assert behind.metric_names == ["accuracy"]


def test_no_proxy_at_that_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    storages = pytest.importorskip("optuna.storages")
    pytest.importorskip("grpc", reason="grpcio is not installed")
    wait = storages.GrpcStorageProxy.wait_server_ready
    monkeypatch.setattr(storages.GrpcStorageProxy, "wait_server_ready", lambda self, timeout: wait(self, timeout=0.5))
    with pytest.raises(StudyError, match=r"study storage 'grpc://127.0.0.1:1' cannot be opened: "):
        open_storage("grpc://127.0.0.1:1")


def test_a_journal_lies_where_sqlite_would(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy = LatencyObjective(toys.build, toys.training, model=toys.model, budget="5 ms")
    run_study(toy, 1, storage="journal:///here.log", name="s")
    run_study(toy, 2, storage=f"journal:///{tmp_path / 'here.log'}", name="s")  # four slashes: absolute
    assert len(toys.training.trained) == 2


@pytest.mark.parametrize("storage", ["study.db", "journal:///{}/study.log"])
def test_workers_of_joblib_meet_in_the_storage(storage: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    url = storage.format(tmp_path) if "{}" in storage else str(tmp_path / storage)
    with joblib.parallel_config("loky"):
        study = run_study(objective(log), 6, storage=url, name="s", n_jobs=2)
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines))
    assert 6 <= sum(is_training(t) for t in study.trials) <= 7


def test_dask_evaluates_in_parallel(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    log = tmp_path / "log"
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        study = run_study(objective(log), 6, storage=str(tmp_path / "study.db"), name="s", n_jobs=2)
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines))
    assert 6 <= sum(is_training(t) for t in study.trials) <= 7


def test_workers_elsewhere_need_a_storage_by_url_and_parts_that_travel(toys: Toys, tmp_path: Path) -> None:
    with joblib.parallel_config("loky"):
        with pytest.raises(StudyError, match="need a storage that each can open: give a path or URL, not memory"):
            run_study(objective(tmp_path / "log"), 2, n_jobs=2)
        local = LatencyObjective(build, lambda a, t: 0.5, model=Model(), budget="8 ms")
        with pytest.raises(ObjectiveError, match="evaluate cannot be sent to another process"):
            run_study(local, 2, storage=str(tmp_path / "s.db"), n_jobs=2)


class TestIdentity:
    """A resume with another model is refused, and what was trained stays."""

    def test_another_model(self, toys: Toys, tmp_path: Path) -> None:
        storage = str(tmp_path / "study.db")
        for digest in ("one", "two"):
            toys.model.digest = digest
            toy = LatencyObjective(toys.build, toys.training, model=toys.model, budget="5 ms")
            if digest == "one":
                run_study(toy, 2, storage=storage, name="s")
                continue
            with pytest.raises(StudyError, match=r"made with model .*one.* but this search has .*two.*; use another"):
                run_study(toy, 3, storage=storage, name="s")
        study = optuna.load_study(study_name="s", storage=open_storage(storage))
        assert sum(is_training(t) for t in study.trials) == 2
