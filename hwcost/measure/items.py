"""The networks that a campaign measures, and how one that was measured earlier is built again.

A store keeps with each network its `spec`, JSON from which `rebuild` makes the module and its inputs:

    {"space": "mbconv", "params": {...}}                                              of a search space
    {"target": "nets.py:small", "kwargs": {...}, "input": ["1x3x224x224", ...]}       named by where its code stands
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hwcost.measure.targets import InputSpec, TargetError, build_target, first_line, parse_input
from hwcost.measure.types import Item, MeasurementError

if TYPE_CHECKING:
    from torch import nn

    Built = tuple[nn.Module, tuple[Any, ...]]  # module, inputs

_DRAWS = 1000  # a space counts as exhausted when so many draws in a row gave nothing new


class Sampled(Protocol):
    """What a campaign needs of a search space; `hwcost.spaces.base.Space` has it."""

    name: str

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Random parameters."""

    def network(self, params: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
        """The network of these parameters, and example inputs on the meta device."""


def space_item(space: Sampled, params: Mapping[str, Any]) -> Item:
    """A network of a space; its name is the space's and a digest of the parameters."""
    text = json.dumps(dict(params), sort_keys=True)
    return Item(
        name=f"{space.name}/{hashlib.sha256(text.encode()).hexdigest()[:12]}",
        family=space.name,
        spec={"space": space.name, "params": dict(params)},
        build=lambda: space.network(params),
    )


def sampled_items(space: Sampled, *, seed: int = 0) -> Iterator[Item]:
    """Distinct random networks of a space, the same ones for the same seed.

    Ends only where the space is so small that `_DRAWS` draws in a row gave nothing new.
    """
    rng, seen = np.random.default_rng(seed), set[str]()
    repeats = 0
    while repeats < _DRAWS:
        item = space_item(space, space.sample(rng))
        if item.name in seen:
            repeats += 1
            continue
        repeats = 0
        seen.add(item.name)
        yield item


def target_item(target: str, inputs: Sequence[InputSpec], kwargs: Mapping[str, Any], *, written: str = "") -> Item:
    """The network that a target names, after making sure that it can be built.

    Args:
        target: see `hwcost.measure.targets`.
        inputs: of the network, in order.
        kwargs: that the target is called with.
        written: `kwargs` as the user wrote them, for the network's name.

    Raises:
        TargetError: the target cannot be built.
    """
    build_target(target, kwargs)
    called = f"({written})" if kwargs else ""
    return Item(
        name=f"{target}{called}@{','.join(map(str, inputs))}",
        family=target,
        spec={"target": target, "kwargs": dict(kwargs), "input": [str(spec) for spec in inputs]},
        build=lambda: _of_target(target, kwargs, inputs),
    )


def rebuild(spec: Mapping[str, Any]) -> Built:
    """Module and inputs of a network that was measured earlier, from the `spec` kept with it.

    Inputs of a space's network are on the meta device, those of a target have values.

    Raises:
        MeasurementError: the spec names neither a space nor a target, or what it names cannot be built here.
    """
    name = spec.get("space") or spec.get("target")
    said = json.dumps(dict(spec), sort_keys=True, default=str)
    if not name:
        raise MeasurementError(f"a network is built again from a space or a target, but its spec is {said:.200}")
    missing = {"params"} - spec.keys() if "space" in spec else {"kwargs", "input"} - spec.keys()
    if missing:
        raise MeasurementError(
            f"a network of {name} is built again from its {min(missing)}, but its spec is {said:.200}"
        )
    from hwcost.spaces.base import SpaceError  # loads torch, as building a network does

    try:
        if "space" in spec:
            return sampled_space(spec["space"]).network(spec["params"])
        return _of_target(spec["target"], spec["kwargs"], [parse_input(text) for text in spec["input"]])
    except (SpaceError, TargetError) as error:
        raise MeasurementError(f"a network of {name} cannot be built again: {error}") from error
    except Exception as error:  # a user's space or target may raise anything
        raise MeasurementError(f"a network of {name} cannot be built again: {first_line(error)}") from error


def sampled_space(name: str) -> Sampled:
    """The space of that name; `designed` counts as one here, although it cannot be searched.

    Raises:
        SpaceError: there is no such space.
    """
    from hwcost.spaces.designed.space import DesignedSpace  # these load torch
    from hwcost.spaces.registry import get_space

    return DesignedSpace() if name == DesignedSpace.name else get_space(name)


def _of_target(target: str, kwargs: Mapping[str, Any], inputs: Sequence[InputSpec]) -> Built:
    return build_target(target, kwargs), tuple(spec.tensor("cpu") for spec in inputs)
