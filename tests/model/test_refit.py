"""Tests of hwcost.model.cost_model: merging measurements, refusing foreign ones, and estimates that are made late."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from hwcost import CostModel, Device
from hwcost.measure.types import MeasurementError, Measurements
from hwcost.model.data import ModelError


def test_merging_more_measurements_is_fitting_on_all_of_them(
    device: Device, simulate_networks: Callable[..., Measurements]
) -> None:
    first, more = simulate_networks(12, seed=3), simulate_networks(10, seed=4)
    merged = CostModel.fit(first, device=device).merge(more)
    together = CostModel.fit(first + more, device=device)
    assert merged.digest == together.digest
    network = together.lower_measured(more)[0]
    assert merged.estimate(network).latency == together.estimate(network).latency


def test_measurements_of_another_environment_are_not_merged(model: CostModel, unseen: Measurements) -> None:
    elsewhere = replace(unseen, environment=replace(unseen.environment, cpu="another"))
    with pytest.raises(MeasurementError, match="cpu is 'simulated' here and 'another' there"):
        model.merge(elsewhere)


def test_an_evaluation_refuses_measurements_of_another_runtime(model: CostModel, unseen: Measurements) -> None:
    other = replace(unseen, environment=replace(unseen.environment, runtime="onnxruntime"))
    with pytest.raises(ModelError, match="taken with onnxruntime on 1"):
        model.evaluate(other)


def test_an_estimate_makes_its_kernels_late_and_travels_with_them(model: CostModel, unseen: Measurements) -> None:
    estimate = model.estimate(model.lower_measured(unseen)[0])
    again = pickle.loads(pickle.dumps(estimate))
    assert again == estimate
    assert again.kernels == estimate.kernels
