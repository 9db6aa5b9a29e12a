"""Architectures of a search space, put together from blocks that are traced once.

A space says which decisions each of its sites depends on, so a site's block is looked up by the values
of those; a block is traced the first time that it stands anywhere. Blocks that differ only in what they
read are one module, built once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hwcost.compose import Part, Whole

if TYPE_CHECKING:
    from torch import nn

    from hwcost.runtimes import Network

_BATCH = 512  # blocks traced before their kernels are predicted together
Placing = tuple[str, str]  # where a block stands, and its key


class Assembler:
    """Remembers the blocks of one space. `lower` traces and lowers a module, `price` predicts networks."""

    def __init__(
        self, space: Any, lower: Callable[..., Network], price: Callable[[Sequence[Network]], list[Part]]
    ) -> None:
        self.space = space
        self._lower, self._price = lower, price
        self._placed: list[dict[tuple[Any, ...], Placing | None]] = [{} for _ in space.sites]
        self._defaults = {d.name: d.choices[0] for d in space.decisions}
        self._parts: dict[str, Part] = {}
        self._blocks: dict[str, Any] = {}  # met, not yet priced
        self._modules: dict[Any, nn.Module] = {}

    def wholes(self, architectures: Sequence[Mapping[str, Any]]) -> list[Whole]:
        """The networks of these parameters.

        Raises:
            SpaceError: parameters that are not of the space.
        """
        placings = [self._placings(params) for params in architectures]
        waiting = list(self._blocks.values())
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            parts = self._price([self._lowered(block) for block in batch])
            self._parts.update((block.key, part) for block, part in zip(batch, parts, strict=True))
        self._blocks.clear()
        self._modules.clear()
        return [Whole(tuple([(place, self._parts[key]) for place, key in placing])) for placing in placings]

    def _placings(self, params: Mapping[str, Any]) -> list[Placing]:
        self.space.validate(params)
        full = self._defaults | dict(params)
        found = []
        for site, placed in zip(self.space.sites, self._placed, strict=True):
            values = tuple([full[name] for name in site.decisions])
            if values not in placed:
                placed[values] = self._meet(site.block(dict(zip(site.decisions, values, strict=True))))
            found.append(placed[values])
        return [placing for placing in found if placing is not None]

    def _meet(self, block: Any) -> Placing | None:
        if block is None:
            return None
        if block.key not in self._parts:
            self._blocks.setdefault(block.key, block)
        return block.name, block.key

    def _lowered(self, block: Any) -> Network:
        import torch

        return self._lower(self._module(block.build), (torch.empty(block.input_shape, device="meta"),))

    def _module(self, build: Any) -> nn.Module:
        """The block's module without memory; one for all blocks that are built by the same call."""
        import torch

        recipe = (build.func, build.args) if isinstance(build, partial) and not build.keywords else build
        try:
            hash(recipe)
        except TypeError:  # arguments that cannot be compared by value: a module of its own
            recipe = id(build)
        if recipe not in self._modules:
            with torch.device("meta"):
                self._modules[recipe] = build().eval()
        return self._modules[recipe]
