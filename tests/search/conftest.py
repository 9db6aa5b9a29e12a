"""A small space whose every architecture, latency and accuracy can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import pytest

optuna.logging.set_verbosity(optuna.logging.ERROR)

WIDTHS = (1, 2, 3, 4)
DEPTHS = (1, 2, 3)


@dataclass(frozen=True)
class Guess:
    """What an estimate must have, and no more."""

    latency: float
    low: float
    high: float


@dataclass
class ToyModel:
    """Latency: width x depth in ms times `scale`; counts what it is asked."""

    scale: float = 1.0
    spread: float = 1.0  # high = latency * spread, low = latency / spread
    asked: int = 0

    def estimate(self, architecture: Mapping[str, Any], inputs: Any = None) -> Guess:
        self.asked += 1
        t = architecture["width"] * architecture["depth"] * 1e-3 * self.scale
        return Guess(t, t / self.spread, t * self.spread)


@dataclass
class ToyTraining:
    """Accuracy: 0.5 + width / 10 + depth / 20; remembers what it trained."""

    trained: list[tuple[int, int]]

    def __call__(self, architecture: Mapping[str, Any], trial: Any) -> float:
        self.trained.append((architecture["width"], architecture["depth"]))
        return 0.5 + architecture["width"] / 10 + architecture["depth"] / 20


def build(trial: Any) -> dict[str, int]:
    """Two decisions; 12 architectures."""
    return {"width": trial.suggest_categorical("width", WIDTHS), "depth": trial.suggest_int("depth", 1, 3)}


@dataclass
class Toys:
    """What a test of an objective needs."""

    model: ToyModel
    training: ToyTraining

    build = staticmethod(build)


@pytest.fixture
def toys() -> Toys:
    return Toys(ToyModel(), ToyTraining([]))
