"""Several worker processes on one study: each architecture is trained once, also that of a worker that was killed.

On SQLite, and on PostgreSQL too where HWCOST_TEST_POSTGRESQL holds the URL of a database.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

from hwcost.search.once import attribute_of, is_training
from hwcost.search.storage import open_storage

POSTGRESQL = os.environ.get("HWCOST_TEST_POSTGRESQL", "")

WORKER = """
import os, sys, time
from types import SimpleNamespace
import optuna
from hwcost.search import LatencyObjective, run_study, storage as opening
optuna.logging.set_verbosity(optuna.logging.ERROR)
opening.HEARTBEAT, opening.GRACE = 1, 3  # s: a test does not wait half a minute
storage, name, log, sleep = sys.argv[1:5]

class Model:
    def estimate(self, architecture, inputs=None):
        t = 1e-3 * (architecture["a"] + architecture["b"])
        return SimpleNamespace(latency=t, low=t, high=t)

def build(trial):
    return {k: trial.suggest_int(k, 1, 6) for k in "ab"}

def evaluate(architecture, trial):
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {architecture['a']} {architecture['b']}\\n")
    time.sleep(float(sleep))
    return architecture["a"] + architecture["b"] / 10

run_study(LatencyObjective(build, evaluate, model=Model(), budget="8 ms"), 12, storage=storage, name=name)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    if not POSTGRESQL:
        pytest.skip("HWCOST_TEST_POSTGRESQL names no database")
    return POSTGRESQL


def start(storage: str, name: str, log: Path, sleep: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, storage, name, str(log), str(sleep)])


def trained(log: Path) -> list[tuple[str, ...]]:
    """(a, b) of every training that was begun, in order."""
    return [tuple(line.split()[1:]) for line in log.read_text().splitlines()]


def test_four_workers_train_each_architecture_once(storage: str, tmp_path: Path) -> None:
    name, log = uuid.uuid4().hex, tmp_path / "log"
    log.touch()
    workers = [start(storage, name, log, 0.3) for _ in range(4)]
    assert [w.wait(240) for w in workers] == [0, 0, 0, 0]
    assert max(Counter(trained(log)).values()) == 1
    assert 12 <= len(trained(log)) <= 15  # the last ones may have been begun at the same moment
    assert len({line.split()[0] for line in log.read_text().splitlines()}) > 1


def test_a_killed_workers_trial_is_taken_up_again(storage: str, tmp_path: Path) -> None:
    import optuna

    name, log = uuid.uuid4().hex, tmp_path / "log"
    log.touch()
    doomed = start(storage, name, log, 3600)
    while not trained(log):
        time.sleep(0.1)
        assert doomed.poll() is None
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert start(storage, name, log, 0).wait(240) == 0
    trials = optuna.load_study(study_name=name, storage=open_storage(storage)).trials
    first = trained(log)[0]
    done = [t for t in trials if is_training(t)]
    assert len(done) == 12
    assert first in {(str(t.params["a"]), str(t.params["b"])) for t in done}
    assert {attribute_of(t).get("state") for t in trials if t.state.name == "FAIL"} == {"training"}
