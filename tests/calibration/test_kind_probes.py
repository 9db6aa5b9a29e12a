"""Tests of hwcost.calibration.kind_probes: rates follow from times, and memory-bound kinds have no ceiling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import CostModel, trace
from hwcost.calibration import kind_probes as kinds
from hwcost.calibration.kind_probes import KindProbe, kind_ceilings, kind_probes, shapes
from hwcost.device.ceilings import ComputeCeiling, KindCeiling, MemoryCeiling
from hwcost.device.device import Device, DeviceError
from hwcost.kernel import label
from hwcost.runtimes.registry import get_runtime

PEAK, BANDWIDTH = 1e11, 1e10


def device(*ceilings: KindCeiling) -> Device:
    """One core with 1e11 flop/s and 1e10 byte/s, so that arithmetic is free below 10 flop per byte."""
    said = {"threads": 1, "measured_source": "a run"}
    compute, memory = ComputeCeiling(measured=PEAK, **said), MemoryCeiling(measured=BANDWIDTH, **said)
    return Device(name="toy", compute=(compute,), memory=(memory,), kinds=ceilings)


def ceiling(kind: str, rate: float, **what: Any) -> KindCeiling:
    said = {"runtime": "torch-eager", "threads": 1, "measured_source": "a run"} | what
    return KindCeiling(kind=kind, measured=rate, **said)


class Simulated:
    """A session whose every kernel takes `call` s and computes at `rate` flop/s, in some rounds slower."""

    def __init__(self, module: nn.Module, *shape: int, rate: float, call: float = 5e-6) -> None:
        self.network = get_runtime("torch-eager").lower(trace(module, (torch.empty(shape, device="meta"),)))
        self._times = np.array([call + p.kernel.cost.flops / rate for p in self.network.kernels])
        self._visits = 0
        self.sleeps, self.warm_ups = False, 0

    def run(self) -> None:
        """Nothing to run."""

    def profile(self, runs: int = 1, between: Any = None) -> Any:
        """Every third visit meets a busy machine."""
        self._visits += 1
        return np.tile(self._times * (1.5 if self._visits % 3 == 0 else 1.0), (runs, 1))


def simulated(module: nn.Module, channels: int, rate: float, said: str = "toy") -> tuple[KindProbe, KindProbe]:
    """A pair of probes that were visited twelve times."""
    small, large = (KindProbe(said, n, Simulated(module, n, channels, 20, 20, rate=rate)) for n in (1, 4))
    for _ in range(12):
        small.visit()
        large.visit()
    return small, large


def depthwise(window: int) -> nn.Module:
    return nn.Conv2d(64, 64, window, padding=window // 2, groups=64)


def test_the_rate_is_the_slope_so_that_calls_and_busy_rounds_drop_out() -> None:
    [found] = kind_ceilings([simulated(depthwise(3), 64, rate=3e9)], device(), "torch-eager", 1)
    assert (found.kind, found.runtime, found.threads, found.dtype) == ("conv2d/depthwise", "torch-eager", 1, "float32")
    assert found.value == pytest.approx(3e9)
    assert found.spread == 0  # eight of twelve rounds were equal
    assert found.measured_source == "toy; slope from a batch of 1 to 4"


def test_what_one_thread_does_each_of_several_does() -> None:
    """Two threads share out a large batch and perhaps not a small one, so that their own slope would tell nothing."""
    two = {"threads": 2, "measured_source": "a run"}
    both = (ComputeCeiling(measured=2 * PEAK, **two),), (MemoryCeiling(measured=2 * BANDWIDTH, **two),)
    where = Device(name="toy", cores=2, compute=both[0], memory=both[1])
    [found] = kind_ceilings([simulated(depthwise(3), 64, rate=3e9)], where, "torch-eager", 2)
    assert (found.threads, found.value) == (2, pytest.approx(6e9))
    assert found.measured_source == "toy; slope from a batch of 1 to 4 of one thread, times 2"


@pytest.mark.parametrize("runtime", ["torch-eager", "onnxruntime"])
def test_probes_run_on_one_thread(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, prepare = [], type(get_runtime(runtime)).prepare

    def asking(self: Any, *args: Any, threads: int) -> Any:
        asked.append(threads)
        return prepare(self, *args, threads=threads)

    monkeypatch.setattr(type(get_runtime(runtime)), "prepare", asking)
    monkeypatch.setattr(kinds, "shapes", lambda: list(shapes())[:1])
    kind_probes(runtime)
    assert asked == [1, 1]


def test_the_fastest_shape_of_a_kind_counts() -> None:
    pairs = [simulated(depthwise(w), 64, rate=rate, said=f"{w}") for w, rate in ((3, 3e9), (5, 8e9), (7, 6e9))]
    [found] = kind_ceilings(pairs, device(), "torch-eager", 1)
    assert found.value == pytest.approx(8e9)
    assert found.measured_source.startswith("5;")


@pytest.mark.parametrize(("slower", "known"), [(1.0, False), (1.9, False), (2.1, True)])
def test_what_memory_may_bind_has_no_ceiling(slower: float, known: bool) -> None:
    # ReLU moves 8 byte for each flop: memory alone allows 1e10 / 8 = 1.25e9 flop/s
    pair = simulated(nn.ReLU(), 64, rate=1.25e9 / slower)
    assert bool(kind_ceilings([pair], device(), "torch-eager", 1)) is known


def test_noise_that_eats_the_slope_leaves_no_ceiling() -> None:
    small, large = simulated(depthwise(3), 64, rate=3e9)
    assert kind_ceilings([(small, large)], device(), "torch-eager", 1)
    assert kind_ceilings([(large, small)], device(), "torch-eager", 1) == ()
    large.rounds = [times * (1 + i) for i, times in enumerate(large.rounds)]  # each round slower than the one before
    assert kind_ceilings([(small, large)], device(), "torch-eager", 1) == ()


@pytest.mark.parametrize(
    ("rate", "known"), [(PEAK, False), (1.5 * PEAK, True), (0.8 * PEAK, True), (0.97 * PEAK, False)]
)
def test_a_kind_that_reaches_the_peak_has_no_ceiling_of_its_own(rate: float, known: bool) -> None:
    compute = device().compute[0].model_copy(update={"spread": 0.05})
    where = device().model_copy(update={"compute": (compute,)})
    pair = simulated(nn.Conv2d(64, 64, 3, padding=1), 64, rate=rate)
    assert bool(kind_ceilings([pair], where, "torch-eager", 1)) is known


# -- what a ceiling of a kind does -----------------------------------------------------------------------------


def latency(net: nn.Module, where: Device, runtime: str = "torch-eager", threads: int = 1) -> tuple[float, str]:
    [kernel] = CostModel.analytic(where, runtime, threads).estimate(net, (torch.empty(1, 64, 20, 20),)).kernels
    assert kernel.latency == kernel.roofline
    return kernel.latency, kernel.bound


def test_kernels_of_a_kind_are_bound_by_its_ceiling() -> None:
    # 64 x 20 x 20 outputs of 9 multiply-adds and a bias: 486,400 flop. Bytes: 2 x 64 x 400 x 4 of maps, 640 x 4 of
    # weights and bias: 207,360, at 1e10 byte/s 20.736 us. Of 60 taps a row the padding holds 2, so (58 / 60)^2 of
    # the arithmetic must be done; at 1e9 flop/s that takes 454.514 us.
    slow = device(ceiling("conv2d/depthwise", 1e9))
    assert latency(depthwise(3), device()) == (pytest.approx(20.736e-6), "memory")
    assert latency(depthwise(3), slow) == (pytest.approx(454.514e-6), "compute")


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "conv2d"}, {"kind": "conv2d/depthwise", "runtime": "onnxruntime"},
        {"kind": "conv2d/depthwise", "threads": 2}, {"kind": "conv2d/depthwise", "dtype": "float16"},
    ],
)  # fmt: skip
def test_others_are_not(other: dict[str, Any]) -> None:
    assert latency(depthwise(3), device(ceiling(rate=1e9, **other))) == latency(depthwise(3), device())


def test_a_fast_algorithm_may_beat_the_ceiling_of_the_dtype() -> None:
    """Winograd's convolutions need fewer multiplications than are counted."""
    where = device(ceiling("conv2d", 1.5 * PEAK))
    assert where.kind_peak("conv2d", "torch-eager", "float32", 1) == 1.5 * PEAK
    assert latency(nn.Conv2d(64, 64, 3), where)[0] < latency(nn.Conv2d(64, 64, 3), device())[0]


def test_a_kind_has_one_ceiling_for_a_runtime_dtype_and_thread_count() -> None:
    with pytest.raises(ValueError, match="stated once, but gelu in torch-eager, float32, has two for 1 threads"):
        device(ceiling("gelu", 1e9), ceiling("gelu", 2e9))
    with pytest.raises(DeviceError, match="dtype must be one of"):
        device().kind_peak("gelu", "torch-eager", "float31")


# -- the probes themselves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["torch-eager", "onnxruntime"])
def test_every_shape_runs_and_computes_what_it_says(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = kind_probes(runtime)
    assert len(probes) == len(list(shapes()))
    found = set()
    for small, large in probes:
        for probe in (small, large):
            probe.visit()
            probe.visit()
        each, other = (kinds._by_label(probe) for probe in (small, large))
        assert each.keys() == other.keys() != set()  # both batches are lowered to the same kinds
        for name, (kernel, seconds, _) in each.items():
            assert seconds > 0
            assert label(kernel) == name
            assert other[name][0].cost.flops == pytest.approx(4 * kernel.cost.flops, rel=0.1)
        found |= each.keys()
    assert {"conv2d", "conv2d/depthwise", "conv2d/grouped", "linear", "matmul", "softmax", "layer_norm"} <= found
