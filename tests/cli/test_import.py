"""Tests of the verb import, and of the way from a store to an export and into another store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwcost.measure.store.store import Store
from hwcost.model.overhead import Overhead

Run = Callable[..., Any]
PLACE = {"cpu": "A72", "cores": 4, "runtime": "torch-eager", "threads": 1}


def lines(path: Path, count: int) -> Path:
    rows: list[dict[str, Any]] = [{"environment": PLACE}]
    for n in range(1, count + 1):
        tensors = {"in": [{"name": "self", "shape": [n * 1000]}], "out": [{"name": "out", "shape": [n * 1000]}]}
        rows.append({"kernel": [{"kind": "relu", **tensors}], "latency_s": 1e-6 * n})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_kernels_go_through_a_store_and_an_export_into_another_store(run: Run, tmp_path: Path) -> None:
    first, second, folder = (str(tmp_path / name) for name in ("a.db", "b.db", "out"))
    said = run("import", "kernels", str(lines(tmp_path / "k.jsonl", 12)), "--store", first, "--json").json
    assert said["environments"] == [{"cpu": "A72", "runtime": "torch-eager", "threads": 1, "read": 12, "new": 12}]
    again = run("import", "kernels", str(tmp_path / "k.jsonl"), "--store", first)
    assert "0 measurements" in again.out
    assert "12 were there already" in " ".join(again.out.split())
    assert run("export", "--store", first, "-o", folder, "--made-by", "me").code == 0
    assert "`me`" in (Path(folder) / "README.md").read_text()
    assert run("import", "hwcost", folder, "--store", second).code == 0
    assert Store.open(second).measurements() == Store.open(first).measurements()


def test_kernels_without_networks_can_be_fitted(run: Run, tmp_path: Path) -> None:
    store, model = str(tmp_path / "a.db"), str(tmp_path / "m.hwcost")
    run("import", "kernels", str(lines(tmp_path / "k.jsonl", 30)), "--store", store)
    fitted = run("fit", "--store", store, "--device", "raspberry-pi-4", "-o", model)
    assert fitted.code == 0, fitted.err
    assert "inf" not in fitted.out

    from hwcost import CostModel

    assert CostModel.load(model).overhead == Overhead()
    out = str(tmp_path / "out.db")
    assert run("import", "hwcost", model, "--store", out).code == 0
    assert Store.open(out).measurements() == Store.open(store).measurements()  # what it was fitted on


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("csv", "a format must be one of hwcost, kernels, neusight, but got 'csv'"),
        ("hwcost", "must have networks.parquet"),
    ],
)
def test_what_cannot_be_imported_is_one_line(refused: Callable[..., str], tmp_path: Path, name: str, said: str) -> None:
    refused(["import", name, str(tmp_path), "--store", str(tmp_path / "m.db")], said)
    assert not (tmp_path / "m.db").exists()


def test_a_file_that_is_no_model_is_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    argv = ["import", "hwcost", str(tmp_path / "notes.txt"), "--store", str(tmp_path / "m.db")]
    refused(argv, r"notes\.txt must be a folder that `hwcost export` wrote, or a model file that holds measurements")
