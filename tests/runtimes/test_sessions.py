"""Sessions leave the process and the module of the caller as they were."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from hwcost.runtimes.base import Runtime, RuntimeUnavailable
from hwcost.runtimes.registry import get_runtime, runtime_names


def process() -> dict[str, Any]:
    """What a session could leave changed in the process."""
    loggers = [n for n, found in logging.root.manager.loggerDict.items() if isinstance(found, logging.Logger)]
    return {
        "environment": dict(os.environ),
        "levels": {name: logging.getLogger(name).level for name in loggers},
        "root": (logging.root.level, list(logging.root.handlers)),
        "grad": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "filters": list(warnings.filters),
    }


@pytest.fixture(params=runtime_names())
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each runtime that can run networks here, with its packages imported."""
    found = get_runtime(request.param)
    try:
        found.environment()
        found.prepare(nn.Linear(2, 2), (torch.zeros(1, 2),), threads=torch.get_num_threads())
    except RuntimeUnavailable as reason:
        pytest.skip(str(reason))
    gc.collect()
    return found


def test_the_process_is_as_it_was(runtime: Runtime) -> None:
    before = process()
    session = runtime.prepare(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), (torch.zeros(1, 8),), threads=1)
    session.run()
    session.profile(2)
    del session
    gc.collect()  # torch's threads stay those of a session as long as it lives
    after = process()
    after["levels"] = {name: after["levels"][name] for name in before["levels"]}  # imports may make new loggers
    assert after == before


def test_each_part_of_the_module_keeps_its_mode(runtime: Runtime) -> None:
    """A frozen norm in a network that is being trained, for example."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    module.train()
    module[1].eval()
    modes = [each.training for each in module.modules()]
    hooks = [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules()]
    runtime.prepare(module, (torch.zeros(1, 3, 8, 8),), threads=1).run()
    assert [each.training for each in module.modules()] == modes
    assert [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules()] == hooks
    assert all(p.requires_grad for p in module.parameters())


def test_the_number_of_threads_is_the_callers_once_all_sessions_are_gone() -> None:
    before = torch.get_num_threads()
    sessions = [get_runtime("torch-eager").prepare(nn.ReLU(), (torch.zeros(2),), threads=n) for n in (1, before + 1, 1)]
    sessions[1].run()
    for _ in range(3):
        sessions.pop(0)
        gc.collect()
    assert torch.get_num_threads() == before
