"""Tests of hwcost.model.cost_model: merging measurements, refusing foreign ones, and estimates that are made late."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import hwcost
from hwcost import CostModel, Device
from hwcost.graph import FUSED_ATTENTION
from hwcost.measure.types import MeasurementError, Measurements
from hwcost.model.data import ModelError, UnmeasuredFusedAttention
from hwcost.runtimes.registry import get_runtime


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


def test_measured_fused_attention_that_cannot_be_taken_apart_is_told(model: CostModel, unseen: Measurements) -> None:
    """The simulated networks state no space or target from which they could be built again."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    graph = hwcost.trace(layer, (torch.zeros(1, 4, 16, device="meta"),))
    (fused,) = get_runtime("torch-eager").lower(graph).kernels
    assert fused.kernel.kind in FUSED_ATTENTION
    network = unseen.networks[0]
    first = replace(network.kernels[0], kernel=fused.kernel)
    changed = replace(unseen, networks=(replace(network, kernels=(first, *network.kernels[1:])),))
    with pytest.warns(UnmeasuredFusedAttention, match=f"{network.name} ran fused attention.*; measure networks"):
        (lowered,) = model.lower_measured(changed)
    assert lowered.kernels[0].kernel == fused.kernel


def test_an_estimate_makes_its_kernels_late_and_travels_with_them(model: CostModel, unseen: Measurements) -> None:
    estimate = model.estimate(model.lower_measured(unseen)[0])
    again = pickle.loads(pickle.dumps(estimate))
    assert again == estimate
    assert again.kernels == estimate.kernels
