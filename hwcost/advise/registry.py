"""Kinds of advice. A kind is a function from a network to edits of it, each of which is then estimated.

One file holds what belongs together and registers its functions:

    @rule
    def fewer_heads(context: Context) -> Iterator[Edit]: ...

Files of this folder are found by themselves, other people's by an entry point of the group "hwcost.advise" or by the
environment variable HWCOST_EXTENSIONS (`hwcost.extensions`). An edit (`hwcost.advise.edits`) that saves no time is not
shown, so that a rule may propose whatever can be tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hwcost.advise.edits import Edit
from hwcost.extensions import load
from hwcost.graph import Graph
from hwcost.model.estimate import Estimate

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The network that advice is asked for."""

    graph: Graph
    estimate: Estimate  # of `graph`, unchanged
    module: nn.Module | None = None  # None where a graph alone was given
    inputs: tuple[Any, ...] = ()  # example inputs of the module
    trace: Callable[[Sequence[Any]], Graph] | None = None  # the module's graph on other inputs; may raise TraceError


Rule = Callable[[Context], Iterable[Edit]]
R = TypeVar("R", bound=Rule)

_rules: list[Rule] = []


def rule(function: R) -> R:
    """Register a kind of advice."""
    _rules.append(function)
    return function


def edits(context: Context) -> list[Edit]:
    """What all kinds of advice propose for a network, in the order of the names of their files."""
    load("hwcost.advise")
    return [edit for propose in _rules for edit in propose(context)]
