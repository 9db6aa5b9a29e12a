"""Tests of hwcost.report.rooflines: kernels and ceilings are drawn where they belong."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from hwcost import CostModel
from hwcost.cost import Cost
from hwcost.device.ceilings import ComputeCeiling, KindCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.report.rooflines import placed, roofline_figure, without_arithmetic


def test_no_point_stands_above_the_roof_it_was_made_under(result):
    for point in placed("net", result.best.estimate, by_kind=True):
        roof = min(140e9, 14e9 * point.kernel.cost.intensity)
        assert point.rate <= roof * (1 + 1e-9)


def test_equal_kernels_are_one_point_and_keep_their_time(result):
    estimate = result.best.estimate
    twice = dataclasses.replace(estimate, kernels=estimate.kernels * 2)
    once, points = placed("n", estimate, by_kind=True), placed("n", twice, by_kind=True)
    assert len(points) == len(once)
    assert sum(p.time for p in points) == pytest.approx(2 * sum(k.latency for k in estimate.kernels))
    assert sum(p.share for p in points) == pytest.approx(1)
    assert [p.rate for p in points] == pytest.approx([p.rate for p in once])


def test_ceilings_are_drawn_measured_and_on_paper(result):
    figure = roofline_figure(result.device, {"a": result.best.estimate}, threads=1)
    (key,) = figure.layout.annotations
    assert key.text.split("<br>")[1:] == [
        "float32 on paper 262 GFLOP/s (dotted)", "float32 140 GFLOP/s", "L2 95 GB/s", "DRAM 14 GB/s",
    ]  # fmt: skip
    lines = {t.text[0]: t for t in figure.data if t.mode == "lines"}
    assert {name: t.line.dash for name, t in lines.items()} == {
        "float32 140 GFLOP/s": "solid", "float32 on paper 262 GFLOP/s": "dot",
        "DRAM 14 GB/s": "solid", "L2 95 GB/s": "solid",
    }  # fmt: skip
    dram = lines["DRAM 14 GB/s"]
    assert dram.x[-1] == pytest.approx(140e9 / 14e9)  # it ends at the ridge point
    assert dram.y[-1] == pytest.approx(140e9)


def test_more_networks_than_colours_are_all_drawn(result):
    nets = {f"net {i}": w.estimate for i, w in enumerate(result.winners * 2)}
    figure = roofline_figure(result.device, nets, threads=1)
    assert len([t for t in figure.data if t.mode == "markers"]) == 10


def test_several_networks_have_a_colour_each(result):
    nets = {w.name: w.estimate for w in result.winners[:2]}
    figure = roofline_figure(result.device, nets, threads=1)
    points = [t for t in figure.data if t.mode == "markers"]
    assert {t.name.split(" (")[0] for t in points} == set(nets)
    assert len({t.marker.color for t in points}) == 2


def test_kernels_without_arithmetic_are_counted_not_drawn(result):
    estimate = result.best.estimate
    bare = [k for k in estimate.kernels if k.cost.flops == 0]
    assert without_arithmetic(estimate)[0] == len(bare) == 9  # one concatenation a block
    figure = roofline_figure(result.device, {"a": estimate}, threads=1)
    assert all(math.isfinite(y) and y > 0 for t in figure.data if t.mode == "markers" for y in t.y)


def test_a_network_without_any_arithmetic_still_has_a_roofline(result):
    copy = dataclasses.replace(result.best.estimate.kernels[0], cost=Cost(bytes_written=8))
    only = dataclasses.replace(result.best.estimate, kernels=(copy,))
    figure = roofline_figure(result.device, {"a": only}, threads=1)
    assert not [t for t in figure.data if t.mode == "markers"]


def test_the_ceiling_of_a_kind_is_drawn_where_it_binds_a_kernel():
    said = {"threads": 1, "measured_source": "a run"}
    eager = said | {"runtime": "torch-eager"}
    device = Device(
        name="toy", compute=(ComputeCeiling(measured=1e11, **said),), memory=(MemoryCeiling(measured=1e10, **said),),
        kinds=tuple(KindCeiling(kind=kind, measured=1e9, **eager) for kind in ("conv2d/depthwise", "gelu")),
    )  # fmt: skip
    estimate = CostModel.analytic(device).estimate(nn.Conv2d(64, 64, 3, groups=64), (torch.empty(1, 64, 20, 20),))
    figure = roofline_figure(device, {"net": estimate}, threads=1)
    [key] = figure.layout.annotations
    assert "conv2d/depthwise 1 GFLOP/s" in key.text
    assert "gelu" not in key.text
    [point] = [t for t in figure.data if t.mode == "markers"]
    assert list(point.y) == [pytest.approx(1e9)]  # it stands on that line
