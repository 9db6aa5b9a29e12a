"""Tests of the benches that fit: on the simulated machine, where what each part buys is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from hwcost import CostModel, Device
from hwcost.measure.types import Measurements


def bench(name: str) -> ModuleType:
    """A file of tests/bench, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_each_part_buys(measurements: Measurements, unseen: Measurements, device: Device) -> None:
    """The machine reaches half or 80 % of its peak, takes 4 us a call and has no caches."""
    found = dict(bench("bench_ablation").rows(measurements, unseen, device))
    figures = {name.partition(":")[0]: a.mape for name, a in found.items() if not isinstance(a, str)}
    whole = figures.pop("nothing")
    assert set(figures) == {
        "cache levels", "cache levels, and what ran before", "the residual", "the overhead", "the roofline",
        "whole runs",
    }  # fmt: skip
    assert figures["the residual"] > 3 * whole
    assert figures["the overhead"] > 3 * whole
    assert figures["cache levels"] == pytest.approx(whole, abs=0.005)
    reasons = {name.partition(":")[0]: why for name, why in found.items() if isinstance(why, str)}
    assert set(reasons) == {"lowering", "the runtime's own graph", "in-context times"}


def test_kernels_are_timed_alone() -> None:
    """One time for every call; the calls are made on the same arguments, so the output stays what it is."""
    network, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Flatten()).eval(), torch.randn(4, 8)
    with torch.inference_mode():
        expected = network(x)
        with bench("bench_ablation").Loop() as loop:
            found = network(x)
    torch.testing.assert_close(found, expected)
    assert len(loop.times) == 3
    assert loop.times[0] > 0


def test_a_short_campaign_on_top_of_another_target(
    model: CostModel, measurements: Measurements, unseen: Measurements
) -> None:
    """Of the simulated machine, whose prior is itself: no worse than the short campaign alone."""
    from dataclasses import replace

    designed = replace(measurements, networks=tuple(replace(n, family="designed") for n in measurements.networks))
    known = CostModel(replace(model.data, taken=designed))
    found = dict(bench("bench_prior").rows(known, {"itself": model}, unseen, 12, ""))
    assert found["itself alone"].mape == pytest.approx(model.evaluate(unseen).mape)
    assert found["12 designed networks on top of itself"].mape < found["12 designed networks"].mape


def test_a_short_campaign_is_held_to_other_families_or_to_its_rest(measurements: Measurements) -> None:
    from dataclasses import replace

    found = bench("bench_prior")
    families = ("designed", "designed", "designed", "mbconv")
    four = tuple(replace(n, family=f) for n, f in zip(measurements.networks, families, strict=False))
    few = found.short_campaign(replace(measurements, networks=four), 2)
    assert found.others(replace(measurements, networks=four), few).networks == four[3:]
    assert found.others(replace(measurements, networks=four[:3]), few).networks == four[2:3]
