"""Tests of physical sense: more work is not faster, no time below the ceilings, unsure where nothing was measured.

On the simulated machine the truth is known. Where models ship, the same laws are asked of them, over
layers as real networks have them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwcost import CostModel
from hwcost.measure.types import Measurements
from hwcost.model.estimate import Estimate

SHIPPED = sorted((Path(__file__).parents[2] / "datasets" / "models").glob("*.hwcost"))
needs_shipped = pytest.mark.skipif(not SHIPPED, reason="no model ships yet: datasets/models holds no .hwcost file")


@pytest.fixture(scope="module", params=SHIPPED, ids=[p.stem for p in SHIPPED])
def shipped(request: pytest.FixtureRequest) -> CostModel:
    return CostModel.load(request.param)


def linear(model: CostModel, rows: int, k: int, n: int) -> Estimate:
    return model.estimate(nn.Linear(k, n, bias=False, device="meta"), (torch.empty(rows, k, device="meta"),))


def conv(model: CostModel, channels: int, side: int, batch: int = 1, kernel: int = 3) -> Estimate:
    module = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False, device="meta")
    return model.estimate(module, (torch.empty(batch, channels, side, side, device="meta"),))


def drop(ladder: list[float]) -> float:
    """The largest fall from any step to any later one, as a share: 0 where nothing ever gets faster."""
    return max([1 - b / a for a, b in itertools.combinations(ladder, 2)], default=0.0)


# -- more work of the same shape is not faster --------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    rows=st.sampled_from([64, 128, 256]),
    k=st.sampled_from([48, 64, 128, 200, 256]),
    widths=st.lists(st.integers(4, 16), min_size=2, max_size=6, unique=True),
)
def test_a_wider_layer_is_not_faster(model: CostModel, rows: int, k: int, widths: list[int]) -> None:
    """Widths that are multiples of 16, as the machine runs all of these alike; by no more than its clock's error
    (1 %) times three."""
    assert drop([linear(model, rows, k, 16 * w).latency for w in sorted(widths)]) <= 0.03


@pytest.mark.parametrize("rows_or_depth", ["rows", "depth"])
def test_more_rows_and_more_depth_are_not_faster(model: CostModel, rows_or_depth: str) -> None:
    steps = [48, 64, 96, 128, 160, 200, 256]
    if rows_or_depth == "rows":
        ladder = [linear(model, n, 128, 128).latency for n in steps]
    else:
        ladder = [linear(model, 128, n, 128).latency for n in steps]
    assert drop(ladder) <= 0.03


def ladders(model: CostModel) -> Iterator[tuple[str, list[float]]]:
    """Layers of real networks that grow in one way, by steps of at least a quarter of the work."""
    for side in (7, 14, 28, 56):
        yield f"channels at {side}", [conv(model, c, side).latency for c in (16, 32, 64, 128, 256, 512)]
    for channels in (32, 128):
        sides = (7, 10, 14, 20, 28, 40, 56, 80)
        yield f"side at {channels}", [conv(model, channels, s).latency for s in sides]
        yield f"batch at {channels}", [conv(model, channels, 14, b).latency for b in (1, 2, 4, 8)]
        yield f"window at {channels}", [conv(model, channels, 28, 1, k).latency for k in (1, 3, 5, 7)]
    for rows in (1, 49, 197):
        yield f"width at {rows} rows", [linear(model, rows, 384, n).latency for n in (96, 192, 384, 768, 1536)]


@needs_shipped
def test_layers_of_a_shipped_model_do_not_get_faster_with_more_work(shipped: CostModel) -> None:
    """By no more than the error of a single kernel that the model itself states: one standard error."""
    falls = {name: drop(ladder) for name, ladder in ladders(shipped)}
    allowed = float(np.exp(shipped.fitted.errors.sigma.get("conv2d", 0.1))) - 1
    wrong = {name: round(fall, 3) for name, fall in falls.items() if fall > max(allowed, 0.05)}
    assert not wrong, f"faster with more work, by share: {wrong}"


# -- no time below the ceilings -----------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 4096), k=st.integers(1, 4096), n=st.integers(1, 4096))
def test_no_kernel_beats_the_ceilings(model: CostModel, rows: int, k: int, n: int) -> None:
    """Inside and far outside what was measured. Ceilings of the simulated machine are exact, so only the
    trees' own error (5 %) is allowed."""
    (kernel,) = linear(model, rows, k, n).kernels
    assert kernel.latency >= 0.95 * kernel.roofline


@needs_shipped
def test_no_kernel_of_a_shipped_model_beats_the_ceilings_by_more_than_they_err(shipped: CostModel) -> None:
    """Measured ceilings are taken to err by 20 %: a kernel may run where the clock is higher than it was. A kind may
    have a ceiling above that of its dtype, which is that of a matrix product. Which cache level serves a kernel is
    the roofline's guess, so for traffic the ceiling is that of L2. Products with padding may be left out: along an
    axis of s outputs two of the 3 s places of the windows lie in it."""
    device, threads = shipped.device, shipped.threads
    peak, cache = device.peak("float32", threads), device.bandwidth("L2", threads)
    for channels, side in itertools.product((3, 16, 64, 256, 1024), (4, 14, 56, 112)):
        for kernel in conv(shipped, channels, side).kernels:
            inside = ((3 * side - 2) / (3 * side)) ** 2 if kernel.kind == "conv2d" else 1.0
            best = max(peak, device.kind_peak(kernel.label, shipped.runtime, "float32", threads))
            least = max(inside * kernel.cost.flops / best, kernel.cost.bytes / cache)
            assert kernel.latency >= least / 1.2, (channels, side, kernel.kind, kernel.latency / least)


# -- where nothing was measured -----------------------------------------------------------------------


def test_far_out_the_answer_is_the_median_of_the_kind(model: CostModel, measurements: Measurements) -> None:
    """Per kind, latency over (roofline + a launch) has a median over what was measured; 64 times as large in
    each dimension, the model answers with it."""
    efficiency = [
        k.timing.latency / (2 * k.kernel.cost.macs / 100e9)
        for n in measurements.networks
        for k in n.kernels
        if k.kernel.kind == "linear" and k.kernel.cost.macs > 1e6
    ]
    (kernel,) = linear(model, 128 * 64, 128 * 64, 128 * 64).kernels
    assert kernel.latency / kernel.roofline == pytest.approx(np.median(efficiency), rel=0.25)


def test_the_interval_widens_with_the_way_from_what_was_measured(model: CostModel) -> None:
    widths = [(e.high / e.low, e.support) for e in (linear(model, 128, 128, 128 << step) for step in range(0, 9, 2))]
    ratios = [ratio for ratio, _ in widths]
    assert all(b >= a * (1 - 1e-9) for a, b in itertools.pairwise(ratios)), ratios
    assert ratios[-1] > 1.3 * ratios[0]
    assert widths[0][1] == 1.0
    assert widths[-1][1] == 0.0


@needs_shipped
@pytest.mark.parametrize("layer", ["attention", "maps beyond the measured"])
def test_layers_that_nobody_measured_as_they_are(shipped: CostModel, layer: str) -> None:
    """Torch's attention layer calls one fused op, which is predicted by its parts; a pool over huge maps is bounded."""
    if layer == "attention":
        module = nn.TransformerEncoderLayer(192, 4, 768, batch_first=True).eval()
        found = [shipped.estimate(module, (torch.empty(1, n, 192, device="meta"),)) for n in (128, 196)]
        assert min(e.support for e in found) > 0.5
        # 1.5 times the tokens are 1.53 times the products of the linear layers, and more of the attention's
        assert 1.2 < found[1].latency / found[0].latency < 2.2
        return
    estimate = shipped.estimate(nn.MaxPool2d(3, 2, 1), (torch.empty(1, 768, 224, 224, device="meta"),))
    assert all(k.supported or k.latency >= k.roofline * (1 - 1e-9) for k in estimate.kernels)
