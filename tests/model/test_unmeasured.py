"""Tests of what is said of kernels that nobody measured, and that measured ones are answered by their measurement.

The simulated machine (`tests/conftest.py`) runs fully connected layers and additions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import CostModel
from hwcost.device.device import Device
from hwcost.graph import OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.measure.arrays import Flat
from hwcost.measure.statistics import Z
from hwcost.measure.types import Environment, Measurement, Measurements, Timing, lone
from hwcost.model.errors import calibrated, errors_by_kind
from hwcost.model.features import Columns, Target, columns
from hwcost.model.fit import fit
from hwcost.model.intervals import Errors
from hwcost.model.learned import Answers, from_members, to_members
from hwcost.model.residual import Residual
from hwcost.model.rows import groups_of, rows_of
from hwcost.model.trees import Settings
from hwcost.runtimes.base import Network, Placed

FAST = Settings(iterations=40)
EXACT = Timing(latency=1e-4, median=1e-4, p95=1e-4, spread=0.01, rounds=5)


def layer(rows: int, k: int, n: int, dtype: str = "float32") -> Kernel:
    inputs = (TensorSpec("input", (rows, k), dtype), TensorSpec("weight", (n, k), dtype, weight=True))
    return Kernel((OpSpec("linear", inputs, (TensorSpec("out", (rows, n), dtype),)),))


def data_of(measurements: Measurements, device: Device) -> tuple[Columns, np.ndarray]:
    """The distinct kernels of measurements, and their first times."""
    found = {m.kernel: m for n in measurements.networks for m in n.kernels}
    times = np.array([m.timing.latency for m in found.values()])
    return columns([(kernel, 0) for kernel in found], Target(device, 1)), times


def lone_kernels(*kernels: Kernel, times: int) -> Measurements:
    """Each kernel so many times, all of them in 100 us exactly."""
    place = Environment(cpu="simulated", cores=1, runtime="torch-eager", threads=1)
    each = [lone(f"{n}/{i}", "lone", k, EXACT) for i in range(times) for n, k in enumerate(kernels)]
    return Measurements(environment=place, networks=tuple(each))


def convolutions() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
    return network.to("meta").eval(), (torch.empty(1, 3, 32, 32, device="meta"),)


# -- intervals do not collapse -----------------------------------------------------------------------


@pytest.mark.parametrize("distinct", [1, 2, 8])
def test_exact_timings_of_few_kernels_say_nothing_of_convolutions(device: Device, distinct: int) -> None:
    kernels = [layer(64, 64, 64 + 16 * n) for n in range(distinct)]
    model = CostModel.fit(lone_kernels(*kernels, times=40 // distinct), device=device, settings=FAST)
    found = model.estimate(*convolutions())
    assert found.support == 0
    assert found.high / found.latency > 3


def test_forty_exact_timings_of_a_kernel_are_its_answer(device: Device) -> None:
    model = CostModel.fit(lone_kernels(layer(64, 64, 64), times=40), device=device, settings=FAST)
    found = model.estimate(nn.Linear(64, 64, bias=False, device="meta"), (torch.empty(64, 64, device="meta"),))
    assert found.latency == pytest.approx(1e-4, rel=1e-3)
    assert found.support == 1


def test_networks_that_run_the_same_kernels_are_left_out_together() -> None:
    one, other = layer(64, 64, 64), layer(64, 64, 80)
    (a, b, *_), (c, *_) = (lone_kernels(k, times=3).networks for k in (one, other))
    pair = replace(a, name="pair", kernels=(*a.kernels, *c.kernels), calls=2)
    turned = replace(pair, name="turned", kernels=pair.kernels[::-1])
    c = replace(c, name="c")
    named = replace(c, name=a.name)
    empty = [replace(a, name=name, kernels=(), calls=3) for name in ("x", "y")]
    measured = Measurements(
        environment=lone_kernels(one, times=1).environment, networks=(a, b, pair, c, turned, *empty)
    )
    groups = groups_of(Flat.of(measured))
    assert groups[0] == groups[1] != groups[3]
    assert groups[2] == groups[4]
    assert len(set(groups)) == 5
    joined = groups_of(Flat.of(replace(measured, networks=(*measured.networks, named))))
    assert joined[0] == joined[1] == joined[3] == joined[7]  # of one name, so of one group, and so are their equals


def test_many_unmeasured_kernels_err_together(model: CostModel) -> None:
    """Layers of fifty widths that nobody measured: as unsure as one of them, not by the root of fifty less."""

    def spread(widths: range) -> float:
        placed = tuple(Placed(layer(64, 4000, n), "", 0) for n in widths)
        found = model.estimate(Network(placed, len(placed), "torch-eager"))
        assert found.support == 0
        return float(np.log(found.high / found.latency))

    one, many = spread(range(4000, 4001)), spread(range(4000, 4500, 10))
    assert one > many > 0.5 * one
    assert many > 0.15 * Z  # more than four doublings outside: 0.1 + 0.1 * 4 at least, if the middle is a sum


def test_the_further_outside_the_wider(model: CostModel) -> None:
    halves = []
    for n in (256, 512, 1024, 4096, 1 << 14):
        found = model.estimate(Network((Placed(layer(64, 256, n), "", 0),), 1, "torch-eager"))
        halves.append(found.high / found.latency)
    assert halves == sorted(halves)
    assert len(set(halves)) == len(halves)


def test_a_narrow_z_is_of_measured_kernels_alone() -> None:
    """z = 1.1 was found inside the range; outside, a normal error of 0.4 has a 90 % interval of 1.645 * 0.4."""
    errors = Errors(common=0.0, shared=0.0, z=1.1)
    inside, outside = errors.shared_of(np.array([False, False]), np.array([0.0, 0.4]))
    assert (1.1 * inside, 1.1 * outside) == pytest.approx((0.0, 1.645 * 0.4))
    assert Errors(shared=0.2, z=2.0).shared_of(np.array([True, False]), np.zeros(2)).tolist() == [0.0, 0.2]


def test_an_interval_is_never_narrower_than_its_standard_error() -> None:
    z, _ = calibrated(np.zeros(40), np.full(40, 0.1), np.zeros(40), 0.0)
    assert z == 1.0


# -- dtypes, and kinds that a prior knows ------------------------------------------------------------


def test_a_dtype_of_the_same_size_is_another_dtype(measurements: Measurements, device: Device) -> None:
    """float16 was measured, bfloat16 was not; an element of both has two bytes."""
    half = [layer(64, 64, n, "float16") for n in range(48, 80, 2)]
    both = [(m.kernel, 0) for m in measurements.networks[0].kernels] + [(kernel, 0) for kernel in half]
    residual = Residual.fit(
        columns(both, Target(device, 1)), np.full(len(both), 1e-4), np.ones(len(both)), settings=FAST
    )
    asked = [(layer(64, 64, 63, dtype), 0) for dtype in ("float16", "bfloat16")]
    known, new = residual.predict(columns(asked, Target(device, 1))).supported.tolist()
    assert (known, new) == (True, False)
    assert residual.predict(columns(asked, Target(device, 1))).beyond.tolist() == [0.0, 1.0]
    assert residual.learned is not None
    again = from_members(*to_members(residual.learned))
    assert again.dtypes == {**residual.learned.dtypes} == {"add": ("float32",), "linear": ("float16", "float32")}


def test_a_file_that_tells_no_dtypes_goes_by_the_size_of_an_element(measurements: Measurements, device: Device) -> None:
    data, latency = data_of(measurements, device)
    learned = Residual.fit(data, latency, np.ones(len(latency)), settings=FAST).learned
    assert learned is not None
    values, arrays = to_members(learned)
    del values["dtypes"]
    asked = columns([(layer(64, 64, 64, dtype), 0) for dtype in ("float32", "bfloat16", "float64")], Target(device, 1))
    assert from_members(values, arrays).of_new_dtype(asked).tolist() == [False, True, True]
    assert "dtypes" not in to_members(from_members(values, arrays))[0]  # so that such a model keeps its digest


def test_a_kind_that_the_prior_alone_knows_is_no_guess(measurements: Measurements, device: Device) -> None:
    data, latency = data_of(measurements, device)
    prior = Residual.fit(data, latency, np.ones(len(latency)), settings=FAST)
    layers = np.flatnonzero(np.array(data.kinds) == "linear")
    kernels = [m.kernel for n in measurements.networks for m in n.kernels if m.kernel.kind == "linear"]
    here = columns([(k, 0) for k in dict.fromkeys(kernels)], Target(device, 1))
    residual = Residual.fit(here, latency[layers], np.ones(len(layers)), settings=FAST, prior=prior)
    assert prior.learned is not None
    assert residual.learned is not None
    found = residual.predict(data)
    adds = np.array(data.kinds) == "add"
    assert found.supported[adds].all()
    expected = np.hypot(prior.learned.sigmas["add"], residual.learned.sigma_all)  # there, and of bringing it here
    assert found.sigma[adds] == pytest.approx(np.full(adds.sum(), expected))
    assert expected < 0.5


# -- what was measured stands ------------------------------------------------------------------------


def test_a_measured_kernel_of_a_kind_that_was_hardly_measured_stands(
    measurements: Measurements, device: Device
) -> None:
    """Three of a kind, of 10, 20 and 90 us, each in a hundred networks: within 2 %, not the median of the three."""
    data, latency = data_of(measurements, device)
    data = replace(data, kinds=("rare", "rare", "rare", *data.kinds[3:]))
    latency = np.append([10e-6, 20e-6, 90e-6], latency[3:])
    held = np.full(len(latency), 100.0)
    found = Residual.fit(data, latency, np.ones(len(latency)), held, settings=FAST).predict(data)
    assert found.latency[:3] == pytest.approx(latency[:3], rel=0.02)
    assert found.supported[:3].all()
    assert (found.sigma[:3] >= 0.2).all()  # its error is hardly known either


def test_kernels_that_look_alike_are_answered_by_their_mean() -> None:
    """One that three networks held, and one that one did: (3 * 0.1 + 1 * 0.5) / 4 = 0.2."""
    coded = np.array([[0.0, 7.0], [1.0, 2.0], [0.0, 7.0]])
    answers = Answers.of(coded, np.array([0.1, 0.7, 0.5]), np.array([3.0, 1.0, 1.0]))
    known, found = answers(coded)
    assert known.all()
    assert found == pytest.approx([0.2, 0.7, 0.2])


def test_a_kernel_in_two_contexts_has_one_error(device: Device) -> None:
    """As estimates take it: their sums know kernels, not contexts."""
    network, *_ = lone_kernels(layer(64, 64, 64), times=1).networks
    near, far = (replace(network.kernels[0], distance=distance) for distance in (0, 1 << 20))
    measured = replace(
        lone_kernels(layer(64, 64, 64), times=1), networks=(replace(network, kernels=(near, far), calls=2),)
    )
    rows = rows_of(Flat.of(measured), Target(device, 1))
    assert rows.kernel[0] != rows.kernel[1]
    assert rows.same[0] == rows.same[1]


def test_one_small_error_of_a_kind_is_no_small_error(measurements: Measurements, device: Device) -> None:
    """The only kernel of a kind is met exactly, all others are 20 % off one way or the other."""
    flat = Flat.of(measurements)
    rows = rows_of(flat, Target(device, 1))
    first = rows.kernel == rows.kernel[0]
    once = np.flatnonzero(~first)
    rows = replace(rows, data=replace(rows.data, kinds=("rare", *rows.data.kinds[1:])))
    keep = np.append(0, once)
    rows = replace(
        rows, kernel=rows.kernel[keep], same=rows.same[keep], network=rows.network[keep], latency=rows.latency[keep]
    )
    off = np.where(np.arange(len(keep)) % 2, 1.2, 1 / 1.2)
    off[0] = 1.0
    found = errors_by_kind(rows, rows.latency * off, np.zeros(len(keep), dtype=bool))
    assert found["rare"] == pytest.approx(2 * np.log(1.2) / 2.563)  # the middle 80 % of a normal error
    assert found["rare"] == pytest.approx(found["linear"])


# -- the stated coverage holds -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """tests/bench/bench_coverage.py; the files of tests/bench are no package."""
    path = Path(__file__).parents[1] / "bench" / "bench_coverage.py"
    spec = importlib.util.spec_from_file_location("bench_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("what", ["simulated_dtypes", "simulated_kinds"])
def test_intervals_hold_on_machines_with_a_dtype_or_a_kind_that_nobody_measured(bench: ModuleType, what: str) -> None:
    groups = getattr(bench, what)(4)
    number, inside, _ = bench.coverage(groups, parts=False)
    assert number >= 40
    assert inside >= 0.85


def test_intervals_hold_for_the_largest_tenth_of_the_sizes(
    bench: ModuleType, simulate_networks: Callable[..., Measurements], device: Device
) -> None:
    measured = simulate_networks(60, 3, (16, 32, 64, 100, 128, 256, 512))
    errors = fit(Flat.of(measured), Target(device, 1), FAST).errors
    number, inside, _ = bench.coverage([bench.sizes_left_out(measured, device, errors, None)], parts=True)
    assert number >= 10
    assert inside >= 0.85


def test_a_network_without_some_kernels_takes_as_much_less(bench: ModuleType, measurements: Measurements) -> None:
    def is_add(m: Measurement) -> bool:
        return m.kernel.kind == "add"

    left = bench.without(measurements, is_add)
    for before, after in zip(measurements.networks, left.networks, strict=True):
        times = {
            kind: sum(m.timing.latency for m in before.kernels if m.kernel.kind == kind) for kind in ("linear", "add")
        }
        share = times["linear"] / (times["linear"] + times["add"])
        assert after.timing.latency == pytest.approx(share * before.timing.latency)
        assert not any(map(is_add, after.kernels))
