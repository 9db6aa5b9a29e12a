"""The one way from a traced network to the kernels of a model's target.

Estimates, tables, searches and advice all take it, so that they price the same kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwcost.graph import FUSED_ATTENTION, Graph
from hwcost.model.features import Target
from hwcost.runtimes.base import Network
from hwcost.runtimes.registry import get_runtime


@dataclass(frozen=True, slots=True)
class Lowering:
    """How a model lowers graphs; small enough to be sent to other processes."""

    target: Target
    measured: frozenset[str] | None = None  # kinds of kernel that the model has measured; None: the roofline alone

    def takes_apart(self, kinds: frozenset[str] | set[str]) -> bool:
        """Whether torch's fused attention layers among ops of these kinds are priced by their parts.

        They are where the runtime does not run them as one kernel, or the model has not measured them.
        """
        fused = FUSED_ATTENTION & kinds
        if not fused:
            return False
        runs_fused = get_runtime(self.target.runtime).runs_fused_attention
        return not runs_fused or (self.measured is not None and bool(fused - self.measured))

    def form(self, graph: Graph) -> Graph:
        """The graph as it is lowered: itself, or with its fused attention layers by their parts."""
        if graph.by_parts is None or not self.takes_apart({op.spec.kind for op in graph.ops}):
            return graph
        return graph.by_parts

    def kernels(self, graph: Graph, *, part: bool = False) -> Network:
        """The kernels that the runtime makes of a network, or of a `part` of one that runs between the others."""
        form = self.form(graph)
        runtime = get_runtime(self.target.runtime)
        return runtime.lower(form.unstacked() if part else form, part=part, lanes=self.target.device.lanes)
