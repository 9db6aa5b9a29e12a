"""The space `designed`: random networks made to cover the shapes that kernels come in.

Six networks of ten are of realistic structure (`designed_stages`), a few work on signals, are a classifier alone or the
last stages of a network, the others are chains of pieces (`designed_chain`). A network follows from its seed and the
version of these rules alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwcost.measure.types import MeasurementError
from hwcost.spaces.designed.chain import chain, expected, head
from hwcost.spaces.designed.draws import log_uniform
from hwcost.spaces.designed.modules import Shape
from hwcost.spaces.designed.stages import last_stages, signals, stages, transformer

VERSION = 10
_SIGNALS, _HEADS, _LAST_STAGES = 0.04, 0.03, 0.08  # of all networks
_LONG_TIMES = (1e-3, 1.2e-1)  # s, expected, of networks of realistic structure
_LATER = 0.5  # of those, that begin somewhere in the middle: else nothing late in a network were ever reached

Rng = np.random.Generator


class DesignedSpace:
    """Random networks; parameters are `seed` and `version`."""

    name = "designed"

    def sample(self, rng: Rng) -> dict[str, Any]:
        """Parameters of a random network."""
        return {"seed": int(rng.integers(2**31)), "version": VERSION}

    def build(self, params: Mapping[str, Any]) -> nn.Module:
        """The network, on the meta device."""
        return self._draw(params)[0]

    def inputs(self, params: Mapping[str, Any], device: str = "meta") -> tuple[Tensor, ...]:
        """Its input."""
        return (torch.empty(self._draw(params)[1], device=device),)

    def network(self, params: Mapping[str, Any]) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Network and input, drawn once."""
        module, shape = self._draw(params)
        return module, (torch.empty(shape, device="meta"),)

    def _draw(self, params: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
        if params.get("version") != VERSION:
            raise MeasurementError(
                f"designed networks of version {params.get('version')!r} need the hwcost that drew them; "
                f"this one draws version {VERSION}"
            )
        with torch.device("meta"):
            return draw(np.random.default_rng(params["seed"]))


def draw(rng: Rng) -> tuple[nn.Module, Shape]:
    """A random network and the shape of its input: of realistic structure six times of ten, else mostly a chain."""
    if rng.random() < _SIGNALS:
        return _cut(rng, *signals(rng), limit=log_uniform(rng, *_LONG_TIMES))
    if rng.random() < _HEADS:
        return head(rng)
    if rng.random() < _LAST_STAGES:
        return _cut(rng, *last_stages(rng), limit=log_uniform(rng, *_LONG_TIMES))
    form = rng.random()
    if form < 0.4:
        return _cut(rng, *stages(rng), limit=log_uniform(rng, *_LONG_TIMES))
    if form < 0.6:
        return _cut(rng, *transformer(rng), limit=log_uniform(rng, *_LONG_TIMES))
    return chain(rng)


def _cut(rng: Rng, layers: list[nn.Module], start: Shape, limit: float) -> tuple[nn.Module, Shape]:
    """Layers of a network from the first, or from one in the middle, until they take `limit` seconds."""
    first = int(rng.integers(len(layers) // 2 + 1)) if rng.random() < _LATER else 0
    for layer in layers[:first]:
        after = expected(layer, start)[1]
        if len(after) != len(start) or min(after) < 1:
            break
        start, layers = after, layers[1:]
    shape, kept, spent = start, list[nn.Module](), 0.0
    for layer in layers:
        seconds, after = expected(layer, shape)
        if min(after) < 1 or (kept and spent + seconds > 2 * limit):
            break
        kept.append(layer)
        shape, spent = after, spent + seconds
        if spent > limit:
            break
    return nn.Sequential(*kept), start
