"""Tests of the verb export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwcost.measure.store.store import Store

Run = Callable[..., Any]


def test_several_environments_of_a_store_are_told_apart(
    run: Run, refused: Callable[..., str], nets: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.db"
    run("measure", f"{nets}:build", "-i", "1x3x8x8", "--rounds", "2", "--store", str(path), "--json")
    store = Store.open(path)
    here = store.measurements()
    store.add_measurements(replace(here, environment=replace(here.environment, cpu="another")))
    folder = str(tmp_path / "out")
    refused(["export", "--store", str(path), "-o", folder], "2 environments that fit, choose one with --environment")
    refused(["export", "--store", str(path), "-o", folder], "cpu another")
    other = next(e for e, _ in store.environments() if e.cpu == "another")
    done = run("export", "--store", str(path), "-o", folder, "--environment", other.digest[:8])
    assert done.code == 0
    assert "another" in (tmp_path / "out" / "README.md").read_text()
