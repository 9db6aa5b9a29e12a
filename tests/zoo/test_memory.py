"""Peak memory against what the allocator really held, on 20 networks: `make zoo`."""

# ruff: noqa: SIM905 - names read best as words

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import hwcost

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed; run it in the zoo environment")

_place = importlib.util.spec_from_file_location("allocator", Path(__file__).with_name("allocator.py"))
assert _place
assert _place.loader
allocator = importlib.util.module_from_spec(_place)
_place.loader.exec_module(allocator)

NAMES = (
    "resnet18 resnet50 mobilenet_v2 mobilenet_v3_large vgg11 alexnet squeezenet1_0 densenet121 googlenet inception_v3 "
    "shufflenet_v2_x1_0 mnasnet1_0 efficientnet_b0 efficientnet_v2_s regnet_y_400mf convnext_tiny vit_b_16 swin_t "
    "swin_v2_t maxvit_t"
).split()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_peak_memory_of_a_real_run(name: str) -> None:
    torch.set_num_threads(1)
    module, x = torchvision.models.get_model(name, weights=None).eval(), torch.rand(4, 3, 224, 224)
    real = allocator.peak_of_a_run(module, (x,))
    assert hwcost.trace(module, (x,)).peak_memory == pytest.approx(real, rel=0.1)
