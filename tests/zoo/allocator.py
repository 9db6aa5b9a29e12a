"""What the allocator holds during a real run: an account that shares nothing with hwcost.

torch's profiler writes down every allocation and release of the CPU allocator, temporaries inside
ops included. The peak is the largest running sum, over what was allocated before the run began.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def peak_of_a_run(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Bytes of parameters, buffers and inputs, plus the most that one inference allocates on top."""
    module.eval()
    with torch.inference_mode():
        module(*inputs)  # what is made once and kept is not part of a run
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            module(*inputs)
    live = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    held = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*module.state_dict().values(), *inputs)
    }
    return most + sum(held.values())
