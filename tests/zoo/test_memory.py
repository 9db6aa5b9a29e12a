"""Peak memory against what the allocator really held, on forty networks: `make zoo`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import hwcost
from hwcost.runtimes.registry import get_runtime

for needed in ("torchvision", "timm", "transformers"):
    pytest.importorskip(needed, reason=f"{needed} is not installed; run it in the zoo environment")


def _beside(name: str) -> Any:
    """The module of a file in this folder."""
    place = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert place
    assert place.loader
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


allocator, networks = _beside("allocator"), _beside("networks")


def test_there_are_forty_networks_and_ten_of_them_keep_a_cache() -> None:
    assert (len(networks.NETWORKS), len(networks.CAUSAL)) == (40, 10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_peak_memory_of_a_real_run(name: str) -> None:
    torch.set_num_threads(1)
    module, inputs = networks.NETWORKS[name]()
    real = allocator.peak_of_a_run(module, inputs)
    graph = hwcost.trace(module, inputs)
    workspace = get_runtime("torch-eager").workspace(graph, threads=1)
    assert workspace is not None
    assert graph.peak_memory + workspace == pytest.approx(real, rel=0.1)
