"""Tests of hwcost.model.features and of what the residual makes of kinds: worked numbers on kernels of known shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import trace
from hwcost.device.ceilings import KindCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.graph import OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.measure.types import Measurements
from hwcost.model.features import NAMES, Columns, Target, columns
from hwcost.model.residual import UNSEEN_SIGMA, Residual
from hwcost.runtimes.registry import get_runtime


def kernel(module: nn.Module, *shape: int, dtype: torch.dtype = torch.float32) -> Kernel:
    """The only op of a module that costs anything."""
    x = torch.empty(shape, device="meta", dtype=dtype)
    (op,) = [op for op in trace(module, (x,)).ops if op.state == "costed"]
    return Kernel((op.spec,))


def described(device: Device, one: Kernel) -> tuple[str, dict[str, float]]:
    found = columns([(one, 0)], Target(device, 1))
    return found.kinds[0], dict(zip(NAMES, found.features[0], strict=True))


def test_a_norm_and_a_linear_layer_work_along_the_last_dimension_of_a_map(device: Device) -> None:
    """[1, 14, 14, 24] is [n, h, w, c] to both: 24 channels in, not 14."""
    _, norm = described(device, kernel(nn.LayerNorm(24), 1, 14, 14, 24))
    _, linear = described(device, kernel(nn.Linear(24, 40), 1, 14, 14, 24))
    assert 2 ** norm["channels_in"] - 1 == pytest.approx(24)
    assert (2 ** linear["channels_in"] - 1, 2 ** linear["channels_out"] - 1) == pytest.approx((24, 40))
    assert 2 ** linear["rows"] - 1 == pytest.approx(14 * 14)


@pytest.mark.parametrize(
    ("groups", "out", "kind"),
    [(1, 16, "conv2d"), (2, 16, "conv2d/grouped"), (16, 16, "conv2d/depthwise"), (16, 32, "conv2d/grouped")],
)
def test_depthwise_is_one_channel_in_and_one_out(device: Device, groups: int, out: int, kind: str) -> None:
    assert described(device, kernel(nn.Conv2d(16, out, 3, groups=groups), 1, 16, 8, 8))[0] == kind


def test_channels_that_do_not_fill_vectors_waste_them(device: Device) -> None:
    """20 channels take three vectors of 8 (24 lanes), two of 16, one of 32."""
    _, found = described(device, kernel(nn.Conv2d(8, 20, 1), 1, 8, 7, 7))
    assert 2 ** found["waste_8_out"] == pytest.approx(24 / 20)
    assert 2 ** found["waste_16_out"] == pytest.approx(32 / 20)
    assert found["waste_8_in"] == 0


def test_no_kernel_is_answered_below_what_its_traffic_takes_at_the_second_cache(device: Device) -> None:
    """A clock of whole microseconds tells of a copy of 64 kB less than L2 does: 2 * 65,536 byte at 64 GB/s take
    2.048 us; a ceiling may be a fifth too low, which leaves 1.707 us. What nobody measured has its roofline."""
    cache = MemoryCeiling(level="L2", size="1 MB", threads=1, measured="64 GB/s", measured_source="simulation")
    device = device.model_copy(update={"memory": (*device.memory, cache)})
    found = columns([(kernel(nn.ReLU(), 1, 16, 32, 32), -1)], Target(device, 1))
    measured, unknown = found.least(np.array([True])), found.least(np.array([False]))
    assert measured == pytest.approx([2.048e-6 / 1.2])
    assert unknown == pytest.approx(found.roofline)


def test_no_kernel_is_answered_below_what_its_products_take_at_the_highest_ceiling(device: Device) -> None:
    """1,024 x 64 x 64 products of 2 flop each at 100 Gflop/s take 83.9 us; where probes of its kind were quicker, at
    160 Gflop/s, 52.4 us; where they were slower, it is still a product like others."""
    one = kernel(nn.Linear(64, 64, bias=False), 1024, 64)
    for peak, seconds in ((None, 83.89e-6), ("160 GFLOP/s", 52.43e-6), ("40 GFLOP/s", 83.89e-6)):
        about = {"dtype": "float32", "threads": 1, "runtime": "torch-eager", "measured_source": "simulation"}
        kinds = () if peak is None else (KindCeiling(kind="linear", measured=peak, **about),)
        found = columns([(one, -1)], Target(device.model_copy(update={"kinds": kinds}), 1))
        assert found.least(np.array([True])) == pytest.approx([seconds / 1.2], rel=1e-3)


def test_a_gate_may_stand_on_either_side(device: Device) -> None:
    """gate * map is as much work as map * gate, along the same dimension."""
    whole, gate = TensorSpec("self", (1, 24, 14, 14)), TensorSpec("other", (1, 24, 1, 1))
    one, other = (Kernel((OpSpec("mul", inputs, (whole,)),)) for inputs in ((whole, gate), (gate, whole)))
    assert described(device, one) == described(device, other)


@pytest.mark.parametrize("in_place", [False, True])
def test_eager_tells_an_op_that_writes_into_its_input(device: Device, in_place: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=in_place))
    relu = get_runtime("torch-eager").lower(trace(module, (torch.empty(1, 3, 9, 9, device="meta"),))).kernels[-1]
    assert described(device, relu.kernel)[1]["in_place"] == in_place
    assert Kernel.from_json(relu.kernel.to_json()) == relu.kernel


@pytest.mark.parametrize(
    ("perm", "run", "moved"),
    [((0, 1, 2, 3), 2 * 3 * 4 * 5, 0), ((0, 2, 1, 3), 5, 1), ((0, 1, 3, 2), 1, 1), ((3, 2, 1, 0), 1, 3)],
)
def test_a_copy_is_described_by_what_stays_together(
    device: Device, perm: tuple[int, ...], run: int, moved: int
) -> None:
    shape = (2, 3, 4, 5)
    out = TensorSpec("out", tuple(shape[p] for p in perm))
    one = Kernel((OpSpec("clone", (TensorSpec("self", shape),), (out,), (("perm", perm),)),))
    found = described(device, one)[1]
    assert (2 ** found["run"], found["moved"]) == pytest.approx((run, moved))


def test_a_kind_that_was_never_measured_is_taken_for_its_nearest_kin(
    measurements: Measurements, device: Device
) -> None:
    """The same kernels by another name: the same time, but not counted as measured, and an error of a factor e."""
    rows = [m for n in measurements.networks for m in n.kernels]
    data = columns([(m.kernel, m.distance) for m in rows], Target(device, 1))
    residual = Residual().fit(data, np.array([m.timing.latency for m in rows]), np.ones(len(rows)))
    renamed: Columns = replace(data, kinds=tuple("product" if k == "linear" else k for k in data.kinds))
    mine = np.array(data.kinds) == "linear"
    known, unknown = residual.predict(data), residual.predict(renamed)
    np.testing.assert_allclose(unknown.latency[mine], known.latency[mine])
    assert not unknown.supported[mine].any()
    assert (unknown.sigma[mine] >= UNSEEN_SIGMA).all()


@pytest.mark.parametrize(
    ("module", "side", "inside"),
    [
        (nn.Conv2d(8, 8, 3, padding=1), 1, 1 / 9),  # only the middle of the window meets the map
        (nn.Conv2d(8, 8, 3, padding=1), 7, (19 / 21) ** 2),  # 7 x 3 places a side, of which two lie outside
        (nn.Conv2d(8, 8, 5, padding="same"), 3, (9 / 15) ** 2),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), 10, (26 / 30) ** 2),
        (nn.Conv2d(8, 8, 3, stride=2), 9, 1.0),  # no padding
        (nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1), 7, 1.0),  # its padding cuts the output
        (nn.ReLU(), 7, 1.0),
    ],
)
def test_the_bound_leaves_out_products_with_padding(
    module: nn.Module, side: int, inside: float, device: Device
) -> None:
    """Published counts hold them, and so do the features; but a runtime may not compute them."""
    data = columns([(kernel(module, 1, 8, side, side), 0)], Target(device, 1))
    assert data.at_best == pytest.approx(data.compute_time * inside)


def test_a_dtype_that_was_not_measured_is_outside(measurements: Measurements, device: Device) -> None:
    rows = [m for n in measurements.networks for m in n.kernels]
    data = columns([(m.kernel, m.distance) for m in rows], Target(device, 1))
    residual = Residual().fit(data, np.array([m.timing.latency for m in rows]), np.ones(len(rows)))
    single = nn.Linear(128, 128, bias=False)
    here, there = (
        residual.predict(columns([(kernel(module, 64, 128, dtype=dtype), 0)], Target(device, 1)))
        for module, dtype in ((single, torch.float32), (nn.Linear(128, 128, bias=False).double(), torch.float64))
    )
    assert here.supported.all()
    assert not there.supported.any()
    assert there.sigma >= here.sigma
