"""Tests of hwcost.model.files: a model file gives the same bits in every process, and fits nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hwcost import CostModel, Device
from hwcost.measure.types import Measurements
from hwcost.model.data import ModelError, OldModelFile
from hwcost.model.files import members, shipped_path

DATA = {"kernels.parquet", "networks.parquet", "times.parquet"}

ANSWER = """
import sys, hashlib, json
import hwcost
graph = hwcost.trace(*__import__("model_files_network").network())
for path in sys.argv[1:]:
    model = hwcost.CostModel.load(path)
    found = [model.estimate(graph)] + [model.estimate(n) for n in model.lower_measured(model.measurements)[:20]]
    numbers = [x.hex() for e in found for x in (e.latency, e.low, e.high, *(k.latency for k in e.kernels))]
    print(hashlib.sha256(json.dumps(numbers).encode()).hexdigest(), model.digest)
"""
NETWORK = """
import torch
from torch import nn

def network():
    layers = nn.Conv2d(3, 24, 3, 2), nn.SiLU(), nn.Conv2d(24, 24, 5, groups=24), nn.Conv2d(24, 72, 1), nn.LayerNorm(1)
    return nn.Sequential(*layers[:4]).eval(), (torch.empty(1, 3, 96, 96, device="meta"),)
"""


def test_a_file_holds_data_and_plain_arrays_and_no_code(model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.hwcost")
    with zipfile.ZipFile(tmp_path / "m.hwcost") as archive:
        names = set(archive.namelist())
        arrays = {name for name in names if name.startswith("residual/")}
        assert names - arrays == {"device.toml", "fitted.json", "model.json", *DATA}
        for name in arrays:
            assert not np.load(io.BytesIO(archive.read(name)), allow_pickle=False).dtype.hasobject


def test_what_is_loaded_is_what_was_saved(model: CostModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.save(tmp_path / "m.hwcost")
    monkeypatch.setattr("hwcost.model.files.fit", lambda *_: pytest.fail("loading fitted the model"))
    again = CostModel.load(tmp_path / "m.hwcost")
    assert (again.held_out, again.overhead, again.fitted.errors) == (
        model.held_out,
        model.overhead,
        model.fitted.errors,
    )
    assert (again.digest, again.provenance, again.date) == (model.digest, model.provenance, model.date)
    assert again.measurements is not None
    networks = model.lower_measured(again.measurements)
    assert again.estimate_many(networks) == model.estimate_many(networks)
    again.save(tmp_path / "again.hwcost")
    assert (tmp_path / "again.hwcost").read_bytes() == (tmp_path / "m.hwcost").read_bytes()


def test_twenty_loads_in_fresh_processes_give_the_same_bits(tmp_path: Path) -> None:
    """Two shipped models, both with priors, in ten processes with a home folder each: nothing is remembered."""
    (tmp_path / "model_files_network.py").write_text(NETWORK)

    def answer(number: int) -> str:
        home = tmp_path / str(number)
        home.mkdir()
        environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(tmp_path)}
        environment["OMP_NUM_THREADS"] = str(1 + number % 3)
        command = [sys.executable, "-c", ANSWER, *(str(shipped_path(r, 1)) for r in ("torch-eager", "onnxruntime"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert not any(path.is_file() for path in home.rglob("*")), "a model leaves nothing behind"
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(answer, range(10)))
    assert len(set(answers)) == 1


def of_format_1(model: CostModel, path: Path) -> None:
    """Write a model as the first version did: data, and what cross-validation found, but no trees."""
    held = members(model.data)
    document = json.loads(held["fitted.json"])
    errors = document["errors"] | {"held_out": [row[1:4] for row in document["held_out"]]}
    head = {k: v for k, v in json.loads(held["model.json"]).items() if k != "provenance"} | {"format": 1}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", json.dumps(head))
        archive.writestr("errors.json", json.dumps(errors))
        for name in ("device.toml", *DATA):
            archive.writestr(name, held[name])
        if model.prior is not None:
            of_format_1(model.prior, path.with_suffix(".prior"))
            archive.writestr("prior.hwcost", path.with_suffix(".prior").read_bytes())


def test_format_1_is_read_fitted_once_and_can_be_written_anew(
    model: CostModel, device: Device, simulate_networks: Callable[..., Measurements], tmp_path: Path
) -> None:
    made = CostModel.fit(simulate_networks(12, seed=5), device=device, prior=model)
    of_format_1(made, tmp_path / "old.hwcost")
    with pytest.warns(OldModelFile, match=r"format 1, which holds no trees, so that it was fitted now; save it once"):
        old = CostModel.load(tmp_path / "old.hwcost")
    assert old.digest == made.digest  # the same data give the same trees
    assert old.held_out == made.held_out
    old.save(tmp_path / "new.hwcost")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CostModel.load(tmp_path / "new.hwcost").digest == made.digest


def test_format_1_without_its_errors_is_cross_validated(model: CostModel, tmp_path: Path) -> None:
    of_format_1(model, tmp_path / "old.hwcost")
    held = {name: content for name, content in _members(tmp_path / "old.hwcost").items() if name != "errors.json"}
    _write(tmp_path / "old.hwcost", held)
    with pytest.warns(OldModelFile):
        assert asdict(CostModel.load(tmp_path / "old.hwcost").fitted.errors) == asdict(model.fitted.errors)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no model file"), (b"not a zip", "is no model file"), (b"", "is no model file")],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "bad.hwcost"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        CostModel.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_damaged_file_is_refused(model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.hwcost")
    whole = (tmp_path / "m.hwcost").read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(1, len(whole) - 1, size=10):
        (tmp_path / "cut.hwcost").write_bytes(whole[:cut])
        with pytest.raises(ModelError, match="is no model file"):
            CostModel.load(tmp_path / "cut.hwcost")


def refusal(path: Path) -> str | None:
    """What a file is refused with, when it is loaded or when its measurements are read."""
    try:
        assert CostModel.load(path).measurements is not None
    except ModelError as error:
        return str(error)
    return None


def test_members_that_do_not_fit_together_are_refused(model: CostModel, tmp_path: Path) -> None:
    """Each member of a file in turn is left out, is of nothing, or is another one: an error of one line, or the same
    answer where it is not needed for one."""
    model.save(tmp_path / "m.hwcost")
    held = _members(tmp_path / "m.hwcost")
    needed = sorted(name for name in held if name not in {"date"})
    for name in needed:
        for content in (None, b"", b"{}", b"[]", held["residual/answer.npy"], held["residual/tree_roots.npy"]):
            if content == held[name]:
                continue
            changed = {k: v for k, v in held.items() if k != name} | ({name: content} if content is not None else {})
            _write(tmp_path / "bad.hwcost", changed)
            said = refusal(tmp_path / "bad.hwcost")
            assert said is None or "\n" not in said, name


def test_a_file_that_finds_kernels_by_unrounded_features_is_refused(model: CostModel, tmp_path: Path) -> None:
    """It would take none of its measured kernels for measured, without a word."""
    model.save(tmp_path / "m.hwcost")
    held = _members(tmp_path / "m.hwcost")
    document = json.loads(held["fitted.json"])
    del document["residual"]["grid"]
    _write(tmp_path / "m.hwcost", held | {"fitted.json": json.dumps(document).encode()})
    with pytest.raises(ModelError, match="not found by rounded features; fit it again"):
        CostModel.load(tmp_path / "m.hwcost")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "m.hwcost", {"model.json": json.dumps({"format": 99}).encode()})
    with pytest.raises(ModelError, match=r"format 99.*update hwcost"):
        CostModel.load(tmp_path / "m.hwcost")


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, held: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
