"""The worked example of the article behind this project: six operators on three rooflines.

The article's operators stood in images that are lost. These six are new, and satisfy everything that
its text says of OP1 to OP6: the assertions below are those statements, one by one. The ceilings come
from the catalogue: the i9-10980XE on paper and measured, the V100 by its tensor cores over the
720 GB/s that the article prints.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import hwcost
from hwcost.cost import Cost


@dataclass(frozen=True)
class Roofline:
    """Peak (flop/s) and bandwidth (byte/s)."""

    peak: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        return self.peak / self.bandwidth

    def time(self, cost: Cost) -> float:
        return max(cost.flops / self.peak, cost.bytes / self.bandwidth)

    def compute_bound(self, cost: Cost) -> bool:
        return cost.intensity > self.ridge


OPERATORS = {
    "OP1": (nn.Conv2d(128, 128, 3, padding=1), 20),
    "OP2": (nn.Conv2d(256, 256, 3, padding=1), 40),
    "OP3": (nn.Conv2d(140, 140, 1), 20),
    "OP4": (nn.Conv2d(120, 120, 3, padding=1, groups=120), 20),
    "OP5": (nn.Conv2d(8, 8, 3, padding=1, groups=8), 320),
    "OP6": (nn.Conv2d(8, 8, 3, padding=1), 320),
}
COSTS = {
    name: hwcost.trace(module, torch.empty(1, module.in_channels, side, side, device="meta")).cost
    for name, (module, side) in OPERATORS.items()
}


def rooflines() -> dict[str, Roofline]:
    cpu, gpu = hwcost.Device.load("intel-i9-10980xe"), hwcost.Device.load("nvidia-v100")
    compute, memory = cpu.compute[0], next(m for m in cpu.memory if m.level == "DRAM")
    assert compute.paper
    assert memory.paper
    assert compute.measured
    assert memory.measured
    tensor_cores = next(c.paper for c in gpu.compute if c.dtype == "float16")
    assert tensor_cores
    return {
        "paper": Roofline(compute.paper, memory.paper),
        "measured": Roofline(compute.measured, memory.measured),
        "v100": Roofline(tensor_cores, 720e9),
    }


ROOFS = rooflines()


def test_ridge_points() -> None:
    assert ROOFS["paper"].ridge == pytest.approx(48, rel=1e-3)
    assert ROOFS["measured"].ridge == pytest.approx(38.6, rel=2e-3)
    assert ROOFS["v100"].ridge == pytest.approx(173.6, rel=1e-3)


@pytest.mark.parametrize("roof", ["paper", "measured"])
def test_what_binds_on_the_cpu(roof: str) -> None:
    bound = {name: ROOFS[roof].compute_bound(cost) for name, cost in COSTS.items()}
    assert bound == {"OP1": True, "OP2": True, "OP3": False, "OP4": False, "OP5": False, "OP6": False}


def test_only_op2_is_compute_bound_on_the_gpu() -> None:
    assert [name for name, cost in COSTS.items() if ROOFS["v100"].compute_bound(cost)] == ["OP2"]


def test_op4_is_a_depthwise_convolution_of_2_346_flop_per_byte() -> None:
    """Per channel: 400 outputs of 9 multiply-adds and a bias, 19 flop each; 400 in, 400 out, 9 weights, a bias."""
    assert COSTS["OP4"].intensity == pytest.approx(19 * 400 / (4 * (800 + 10)))
    assert COSTS["OP4"].intensity == pytest.approx(2.346, abs=5e-4)
    reached = COSTS["OP4"].flops / ROOFS["paper"].time(COSTS["OP4"])
    assert reached / ROOFS["paper"].peak == pytest.approx(0.049, abs=5e-4)


def test_the_moral_one_130th_of_the_flops_takes_a_sixth_of_the_time() -> None:
    op1, op4 = COSTS["OP1"], COSTS["OP4"]
    assert op1.flops / op4.flops == pytest.approx(130, rel=0.02)
    assert ROOFS["paper"].time(op1) / ROOFS["paper"].time(op4) == pytest.approx(6, rel=0.06)


@pytest.mark.parametrize("roof", list(ROOFS))
def test_equal_flops_do_not_take_equal_time(roof: str) -> None:
    op3, op5 = COSTS["OP3"], COSTS["OP5"]
    assert op3.flops == pytest.approx(op5.flops, rel=0.02)
    assert 10 * op3.bytes < op5.bytes
    assert 10 * ROOFS[roof].time(op3) < ROOFS[roof].time(op5)


@pytest.mark.parametrize("roof", list(ROOFS))
def test_depthwise_saves_nothing_where_memory_binds(roof: str) -> None:
    op5, op6 = COSTS["OP5"], COSTS["OP6"]
    assert op6.flops > 7 * op5.flops
    assert ROOFS[roof].time(op6) == pytest.approx(ROOFS[roof].time(op5), rel=0.01)
