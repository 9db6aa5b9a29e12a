"""Training by parameters: what makes parameters, and not modules, the architectures of a search.

Parameters are small, comparable and go into a database; the network is built in the process that trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from hwcost.spaces.base import Space


@dataclass(frozen=True)
class TrainIn:
    """`evaluate` of a search over a space's parameters: build the network for real, hand it to `train`."""

    space: Space
    train: Callable[[nn.Module, Any], float]

    def __call__(self, params: Mapping[str, Any], trial: Any) -> float:
        """The metric of `train`."""
        return self.train(self.space.build(params), trial)
