"""What a campaign measures: networks of a search space, or one that is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from hwcost.measure.types import Item


class Sampled(Protocol):
    """What is needed of a search space."""

    name: str

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Random parameters."""

    def build(self, params: Mapping[str, Any]) -> Any:
        """The network."""

    def inputs(self, params: Mapping[str, Any], device: str = "meta") -> tuple[Any, ...]:
        """Its inputs."""


def space_item(space: Sampled, params: Mapping[str, Any]) -> Item:
    """A network of a space; its name follows from the parameters."""
    text = json.dumps(dict(params), sort_keys=True)
    return Item(
        name=f"{space.name}/{hashlib.sha256(text.encode()).hexdigest()[:12]}",
        family=space.name,
        spec={"space": space.name, "params": dict(params)},
        build=lambda: _built(space, params),
    )


def _built(space: Sampled, params: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    both = getattr(space, "network", None)  # where it is cheaper to make both at once
    return both(params) if both else (space.build(params), space.inputs(params))


def sampled_items(space: Sampled, *, seed: int = 0) -> Iterator[Item]:
    """Distinct random networks of a space, without end: the same ones for the same seed."""
    rng, seen = np.random.default_rng(seed), set[str]()
    repeats = 0
    while repeats < 1000:  # a small space runs out
        item = space_item(space, space.sample(rng))
        repeats = repeats + 1 if item.name in seen else 0
        if not repeats:
            seen.add(item.name)
            yield item
