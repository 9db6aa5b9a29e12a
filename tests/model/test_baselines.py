"""Tests of hwcost.model.baselines: each does what its name says, and the model beats them all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwcost import CostModel, Device
from hwcost.measure.types import Measurements
from hwcost.model.baselines import Baseline, fit_baselines
from hwcost.model.data import ModelError


@pytest.fixture(scope="module")
def baselines(model: CostModel) -> dict[str, Baseline]:
    return {b.name: b for b in fit_baselines(model)}


def test_the_model_beats_every_baseline_on_unseen_networks(
    model: CostModel, baselines: dict[str, Baseline], unseen: Measurements
) -> None:
    measured = np.array([n.timing.latency for n in unseen.networks])
    errors = {
        name: float(np.mean(np.abs(b.predict(model.lower_measured(unseen)) / measured - 1)))
        for name, b in baselines.items()
    }
    assert set(errors) == {"flops", "flops + bytes", "roofline", "no roofline", "look-up", "forests"}
    assert model.evaluate(unseen).mape < min(errors.values()), errors
    # half of the widths run at half of the efficiency, which no count of flops can know
    assert errors["flops"] > 0.05


def test_flops_alone_is_exact_where_time_is_flops(model: CostModel) -> None:
    """On a machine whose time is flops / 50 Gflop/s, without traffic or overhead, the baseline has no error."""
    assert model.measurements is not None
    networks = tuple(
        replace(n, timing=replace(n.timing, latency=sum(k.kernel.cost.flops for k in n.kernels) / 50e9))
        for n in model.measurements.networks
    )
    lawful = replace(model.measurements, networks=networks)
    flops = fit_baselines(CostModel(replace(model.data, taken=lawful)))[0]
    predicted = flops.predict(model.lower_measured(lawful))
    np.testing.assert_allclose(predicted, [n.timing.latency for n in networks], rtol=1e-9)


def test_the_look_up_answers_measured_kernels_with_what_was_measured(
    model: CostModel, baselines: dict[str, Baseline]
) -> None:
    assert model.measurements is not None
    sums = [sum(k.timing.latency for k in n.kernels) for n in model.measurements.networks]
    predicted = baselines["look-up"].predict(model.lower_measured(model.measurements))
    np.testing.assert_allclose(predicted, sums, rtol=0.03)  # a mean over networks; each time has an error of 1 %


def test_a_kind_that_the_look_up_does_not_hold_costs_it_nothing(
    model: CostModel, baselines: dict[str, Baseline]
) -> None:
    import torch
    from torch import nn

    network = model.lower(nn.Softmax(dim=1), (torch.empty(64, 64, device="meta"),))
    assert baselines["look-up"].predict([network]) == baselines["forests"].predict([network]) == 0.0
    assert baselines["no roofline"].predict([network])[0] > 0


def test_the_roofline_alone_has_nothing_to_fit_them_on(device: Device) -> None:
    with pytest.raises(ModelError, match="the roofline alone has none"):
        fit_baselines(CostModel.analytic(device))
