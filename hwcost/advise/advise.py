"""What to change in a network, with the predicted gain.

Every piece of advice is an alternative that was estimated: the registered kinds of advice
(`hwcost.advise.registry`) edit the traced graph, or trace the network on other inputs, and the cost model that
estimates the network estimates each result on the same target. What gains nothing is not listed.

What a change does to accuracy is not known before training. `Advice.same` marks the changes after which the network
computes what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hwcost.advise.edits import Edit
from hwcost.advise.registry import Context, edits
from hwcost.graph import Graph
from hwcost.model.cost_model import CostModel
from hwcost.model.estimate import Estimate

if TYPE_CHECKING:
    from torch import nn

LEAST_GAIN = 0.01  # of the latency; less is not worth a change


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One change and what it is predicted to do; times in seconds, for the same amount of work."""

    change: str
    where: tuple[str, ...]  # module paths
    before: float
    after: float
    low: float  # interval of `after`, at the model's confidence
    high: float
    macs_before: int
    macs_after: int
    same: bool  # the network computes what it did: nothing to train again
    measured: bool  # every kernel that the change brings lies inside the measured range

    @property
    def gain(self) -> float:
        """Share of the latency that is saved."""
        return 1 - self.after / self.before


def advise(network: nn.Module | Graph, inputs: Sequence[Any] | None = None, *, model: CostModel) -> tuple[Advice, ...]:
    """Changes that the model predicts to save time, the largest gain first.

    Args:
        network: a module, with its `inputs`, or a graph; other resolutions and batches need the module.
        inputs: example inputs of the module; meta tensors suffice.
        model: what estimates; of the roofline alone, gains are those of a lower bound.

    Raises:
        ModelError, TraceError: the network cannot be estimated at all.
    """
    context = _context(network, tuple(inputs or ()), model)
    before = context.estimate
    found = edits(context)
    after = model.estimate_many([edit.graph for edit in found])
    advice = [_advice(edit, before, new) for edit, new in zip(found, after, strict=True)]
    gaining = {(a.change, a.where): a for a in advice if a.gain >= LEAST_GAIN}
    return tuple(sorted(gaining.values(), key=lambda a: -a.gain))


def _context(network: nn.Module | Graph, inputs: tuple[Any, ...], model: CostModel) -> Context:
    """The network's graph in the form that the model estimates, and that estimate."""
    if isinstance(network, Graph):
        graph = _form(network, None, model)
        return Context(graph=graph, estimate=model.estimate(graph))

    def trace(given: Sequence[Any]) -> Graph:
        return _form(network, given, model)

    graph = trace(inputs)
    return Context(graph=graph, estimate=model.estimate(graph), module=network, inputs=inputs, trace=trace)


def _advice(edit: Edit, before: Estimate, after: Estimate) -> Advice:
    known = {k.key for k in before.kernels}
    return Advice(
        change=edit.change,
        where=tuple(dict.fromkeys(edit.where)),
        before=before.latency,
        after=after.latency / edit.times,
        low=after.low / edit.times,
        high=after.high / edit.times,
        macs_before=before.cost.macs,
        macs_after=round(after.cost.macs / edit.times),
        same=edit.same,
        measured=all(k.supported for k in after.kernels if k.key not in known),
    )


def _form(network: nn.Module | Graph, inputs: Sequence[Any] | None, model: CostModel) -> Graph:
    """The graph as the model lowers it. Its other form is left out: an edit changes one form, and that one counts."""
    return replace(model.graph(network, inputs), by_parts=None)
