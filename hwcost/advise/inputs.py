"""The same network on other inputs: a lower resolution, a larger batch; traced again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hwcost.advise.edits import Edit
from hwcost.graph import Graph
from hwcost.tracing.trace import TraceError, trace

BATCHES = (2, 4, 8)
STEP = 32  # pixels: what most networks divide their input by


def input_edits(module: Any, inputs: tuple[Any, ...], graph: Graph) -> list[Edit]:
    """Edits of the inputs; networks that refuse such an input have none."""
    tensors = [x for x in inputs if isinstance(x, torch.Tensor) and x.dim() > 1]
    found: list[Edit | None] = []
    for factor in BATCHES if tensors and tensors[0].shape[0] == 1 else ():
        grown = [_with(x, (x.shape[0] * factor, *x.shape[1:])) for x in inputs]
        found.append(_traced(module, grown, f"batch {factor} instead of 1, time for each", factor))
    images = [x for x in tensors if x.dim() == 4 and x.shape[-1] == x.shape[-2]]
    if len(images) == len(inputs) == 1:
        size = images[0].shape[-1]
        for smaller in dict.fromkeys(_steps(size)):
            image = [_with(images[0], (*images[0].shape[:2], smaller, smaller))]
            found.append(_traced(module, image, f"resolution {smaller} instead of {size}", 1))
    return [edit for edit in found if edit is not None]


def _steps(size: int) -> Sequence[int]:
    """About 7/8 and 3/4 of a size, in whole steps."""
    sizes = (round(size * share / STEP) * STEP for share in (0.875, 0.75))
    return [s for s in sizes if 0 < s < size]


def _with(x: Any, shape: tuple[int, ...]) -> Any:
    if not isinstance(x, torch.Tensor) or x.dim() < 2:
        return x
    device = "meta" if x.is_floating_point() else x.device
    return torch.zeros(shape, dtype=x.dtype, device=device)


def _traced(module: Any, inputs: list[Any], change: str, times: int) -> Edit | None:
    try:
        graph = trace(module, inputs)
    except TraceError:
        return None
    return Edit(change, (), graph, same=times > 1, times=times)
