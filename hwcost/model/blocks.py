"""Architectures of a search space, put together from blocks that are traced once.

A space says which decisions each of its sites depends on, so a site's block is looked up by the values
of those; a block is traced the first time that it stands anywhere. Blocks that differ only in what they
read are one module, built once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hwcost.model.catalogue import Part, Whole
from hwcost.runtimes.registry import get_runtime

if TYPE_CHECKING:
    from torch import nn

    from hwcost.runtimes.base import Network
    from hwcost.spaces.base import Block, Site, Space

_BATCH = 512  # blocks traced before their kernels are predicted together
Placing = tuple[str, str]  # where a block stands, and its key


def composes(space: Space, runtime: str) -> bool:
    """Whether the networks of a space take as long as their blocks do by themselves."""
    return get_runtime(runtime).one_kernel_an_op or not space.fine


class _Reading:
    """Numbers the values that some decisions have had together; sites that share the decisions read them once."""

    def __init__(self, decisions: tuple[str, ...]) -> None:
        self._values: Callable[[Mapping[str, Any]], Any] = itemgetter(*decisions) if decisions else lambda _: None
        self._numbers: dict[Any, int] = {}

    def __call__(self, full: Mapping[str, Any]) -> int:
        return self._numbers.setdefault(self._values(full), len(self._numbers))


class Assembler:
    """Remembers the blocks of one space.

    Args:
        space: the search space.
        lower: makes kernels of a traced block.
        price: predicts lowered blocks, each with the reach of the network that it stands in.
        reach: of a network with that traffic (byte).
    """

    def __init__(
        self,
        space: Space,
        lower: Callable[..., Network],
        price: Callable[[Sequence[tuple[Network, int]]], list[Part]],
        reach: Callable[[float], int],
    ) -> None:
        self.space = space
        self._lower, self._price, self._reach = lower, price, reach
        self._readings = {site.decisions: _Reading(site.decisions) for site in space.sites}
        self._placed: dict[str, dict[int, Placing | None]] = {site.name: {} for site in space.sites}
        self._defaults = {d.name: d.choices[0] for d in space.decisions}
        self._placings_met: dict[Placing, Placing] = {}
        self._parts: dict[tuple[str, int], Part] = {}  # by block and reach of the whole
        self._standing: dict[int, dict[Placing, tuple[str, Part]]] = {}  # by reach: parts at their places
        self._networks: dict[str, Network] = {}  # blocks as kernels
        self._blocks: dict[str, Block] = {}  # met, not yet lowered
        self._modules: dict[Any, nn.Module] = {}

    def wholes(self, architectures: Sequence[Mapping[str, Any]]) -> list[Whole]:
        """The networks of these parameters.

        Raises:
            SpaceError: parameters that are not of the space.
        """
        placings = [self._placings(params) for params in architectures]
        self._networks.update((block.key, self._lowered(block)) for block in self._blocks.values())
        self._blocks.clear()
        self._modules.clear()
        traffic = {key: network.traffic for key, network in self._networks.items()}
        reaches = [self._reach(sum([traffic[key] for _, key in placing])) for placing in placings]
        self._price_new((key, reach) for placing, reach in zip(placings, reaches, strict=True) for _, key in placing)
        return [self._whole(placing, reach) for placing, reach in zip(placings, reaches, strict=True)]

    def _whole(self, placings: Sequence[Placing], reach: int) -> Whole:
        standing = self._standing.setdefault(reach, {})
        for placing in placings:
            if placing not in standing:
                standing[placing] = placing[0], self._parts[placing[1], reach]
        return Whole(tuple([standing[placing] for placing in placings]))

    def _price_new(self, wanted: Iterable[tuple[str, int]]) -> None:
        waiting = list({one: None for one in wanted if one not in self._parts})
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            parts = self._price([(self._networks[key], reach) for key, reach in batch])
            self._parts.update(zip(batch, parts, strict=True))

    def _placings(self, params: Mapping[str, Any]) -> list[Placing]:
        self.space.validate(params)
        full = self._defaults | dict(params)
        numbers = {decisions: reading(full) for decisions, reading in self._readings.items()}
        found = []
        for site in self.space.sites:
            number, placed = numbers[site.decisions], self._placed[site.name]
            if number not in placed:
                placed[number] = self._stands(site, number, full)
            placing = placed[number]
            if placing is not None:
                found.append(placing)
        return found

    def _stands(self, site: Site, number: int, full: Mapping[str, Any]) -> Placing | None:
        """What stands at a site, or None; `number` is that of the values of its decisions.

        A site that has the same blocks as an earlier one takes the keys found there.
        """
        if site.like:
            there = self._placed[site.like][number]
            return None if there is None else self._once(site.name, there[1])
        return self._meet(site.block({name: full[name] for name in site.decisions}))

    def _meet(self, block: Block | None) -> Placing | None:
        if block is None:
            return None
        if block.key not in self._networks:
            self._blocks.setdefault(block.key, block)
        return self._once(block.name, block.key)

    def _once(self, place: str, key: str) -> Placing:
        """The same object each time: a million of small ones would keep the collector of garbage busy."""
        return self._placings_met.setdefault((place, key), (place, key))

    def _lowered(self, block: Block) -> Network:
        import torch

        from hwcost.tracing.trace import trace

        graph = trace(self._module(block.build), (torch.empty(block.input_shape, device="meta"),))
        return self._lower(graph.changed(lambda form: replace(form, since=block.since)))

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
