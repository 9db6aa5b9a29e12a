"""What to change in a network, with the predicted gain.

Every piece of advice is an alternative that was estimated: the traced graph is edited (`hwcost.advise.edits`,
`hwcost.advise.channels`), or the network is traced again on other inputs, and the same cost model prices it on
the same runtime. Nothing is advised because a rule of thumb says so: what gains nothing is not listed.

What an alternative does to accuracy nobody knows before training; `Advice.same` tells those that compute what
the network did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwcost.advise.channels import channel_edits
from hwcost.advise.edits import Edit, local_edits
from hwcost.advise.inputs import input_edits
from hwcost.advise.layers import fewer_blocks
from hwcost.graph import Graph
from hwcost.model.cost_model import CostModel
from hwcost.model.estimate import Estimate

if TYPE_CHECKING:
    from torch import nn

LEAST_GAIN = 0.01  # of the latency; less is not worth a change
MULTIPLES = (8, 16)  # channels: the float32 lanes of a 256- and of a 512-bit vector

__all__ = ["Advice", "advise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One change, and what it is predicted to do; seconds, for the same amount of work."""

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
        model: what prices; with the roofline alone gains are those of the bound.

    Raises:
        ModelError, TraceError: the network cannot be estimated at all.
    """
    from hwcost.tracing.trace import trace

    graph = network if isinstance(network, Graph) else trace(network, inputs or ())
    edits = list(_edits(graph))
    if not isinstance(network, Graph):
        edits += input_edits(network, tuple(inputs or ()), graph)
    before, *after = model.estimate_many([graph, *(edit.graph for edit in edits)])
    if before.overhead > 0:
        blocks = list(fewer_blocks(graph, before))
        edits, after = edits + blocks, after + model.estimate_many([edit.graph for edit in blocks])
    found = [_advice(edit, before, new) for edit, new in zip(edits, after, strict=True)]
    gaining = {(a.change, a.where): a for a in found if a.gain >= LEAST_GAIN}
    return tuple(sorted(gaining.values(), key=lambda a: -a.gain))


def _edits(graph: Graph) -> Iterator[Edit]:
    yield from local_edits(graph)
    for multiple in MULTIPLES:
        yield from channel_edits(graph, multiple)


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
