"""What optuna-dashboard shows of a study, in a real browser: our plots and the note, where its own would mislead."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest

from hwcost.search import LatencyObjective, dashboard, run_study
from hwcost.search.dashboard import DashboardError, note, publish
from hwcost.search.plots import PlotError

Toys = Any
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HAS_DASHBOARD = find_spec("optuna_dashboard") is not None
needs_dashboard = pytest.mark.skipif(not HAS_DASHBOARD, reason="optuna-dashboard is not installed")


def search(toys: Toys, storage: str | None = None) -> optuna.Study:
    toys.model.spread = 1.2
    objective = LatencyObjective(toys.build, toys.training, model=toys.model, budget="5 ms", form="pareto")
    return run_study(objective, trainings=5, storage=storage, name="toys")


def test_the_note_tells_counts_budget_and_what_to_distrust(toys: Toys) -> None:
    study = search(toys)
    text = note(study)
    rejected = len([t for t in study.trials if t.state.name == "PRUNED"])
    assert f"5 architectures trained; {rejected} of {len(study.trials)} proposals rejected before training." in text
    assert "latency at most 5 ms" in text
    assert "0.21" in text
    assert "show infeasible trials of Optuna 5 as feasible" in text


@needs_dashboard
def test_publishing_again_replaces_what_is_there(toys: Toys) -> None:
    from optuna_dashboard import get_note

    study = search(toys)
    names = publish(study)
    assert names == ("hwcost-pareto-front", "hwcost-history", "hwcost-importances")
    stored = len(study._storage.get_study_system_attrs(study._study_id))
    assert publish(study) == names
    assert len(study._storage.get_study_system_attrs(study._study_id)) == stored
    assert get_note(study) == note(study)


@needs_dashboard
def test_a_study_without_trainings_has_nothing_to_publish() -> None:
    with pytest.raises(PlotError, match="has no training of a LatencyObjective to plot"):
        publish(optuna.create_study(study_name="empty"))


def test_a_missing_dashboard_is_named(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(DashboardError, match=r"needs a package: pip install 'hwcost\[dashboard\]'"):
        dashboard.publish(search(toys))


@pytest.fixture
def served(toys: Toys, tmp_path: Path) -> Iterator[str]:
    """A dashboard over a published study, at this URL."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    publish(search(toys, url))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", start, url, "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/api/studies", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the dashboard ended"
        try:
            with urllib.request.urlopen(url, timeout=30):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {url}")


def rendered(url: str, profile: Path) -> str:
    """The page as a browser shows it, once its scripts have run for a while of its own time."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    more = ["--window-size=1400,5000", "--virtual-time-budget=10000", "--dump-dom", url]
    assert CHROMIUM is not None
    return subprocess.run([CHROMIUM, *flags, *more], capture_output=True, text=True, timeout=250, check=True).stdout


@needs_dashboard
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_the_plots_and_the_note(served: str, tmp_path: Path) -> None:
    page = rendered(f"{served}/dashboard/studies/1", tmp_path / "profile")
    for text in ("Pareto-front Plot", "Latency and Accuracy History Plot", "Infeasible Trial (not trained)", "budget"):
        assert text in page
    assert "proposals rejected before training" in rendered(f"{served}/dashboard/studies/1/note", tmp_path / "profile")
