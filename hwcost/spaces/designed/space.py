"""The space `designed`: random networks whose kernels cover the sizes and parameters that occur in real networks.

A few networks work on signals, are only a classifier, or are only the last stages of a network. Of the others, six of
ten have the structure of published networks (`hwcost.spaces.designed.stages`), and four are chains of unrelated pieces
(`hwcost.spaces.designed.chain`). A network is determined by its seed and the version of these rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwcost.spaces.base import SpaceError
from hwcost.spaces.designed.chain import chain, expected, head
from hwcost.spaces.designed.draws import log_uniform
from hwcost.spaces.designed.modules import Shape
from hwcost.spaces.designed.stages import last_stages, signals, stages, transformer

VERSION = 10
_SIGNALS, _HEADS, _LAST_STAGES = 0.04, 0.03, 0.08  # shares, each of the networks that are none of the kinds before it
_LONG_TIMES = (1e-3, 1.2e-1)  # s: least and most expected time at which a network of realistic structure is cut off
_LATER = 0.5  # of those, the share whose first layers are left out: else the time limit would hide the late layers

Rng = np.random.Generator


class DesignedSpace:
    """Random networks; parameters are `seed` and `version`.

    Has no decisions, so it is no `hwcost.spaces.base.Space`; a campaign needs only what is here
    (`hwcost.measure.items.Sampled`).
    """

    name = "designed"

    def sample(self, rng: Rng) -> dict[str, Any]:
        """Parameters of a random network."""
        return {"seed": int(rng.integers(2**31)), "version": VERSION}

    def build(self, params: Mapping[str, Any]) -> nn.Module:
        """The network, on the meta device."""
        return self._draw(params)[0]

    def inputs(self, params: Mapping[str, Any], device: str = "meta") -> tuple[Tensor, ...]:
        """The network's input, without defined values."""
        return (torch.empty(self._draw(params)[1], device=device),)

    def network(self, params: Mapping[str, Any]) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The network and its input, both on the meta device."""
        module, shape = self._draw(params)
        return module, (torch.empty(shape, device="meta"),)

    def _draw(self, params: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
        if params.get("version") != VERSION:
            raise SpaceError(
                f"designed networks of version {params.get('version')!r} need the hwcost that drew them; "
                f"this one draws version {VERSION}"
            )
        with torch.device("meta"):
            return draw(np.random.default_rng(params["seed"]))


def draw(rng: Rng) -> tuple[nn.Module, Shape]:
    """A random network of one of the kinds that the head of this file lists, and the shape of its input."""
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
    """A run of a network's layers whose expected time is about `limit` (s), and the shape of its input.

    Args:
        rng: decides whether the run starts at the first layer or at a random one of the first half, but before any
            layer that changes the number of dimensions.
        layers: of the whole network.
        start: shape of the network's input.
        limit: layers are added until their expected time exceeds it. The run ends before a layer that would make it
            longer than twice the limit, unless it is the first.
    """
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
