"""The same network on other inputs, traced again: a larger batch, a lower resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hwcost.advise.edits import Edit
from hwcost.advise.registry import Context, rule
from hwcost.graph import Graph
from hwcost.tracing.trace import TraceError

BATCHES = (2, 4, 8)
STEP = 32  # pixels; most networks need a resolution that is divisible by this


@rule
def larger_batches(context: Context) -> Iterator[Edit]:
    """Several inputs at a time in place of one, with the time for each."""
    tensors = _tensors(context)
    if not tensors or tensors[0].shape[0] != 1:
        return
    for factor in BATCHES:
        graph = _traced(context, [_resized(x, (x.shape[0] * factor, *x.shape[1:])) for x in context.inputs])
        if graph is not None:
            yield Edit(f"batch {factor} instead of 1, time for each", (), graph, same=True, times=factor)


@rule
def lower_resolutions(context: Context) -> Iterator[Edit]:
    """Smaller images, where the only input is square images."""
    images = [x for x in _tensors(context) if x.dim() == 4 and x.shape[-1] == x.shape[-2]]
    if not len(images) == len(context.inputs) == 1:
        return
    size = images[0].shape[-1]
    for smaller in dict.fromkeys(_resolutions(size)):
        graph = _traced(context, [_resized(images[0], (*images[0].shape[:2], smaller, smaller))])
        if graph is not None:
            yield Edit(f"resolution {smaller} instead of {size}", (), graph)


def _tensors(context: Context) -> list[torch.Tensor]:
    """The inputs that have a batch axis and another one."""
    return [x for x in context.inputs if isinstance(x, torch.Tensor) and x.dim() > 1]


def _resolutions(size: int) -> Sequence[int]:
    """About 7/8 and 3/4 of a size, rounded to whole steps."""
    sizes = (round(size * share / STEP) * STEP for share in (0.875, 0.75))
    return [s for s in sizes if 0 < s < size]


def _resized(x: Any, shape: tuple[int, ...]) -> Any:
    """A tensor of zeros in another shape; inputs without a batch axis stay as they are."""
    if not isinstance(x, torch.Tensor) or x.dim() < 2:
        return x
    device = "meta" if x.is_floating_point() else x.device
    return torch.zeros(shape, dtype=x.dtype, device=device)


def _traced(context: Context, inputs: Sequence[Any]) -> Graph | None:
    """The graph on other inputs; None where the network does not take them, or where there is no module to trace."""
    try:
        return context.trace(inputs) if context.trace is not None else None
    except TraceError:
        return None
