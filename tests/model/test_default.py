"""Tests of the model that ships: `default`, what it warns of, and its use as a prior.

The folder of shipped models is one of the test's own, with a model of the simulated machine.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hwcost import CostModel, Device
from hwcost.importers.registry import read
from hwcost.measure.types import Measurements
from hwcost.model.data import DefaultModel, ModelError
from hwcost.model.files import shipped_path
from hwcost.model.provenance import provenance_of
from hwcost.search.spaces import space_names


@pytest.fixture
def ships(model: CostModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in which the simulated machine's model is the shipped one of torch eager."""
    folder = tmp_path / "datasets" / "models"
    folder.mkdir(parents=True)
    model.save(folder / "torch-eager-1.hwcost")
    monkeypatch.setattr("hwcost.model.files.shipped", lambda *parts: (tmp_path / "datasets").joinpath(*parts))
    return folder


def test_default_is_the_shipped_model_and_says_what_it_was_fitted_on(ships: Path, model: CostModel) -> None:
    with pytest.warns(DefaultModel) as caught:
        loaded = CostModel.load("default")
    assert loaded.digest == model.digest
    (message,) = [str(w.message) for w in caught]
    assert "\n" not in message
    for said in ("80 networks (80 simulated)", "measured on simulated, torch-eager", "1 thread(s)", "fit --prior"):
        assert said in message
    assert re.search(r"on \d{4}-\d\d-\d\d;", message)


def test_a_file_that_is_named_warns_of_nothing(ships: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CostModel.load(ships / "torch-eager-1.hwcost", runtime="torch-eager", threads=1)


@pytest.mark.parametrize(("runtime", "threads"), [("onnxruntime", 1), ("torch-eager", 2)])
def test_what_does_not_ship_is_refused(ships: Path, runtime: str, threads: int) -> None:
    with pytest.raises(ModelError, match=f"no model ships for {runtime} on {threads} thread"):
        CostModel.load("default", runtime=runtime, threads=threads)


def test_a_model_of_another_runtime_or_thread_count_is_refused(ships: Path) -> None:
    for wrong in ({"runtime": "onnxruntime"}, {"threads": 2}):
        with pytest.raises(ModelError, match=r"is of \w+ \S+, but \w+ \S+ was asked"):
            CostModel.load(ships / "torch-eager-1.hwcost", **wrong)  # type: ignore[arg-type]


def test_the_day_of_the_fit_is_kept_and_is_no_part_of_the_identity(model: CostModel, tmp_path: Path) -> None:
    CostModel(replace(model.data, date="2001-02-03")).save(tmp_path / "old.hwcost")
    again = CostModel.load(tmp_path / "old.hwcost")
    assert again.date == "2001-02-03"
    assert again.digest == model.digest


def test_what_was_measured_in_many_families_is_named_in_short(model: CostModel) -> None:
    assert model.measurements is not None
    told = provenance_of(model.measurements.environment, [f"f{i % 7}" for i in range(80)], model.date)
    assert "fitted on 80 networks (12 f0, 12 f1, 12 f2, 44 of 4 other families)" in told


def test_the_recipe_for_another_machine(
    ships: Path, simulate_networks: Callable[..., Measurements], device: Device
) -> None:
    """A few networks of a machine 1.7 times slower, on top of the shipped model of this one."""

    def slower(measurements: Measurements) -> Measurements:
        environment = replace(measurements.environment, cpu="slower")
        networks = tuple(
            replace(
                n, timing=_stretched(n.timing),
                kernels=tuple(replace(k, timing=_stretched(k.timing)) for k in n.kernels),
            )
            for n in measurements.networks
        )  # fmt: skip
        return Measurements(environment=environment, networks=networks)

    few, unseen = slower(simulate_networks(12, seed=11, widths=(64, 100, 128))), slower(simulate_networks(40, seed=12))
    with pytest.warns(DefaultModel):
        prior = CostModel.load("default")
    helped = CostModel.fit(few, device=device, prior=prior)
    alone = CostModel.fit(few, device=device)
    assert helped.evaluate(unseen).mape < 0.5 * alone.evaluate(unseen).mape
    assert helped.evaluate(unseen).mape < 0.1 < prior.evaluate(unseen).mape


def _stretched(timing):  # type: ignore[no-untyped-def]
    return replace(timing, latency=1.7 * timing.latency)


def test_the_folder_of_shipped_models_is_where_the_package_keeps_its_data() -> None:
    """Every file there is loadable as what its name says; there may be none yet."""
    folder = Path(__file__).parents[2] / "datasets" / "models"
    for path in folder.glob("*.hwcost"):
        runtime, _, threads = path.stem.rpartition("-")
        assert shipped_path(runtime, int(threads)).is_file()
        assert path.with_suffix(".md").is_file(), f"{path.name} ships without a card"
        assert path.stat().st_size < 8e6


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("runtime", ["torch-eager", "onnxruntime"])
def test_what_ships_was_measured_on_a_thousand_designed_networks_and_on_none_of_the_evaluation(
    runtime: str, threads: int
) -> None:
    """Read without a fit, priors and all. Real networks, on which predictions are judged, are of other families."""
    every = read("hwcost", shipped_path(runtime, threads)).measurements
    networks = [n for found in every for n in found.networks]
    families = Counter(n.family for n in networks)
    assert families["designed"] >= 1000
    assert set(families) <= {"designed", *space_names()}
    taken = {(e.runtime, e.threads, e.dtype) for e in (found.environment for found in every)}
    assert taken == {(runtime, threads, "float32")}
    assert all(n.kernels and math.isfinite(n.timing.spread) for n in networks)
