"""Optuna searches for architectures, with the cost of an architecture predicted before it is trained."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {  # public name -> the module that defines it, which is imported when the name is first used
    "ArchitectureSampler": "sampler",
    "FeasibleSampler": "sampler",
    "LatencyObjective": "objective",
    "NothingFits": "candidates",
    "ObjectiveError": "judging",
    "StudyError": "storage",
    "run_study": "study",
    "summarise": "summary",
}
_MODULES = ("penalties", "scoring", "spaces")

__all__ = [*_NAMES, *_MODULES]

if TYPE_CHECKING:
    from hwcost.search import penalties as penalties
    from hwcost.search import scoring as scoring
    from hwcost.search import spaces as spaces
    from hwcost.search.candidates import NothingFits as NothingFits
    from hwcost.search.judging import ObjectiveError as ObjectiveError
    from hwcost.search.objective import LatencyObjective as LatencyObjective
    from hwcost.search.sampler import ArchitectureSampler as ArchitectureSampler
    from hwcost.search.sampler import FeasibleSampler as FeasibleSampler
    from hwcost.search.storage import StudyError as StudyError
    from hwcost.search.study import run_study as run_study
    from hwcost.search.summary import summarise as summarise


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"hwcost.search.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'hwcost.search' has no attribute {name!r}")
    return getattr(import_module(f"hwcost.search.{_NAMES[name]}"), name)
