"""A space priced by a cost model: what makes parameters, and not modules, the architectures of a search.

Parameters are small, comparable and go into a database; the module is built where it is needed, on meta
for an estimate (no memory, no initialisation) and for real in the process that trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hwcost.search.spaces.base import Space


@dataclass(frozen=True)
class SpaceModel:
    """A cost model of modules as a model of a space's parameters."""

    space: Space
    model: Any  # a CostModel

    def estimate(self, params: Mapping[str, Any], inputs: Any = None) -> Any:
        """The model's estimate of the network that `params` describe; `inputs` None takes the space's own."""
        with torch.device("meta"):
            network = self.space.build(params)
        return self.model.estimate(network, inputs or self.space.inputs(params))


@dataclass(frozen=True)
class TrainIn:
    """`evaluate` of a search over a space's parameters: build the network for real, hand it to `train`."""

    space: Space
    train: Callable[[nn.Module, Any], float]

    def __call__(self, params: Mapping[str, Any], trial: Any) -> float:
        """The metric of `train`."""
        return self.train(self.space.build(params), trial)
