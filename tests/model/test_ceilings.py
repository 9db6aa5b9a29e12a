"""Tests of hwcost.model.ceilings: a device file that is wrong is told, and does not make predictions wrong.

The machine is the simulated one of `tests/conftest.py`: 100 GFLOP/s, of which layers reach 80 %, and 20 GB/s.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import CostModel
from hwcost.device.ceilings import KindCeiling
from hwcost.device.device import Device
from hwcost.measure.arrays import Flat
from hwcost.measure.types import Measurements
from hwcost.model.ceilings import CeilingsBeaten, beaten
from hwcost.model.features import Target
from hwcost.model.trees import Settings


def described(device: Device, compute: float, memory: float) -> Device:
    """The device file with ceilings so many times the real ones."""
    (peak,), (dram,) = device.compute, device.memory
    return device.model_copy(
        update={
            "compute": (peak.model_copy(update={"measured": peak.value * compute}),),
            "memory": (dram.model_copy(update={"measured": dram.value * memory}),),
        }
    )


@pytest.fixture(scope="module")
def few(simulate_networks: Callable[..., Measurements]) -> Measurements:
    return simulate_networks(40, seed=0)


@pytest.mark.parametrize(
    ("compute", "memory", "said"),
    [
        (0.1, 0.1, r"\(compute by a factor of [78].*, memory by a factor of (9|10)"),
        (0.1, 1.0, r"\(compute by a factor of [78].\d\)"),
        (1.0, 0.1, r"\(memory by a factor of (9|10)"),
        (10.0, 10.0, ""),
        (1.0, 1.0, ""),
    ],
)
def test_ceilings_that_are_wrong_are_told_and_do_not_matter(
    few: Measurements, unseen: Measurements, device: Device, compute: float, memory: float, said: str
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CeilingsBeaten)
        model = CostModel.fit(few, device=described(device, compute, memory), settings=Settings(iterations=60))
    told = [str(w.message) for w in caught if w.category is CeilingsBeaten]
    assert len(told) == bool(said)
    if said:
        with pytest.warns(CeilingsBeaten, match=said):
            warnings.warn(told[0], CeilingsBeaten, stacklevel=1)
        assert "hwcost calibrate" in told[0]
    assert model.evaluate(unseen).mape < 0.02
    # a layer larger than any that was measured: 2 * 256 * 1024 * 1024 flop at 80 GFLOP/s are 6.71 ms
    layer = nn.Linear(1024, 1024, bias=False, device="meta")
    assert model.estimate(layer, (torch.empty(256, 1024, device="meta"),)).latency == pytest.approx(6.71e-3, rel=0.1)


def test_how_many_kernels_beat_the_ceilings_is_counted(few: Measurements, device: Device) -> None:
    """At a tenth of the peak and the whole bandwidth, every layer does and no addition."""
    found = beaten(Flat.of(few), Target(described(device, 0.1, 1.0), 1))
    kinds = [m.kernel.kind for n in few.networks for m in n.kernels]
    assert (found.kernels, found.faster) == (len(kinds), kinds.count("linear"))
    assert found.share == kinds.count("linear") / len(kinds)
    assert found.memory == 1


def test_a_few_kernels_that_a_clock_rounded_to_nothing_raise_no_ceiling(few: Measurements, device: Device) -> None:
    first, *rest = few.networks
    (one, *others) = first.kernels
    rounded = replace(one, timing=replace(one.timing, latency=0.0))
    networks = (replace(first, kernels=(rounded, *others)), *rest)
    found = beaten(Flat.of(replace(few, networks=networks)), Target(device, 1))
    assert not found.found
    assert found.faster == 1
    assert found.raised() is device


def test_the_ceiling_of_a_kind_is_raised_too(few: Measurements, device: Device) -> None:
    """Layers reach 80 GFLOP/s, of which the device file says 5."""
    about = {"dtype": "float32", "threads": 1, "runtime": "torch-eager", "measured_source": "simulation"}
    low = device.model_copy(update={"kinds": (KindCeiling(kind="linear", measured="5 GFLOP/s", **about),)})
    found = beaten(Flat.of(few), Target(low, 1))
    assert not found.found
    (kind,) = found.raised().kinds
    assert kind.value == pytest.approx(80e9, rel=0.1)
    assert "raised" in kind.measured_source
    assert np.isclose(found.raised().peak(), device.peak())
