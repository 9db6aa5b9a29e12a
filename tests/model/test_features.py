"""Tests of hwcost.model.features and of what the residual makes of kinds: worked numbers on kernels of known shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
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


# -- worked examples: a feature by its name, a number by hand -----------------------------------------
#
# On the simulated machine: 100 Gflop/s, 20 GB/s and no caches, whatever the threads. `log(n)` is log2(1 + n).


def log(size: float) -> float:
    return math.log2(1 + size)


def grouped_convolution() -> Kernel:
    """A 3x5 convolution of 42 to 108 channels in 3 groups, then relu, an addition and relu in place, all in one.

    Along the height (20 + 2 * 3 - 2 * 2 - 1) // 4 + 1 = 6 outputs, along the width (44 - 4 - 1) // 2 + 1 = 20.
    """
    shape = (2, 108, 6, 20)
    inside, strided = TensorSpec("out", shape, internal=True), TensorSpec("out", shape, layout="strided")
    image = TensorSpec("input", (2, 42, 20, 44), layout="channels_last")
    weight = TensorSpec("weight", (108, 14, 3, 5), weight=True)
    params = (("dilation", (2, 1)), ("groups", 3), ("padding", (3, 0)), ("stride", (4, 2)))
    passed = replace(inside, name="self")
    beside = TensorSpec("other", shape, layout="channels_last")
    return Kernel((
        OpSpec("conv2d", (image, weight), (strided,), params),
        OpSpec("relu", (replace(strided, name="self", internal=True),), (inside,)),
        OpSpec("add", (passed, beside), (inside,)),
        OpSpec("relu", (passed,), (inside,), (("in_place", True),)),
    ))  # fmt: skip


GROUPED_CONVOLUTION = {
    "kind": 0,  # the residual's to fill in
    "ops": 4,
    "epilogue": 2,  # relu and add
    # 2 * 108 * 6 * 20 = 25,920 elements out, each of 14 * 3 * 5 = 210 multiply-adds: 5,443,200; of 2 flop each,
    # and 3 further ops of 1 flop an element: 10,886,400 + 77,760 = 10,964,160
    "flops": log(10_964_160),
    "macs": log(5_443_200),
    "compute_time": log(109_641.6),  # ns at 100 Gflop/s
    "weights": log(90_720),  # 108 * 210 of 4 byte
    "read": log(399_360),  # 2 * 42 * 20 * 44 = 73,920 elements of the map and 25,920 of what is added
    "written": log(103_680),  # 25,920 elements
    "memory_time": log(29_688),  # ns: 593,760 byte at 20 GB/s
    "bound": math.log2(109_642.6 / 29_689),
    "distance": 20,  # log2 of 1,000,001 is 19.93
    "working_set": log(593_760),
    "reach": 7,
    "depth_k": log(210),
    "channels_out": log(108),
    "channels_in": log(42),
    "rows": log(240),  # 2 * 6 * 20
    "height": log(6),
    "width": log(20),
    "batch": 1,  # log2 of 2
    "dims": 4,
    "last_in": log(44),
    "last_out": log(20),
    "input": log(73_920),
    "window": 4,  # log2 of 1 + 15
    "stride": 2,  # log2 of 4
    "dilation": 1,  # log2 of 2
    "groups": math.log2(3),
    "padding": 3,
    "window_width": 5,
    "group_in": math.log2(14),
    "group_out": math.log2(36),
    "align_out": 2,  # 108 is 4 * 27
    "align_in": 1,  # 42 is 2 * 21
    "waste_8_out": math.log2(40 / 36),  # 36 channels in a group take 5 vectors of 8
    "waste_8_in": math.log2(16 / 14),
    "waste_16_out": math.log2(48 / 36),
    "waste_32_out": math.log2(64 / 36),
    "waste_4_last": 0,  # 20 is 5 * 4
    "waste_8_last": math.log2(24 / 20),
    "strided": 3,  # the map, what the convolution leaves and what is added
    "layout_in": 1,
    "layout_out": 2,
    "run": -1,
    "moved": -1,
    "itemsize": 4,
    "inputs": 6,  # 2 + 1 + 2 + 1
    "in_place": 1,
    "parallel": 3,  # log2 of 8 threads
}


def linear() -> Kernel:
    """[3, 50, 33] to [3, 50, 20] in half precision, with a bias."""
    inputs = (
        TensorSpec("input", (3, 50, 33), "float16"),
        TensorSpec("weight", (20, 33), "float16", weight=True),
        TensorSpec("bias", (20,), "float16", weight=True),
    )
    return Kernel((OpSpec("linear", inputs, (TensorSpec("out", (3, 50, 20), "float16"),)),))


LINEAR = {
    "ops": 1,
    "epilogue": 0,
    "macs": log(99_000),  # 150 * 20 * 33
    "weights": log(1_360),  # 20 * 34 of 2 byte
    "read": log(9_900),
    "written": log(6_000),
    "depth_k": log(33),
    "channels_out": log(20),
    "channels_in": log(33),
    "rows": log(150),
    "height": log(1),
    "width": log(1),
    "batch": math.log2(3),
    "dims": 3,
    "last_in": log(33),
    "last_out": log(20),
    "input": log(4_950),
    "window": log(1),
    "stride": 0,
    "dilation": 0,
    "groups": 0,
    "padding": 0,
    "window_width": 1,
    "group_in": math.log2(33),
    "group_out": math.log2(20),
    "align_out": 2,  # 20 is 4 * 5
    "align_in": 0,  # 33 is odd
    "waste_8_out": math.log2(24 / 20),
    "waste_8_in": math.log2(40 / 33),
    "waste_16_out": math.log2(32 / 20),
    "waste_32_out": math.log2(32 / 20),
    "waste_4_last": 0,
    "waste_8_last": math.log2(24 / 20),
    "strided": 0,
    "layout_in": 0,
    "layout_out": 0,
    "run": -1,
    "moved": -1,
    "itemsize": 2,
    "inputs": 3,
    "in_place": 0,
}


def softmax() -> Kernel:
    """Over the ten of [3, 10, 9]."""
    shape = (3, 10, 9)
    return Kernel((OpSpec("softmax", (TensorSpec("self", shape),), (TensorSpec("out", shape),), (("dim", 1),)),))


SOFTMAX = {
    "macs": 0,
    "weights": 0,
    "depth_k": 0,
    "channels_out": log(10),
    "channels_in": log(10),
    "rows": log(27),
    "last_in": log(9),
    "last_out": log(9),
    "align_out": 1,
    "align_in": 1,
    "waste_4_last": math.log2(12 / 9),
    "waste_8_last": math.log2(16 / 9),
}


def transposed_copy() -> Kernel:
    """[2, 3, 4, 5] to [2, 4, 3, 5]: rows of 5 stay together, one of two dimensions moves past the other."""
    out = TensorSpec("out", (2, 4, 3, 5))
    return Kernel((OpSpec("clone", (TensorSpec("self", (2, 3, 4, 5)),), (out,), (("perm", (0, 2, 1, 3)),)),))


TRANSPOSED_COPY = {"run": math.log2(5), "moved": 1, "channels_in": log(3), "channels_out": log(4), "height": log(3)}


def broadcast_addition() -> Kernel:
    """A number for each channel, [4, 24, 1, 1], and a map [4, 24, 14, 14]: the map is what the op works along."""
    inputs = (TensorSpec("self", (4, 24, 1, 1)), TensorSpec("other", (4, 24, 14, 14)))
    return Kernel((OpSpec("add", inputs, (TensorSpec("out", (4, 24, 14, 14)),)),))


BROADCAST_ADDITION = {
    "read": log(75_648),  # 96 + 18,816 elements of 4 byte
    "written": log(75_264),
    "channels_in": log(24),
    "rows": log(784),
    "batch": 2,
    "last_in": log(14),
    "input": log(18_816),
    "align_in": 3,  # 24 is 8 * 3
    "inputs": 2,
}


def pooling() -> Kernel:
    """5x5 with gaps, at every fourth place of a strided map: (32 + 2 * 2 - 2 * 4 - 1) // 4 + 1 = 7 outputs a side."""
    image = TensorSpec("self", (1, 16, 32, 32), layout="strided")
    out = TensorSpec("out", (1, 16, 7, 7), layout="channels_last")
    params = (("dilation", 2), ("kernel_size", 5), ("padding", 2), ("stride", 4))
    return Kernel((OpSpec("max_pool2d", (image,), (out,), params),))


POOLING = {
    "epilogue": 0,
    "height": log(7),
    "window": log(25),
    "stride": 2,  # log2 of 4
    "dilation": 1,  # log2 of 2
    "padding": 2,
    "window_width": 1,  # of convolutions alone
    "strided": 1,
    "layout_in": 2,
    "layout_out": 1,
    "in_place": 0,
}

EXAMPLES = {
    grouped_convolution: GROUPED_CONVOLUTION,
    linear: LINEAR,
    softmax: SOFTMAX,
    transposed_copy: TRANSPOSED_COPY,
    broadcast_addition: BROADCAST_ADDITION,
    pooling: POOLING,
}


def features_of(device: Device, one: Kernel) -> dict[str, float]:
    found = columns([(one, 1_000_000)], Target(device, threads=8), reach=7)
    return dict(zip(NAMES, found.features[0], strict=True))


@pytest.mark.parametrize(("example", "expected"), EXAMPLES.items(), ids=[make.__name__ for make in EXAMPLES])
def test_worked_examples(device: Device, example: Callable[[], Kernel], expected: dict[str, float]) -> None:
    found = features_of(device, example())
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_the_examples_tell_any_two_features_apart(device: Device) -> None:
    """If two features changed places, a number of an example would differ."""
    assert set(GROUPED_CONVOLUTION) == set(NAMES)
    alike = set(itertools.combinations(NAMES, 2))
    for make, expected in EXAMPLES.items():
        found = features_of(device, make())
        alike -= {
            (one, other)
            for one, other in alike
            if (one in expected or other in expected) and not math.isclose(found[one], found[other], rel_tol=1e-6)
        }
    assert not alike


# Trees of the model files hold numbers of columns.
ORDER = """
    kind ops epilogue compute_time memory_time bound flops macs weights read written distance working_set reach
    depth_k channels_out channels_in rows height width batch dims last_in last_out input window stride dilation groups
    padding window_width group_in group_out align_out align_in waste_8_out waste_8_in waste_16_out waste_32_out
    waste_4_last waste_8_last strided layout_in layout_out run moved itemsize inputs in_place parallel
"""


def test_no_column_changes_its_place() -> None:
    assert tuple(ORDER.split()) == NAMES


def test_no_kernels_have_no_rows(device: Device) -> None:
    assert columns([], Target(device, 1)).features.shape == (0, len(NAMES))


# -- cases -------------------------------------------------------------------------------------------


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
    """64 kB read and 64 kB written, 2 * 65,536 byte, take 2.048 us at the 64 GB/s of L2; a ceiling may be a fifth too
    low, which leaves 1.707 us. A kernel far from all measured ones is bounded by its roofline."""
    cache = MemoryCeiling(level="L2", size="1 MB", threads=1, measured="64 GB/s", measured_source="simulation")
    device = device.model_copy(update={"memory": (*device.memory, cache)})
    found = columns([(kernel(nn.ReLU(), 1, 16, 32, 32), -1)], Target(device, 1))
    measured, unknown = found.least(np.array([True])), found.least(np.array([False]))
    assert measured == pytest.approx([2.048e-6 / 1.2])
    assert unknown == pytest.approx(found.roofline)


def test_no_kernel_is_answered_below_what_its_products_take_at_the_highest_ceiling(device: Device) -> None:
    """1,024 x 64 x 64 multiply-adds of 2 flop each take 83.9 us at the device's 100 Gflop/s, and 52.4 us at 160 Gflop/s
    where probes of its kind reached that. A ceiling of the kind below the device's does not change the bound."""
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


def test_a_kind_that_was_never_measured_is_predicted_as_its_nearest_measured_kernels(
    measurements: Measurements, device: Device
) -> None:
    """The same kernels under the name of an unknown kind: the same time, not counted as measured, and an error of at
    least a factor e."""
    rows = [m for n in measurements.networks for m in n.kernels]
    data = columns([(m.kernel, m.distance) for m in rows], Target(device, 1))
    residual = Residual.fit(data, np.array([m.timing.latency for m in rows]), np.ones(len(rows)))
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
    """Published counts include them, and so do the features; a runtime may skip them."""
    data = columns([(kernel(module, 1, 8, side, side), 0)], Target(device, 1))
    assert data.at_best == pytest.approx(data.compute_time * inside)


def test_a_dtype_that_was_not_measured_is_outside(measurements: Measurements, device: Device) -> None:
    rows = [m for n in measurements.networks for m in n.kernels]
    data = columns([(m.kernel, m.distance) for m in rows], Target(device, 1))
    residual = Residual.fit(data, np.array([m.timing.latency for m in rows]), np.ones(len(rows)))
    single = nn.Linear(128, 128, bias=False)
    here, there = (
        residual.predict(columns([(kernel(module, 64, 128, dtype=dtype), 0)], Target(device, 1)))
        for module, dtype in ((single, torch.float32), (nn.Linear(128, 128, bias=False).double(), torch.float64))
    )
    assert here.supported.all()
    assert not there.supported.any()
    assert there.sigma >= here.sigma
