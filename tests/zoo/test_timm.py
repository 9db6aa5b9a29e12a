"""300 timm models by a fixed seed: complete, and equal to torch's own counter: `make zoo`."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hwcost

timm = pytest.importorskip("timm", reason="timm is not installed; run it in the zoo environment")

NAMES = random.Random(0).sample(sorted(timm.list_models()), 300)
BLIND = ("sequencer",)  # LSTMs, which torch's counter does not see


def build(name: str) -> tuple[Any, str]:
    """On the meta device where the model allows it."""
    try:
        with torch.device("meta"):
            return timm.create_model(name).eval(), "meta"
    except Exception:  # reads values while it is built
        return timm.create_model(name).eval(), "cpu"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_complete_and_equal_to_an_independent_count(name: str) -> None:
    module, device = build(name)
    x = torch.empty(1, *module.pretrained_cfg["input_size"], device=device)
    graph = hwcost.trace(module, (x,))
    assert graph.status == "complete", graph.uncounted
    assert graph.params == sum(p.numel() for p in module.parameters())
    if name.startswith(BLIND):
        return
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # with gradients: no fused path
        module(x)
    assert graph.cost.macs == pytest.approx(counter.get_total_flops() / 2, rel=1e-3)
