"""Optuna searches that know what an architecture costs before they train it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PLACES = {
    "ArchitectureSampler": "sampler",
    "FeasibleSampler": "sampler",
    "LatencyObjective": "objective",
    "NothingFits": "candidates",
    "ObjectiveError": "objective",
    "StudyError": "study",
    "run_study": "study",
    "summarise": "summary",
}
_MODULES = ("penalties", "spaces")

__all__ = [*_PLACES, *_MODULES]

if TYPE_CHECKING:
    from hwcost.search import penalties as penalties
    from hwcost.search import spaces as spaces
    from hwcost.search.candidates import NothingFits as NothingFits
    from hwcost.search.objective import LatencyObjective as LatencyObjective
    from hwcost.search.objective import ObjectiveError as ObjectiveError
    from hwcost.search.sampler import ArchitectureSampler as ArchitectureSampler
    from hwcost.search.sampler import FeasibleSampler as FeasibleSampler
    from hwcost.search.study import StudyError as StudyError
    from hwcost.search.study import run_study as run_study
    from hwcost.search.summary import summarise as summarise


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"hwcost.search.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'hwcost.search' has no attribute {name!r}")
    return getattr(import_module(f"hwcost.search.{_PLACES[name]}"), name)
