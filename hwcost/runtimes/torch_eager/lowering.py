"""How torch eager runs a graph: op by op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwcost.graph import Op
from hwcost.kernel import Kernel
from hwcost.runtimes.op_by_op import OpByOp
from hwcost.runtimes.registry import register_runtime


class TorchEager(OpByOp):
    """torch without a compiler; stateless."""

    name = "torch-eager"
    keeps_heap = True
    on_torch_threads = True
    may_run_on_cuda = True
    runs_fused_attention = True
    session = "hwcost.runtimes.torch_eager.session"

    def kernel_of(self, op: Op) -> Kernel:
        """The op; with the parameter "in_place" where it writes into its input.

        Such an op is quicker than its description alone tells, since it allocates nothing and touches half the memory.
        """
        called = op.name.split(".")[1]
        if not called.endswith("_") or called.startswith("__"):
            return Kernel((op.spec,))
        return Kernel((replace(op.spec, params=tuple(sorted((*op.spec.params, ("in_place", True))))),))

    def calls_of(self, ops: Sequence[Op]) -> int:
        """Calls that Python makes: of operators, and of the modules that call them.

        Calling a module costs about as much as calling an operator, a microsecond or two: it looks for hooks before it
        calls its forward. A module counts each time that a run of operators in a row begins which it calls itself. One
        that calls no operator itself does not count, so that the calls of a network are the sum over its blocks.
        """
        entered = [op.module for i, op in enumerate(ops) if not i or op.module != ops[i - 1].module]
        return len(ops) + len(entered)


register_runtime(TorchEager())
