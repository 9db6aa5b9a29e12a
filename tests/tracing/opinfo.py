"""Calls of every op and module that torch tests itself with: each is run for real and traced, and both are compared.

    python tests/tracing/opinfo.py --ops 60 --seed 1

prints counts and what did not agree. The calls come from torch's OpInfo and ModuleInfo databases: about 700 ops as
users call them and 110 modules, each with samples of arguments; an op also as a method, in place, with ``out=`` and
with arguments that have gaps in memory. This runs in a process of its own, since torch's testing modules change
settings of their process when they are imported.

Each call is traced with its arguments and with arguments on meta. A trace agrees with the run if it returns tensors of
the same shapes and dtypes, leaves its arguments alone, and

- is complete, with the flops of an independent count where there is one (`opinfo_counts`); or
- reports the op that has no rule; or
- states by a note that a size depends on values and is taken as if all were nonzero and equal: then the shapes must be
  those of a run on ones, and with all values at hand those of the run; or
- is refused in one line, on meta, for a value that nothing given determines.

All variants of a call must count the same flops. Calls that torch refuses, as an op in place whose result has another
dtype, are traced too, but a trace may accept them: it checks no strides and not every dtype.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import types
import unittest
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from opinfo_counts import wrong_count
from torch import nn
from torch.utils import _pytree as pytree

from hwcost import Graph, trace
from hwcost.tracing.trace import TraceError

if "expecttest" not in sys.modules:  # torch takes a base class of its own tests from there; nothing here needs it
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    sys.modules["expecttest"] = stand_in

from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

DTYPES = (torch.float32, torch.int64, torch.complex64, torch.bool, torch.bfloat16)
AGREES = (
    "complete", "reported", "sized by values", "refused for a value", "refused as torch does",
    "accepted what torch refuses",
)  # fmt: skip
STATED = ("its size depends on values; taken as", "selects by values; counted as if it selected everything")
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Call:
    """One call: what is called, and its arguments."""

    name: str
    variant: str  # "function", "method", "in place", "out=", "empty out=", "strided" or "module"
    dtype: torch.dtype
    number: int  # of the sample
    function: Callable[..., Any]
    arguments: Any  # (positional, by keyword)

    def __str__(self) -> str:
        return f"{self.name} ({self.variant}, {str(self.dtype).removeprefix('torch.')}, sample {self.number})"


@dataclass(frozen=True)
class Finding:
    """How the trace of a call compares with its run."""

    call: Call
    mode: str  # "data" or "meta"
    outcome: str
    detail: str = ""
    graph: Graph | None = field(default=None, repr=False)


# -- calls -------------------------------------------------------------------------------------------


def calls_of_op(op: Any, most: int) -> Iterator[Call]:
    """Calls of an op: in its first dtype at most `most` samples, evenly over all, in the others an eighth of those."""
    supported = op.supported_dtypes("cpu")
    dtypes = [d for d in DTYPES if d in supported] or sorted(supported, key=str)[:1]
    functions = {"function": op.op, "method": op.method_variant, "in place": op.inplace_variant}
    if op.supports_out:
        functions |= {"out=": op.op, "empty out=": op.op}
    for i, dtype in enumerate(dtypes):
        for number, sample in spread(op.sample_inputs("cpu", dtype), max(1, most // (8 if i else 1))):
            arguments = ((sample.input, *sample.args), dict(sample.kwargs))
            for variant, function in functions.items():
                if function is not None and not (variant == "in place" and sample.broadcasts_input):
                    yield Call(op.full_name, variant, dtype, number, function, arguments)
            if not any(is_sparse(t) for t in pytree.tree_leaves(arguments)):
                yield Call(op.full_name, "strided", dtype, number, op.op, mapped(arguments, with_gaps))


def calls_of_module(info: Any, most: int) -> Iterator[Call]:
    """Calls of a module: at most `most` of its samples."""
    inputs = info.module_inputs_func(info, "cpu", torch.float32, requires_grad=False, training=False)
    for number, sample in spread(inputs, most):
        if sample.forward_input is not None:
            made, given = sample.constructor_input, sample.forward_input
            module = info.module_cls(*made.args, **made.kwargs).eval()
            yield Call(info.formatted_name, "module", torch.float32, number, module, (given.args, given.kwargs))


def spread(samples: Any, most: int) -> list[tuple[int, Any]]:
    """At most `most` of the samples, evenly over all, each with its number."""
    torch.manual_seed(0)
    found = list(enumerate(samples))
    return found[:: -(-len(found) // most) or 1]


def mapped(tree: Any, change: Change) -> Any:
    """A tree with `change` of each tensor; one that is met twice stays one tensor."""
    made: dict[int, torch.Tensor] = {}
    leaves, layout = pytree.tree_flatten(tree)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            leaves[i] = made[id(leaf)] if id(leaf) in made else made.setdefault(id(leaf), change(leaf))
    return pytree.tree_unflatten(leaves, layout)


def is_sparse(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and (leaf.layout is not torch.strided or leaf.is_nested)


def with_gaps(tensor: torch.Tensor) -> torch.Tensor:
    """An equal tensor, every second element of a larger one."""
    if tensor.dim() == 0 or tensor.numel() == 0:
        return tensor
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """An equal tensor of the same form in memory of its own."""
    if is_sparse(tensor):
        return tensor.clone()
    if tensor.numel() and 0 in tensor.stride():
        return tensor.clone().as_strided(tensor.shape, tensor.stride()) if tensor.numel() == 1 else tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)


def on_meta(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same form on meta."""
    if is_sparse(tensor):
        return tensor.to("meta")
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


# -- a run -------------------------------------------------------------------------------------------


def run(call: Call, change: Change = copied) -> Any:
    """The real result of a call."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        args, kwargs = mapped(call.arguments, change)
        return call.function(*args, **kwargs)


def with_out(call: Call) -> Call:
    """A call with the ``out=`` that its variant names, if it does."""
    if not call.variant.endswith("out="):
        return call
    empty = call.variant.startswith("empty")
    out = pytree.tree_map(lambda t: t.new_empty(0) if empty else torch.empty_like(t), run(call))
    return replace(call, arguments=(call.arguments[0], {**call.arguments[1], "out": out}))


def described(result: Any) -> list[Any]:
    """(shape, dtype) of each tensor of a result, and the type of each other value."""
    leaves = pytree.tree_leaves(result)
    return [(tuple(t.shape), t.dtype) if isinstance(t, torch.Tensor) else type(t).__name__ for t in leaves]


# -- a trace -----------------------------------------------------------------------------------------


class Forward(nn.Module):
    """A call as a module: a function of its tensor arguments, which keeps what it returned, described."""

    def __init__(self, call: Call, change: Change, *, read: bool) -> None:
        super().__init__()
        self.read, self.inner = read, call.function
        leaves, self.layout = pytree.tree_flatten(mapped(call.arguments, change))
        self.rest = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self.tensors = tuple(leaves[i] for i in self.where)
        self.seen: list[list[Any]] = []

    def forward(self, *tensors: torch.Tensor) -> Any:
        leaves = list(self.rest)
        for i, tensor in zip(self.where, tensors, strict=True):
            leaves[i] = tensor
            if self.read:
                tensor.flatten()[:1].tolist()
        args, kwargs = pytree.tree_unflatten(leaves, self.layout)
        result = self.inner(*args, **kwargs)
        SEEN[:] = described(result)
        return result


SEEN: list[Any] = []  # what the last traced call returned


def follow(call: Call, change: Change, *, read: bool = False) -> tuple[Graph, list[Any]]:
    """The graph of a call, and what it returned in the trace; with `read`, the call reads values as well."""
    forward = Forward(call, change, read=read)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SEEN.clear()
        graph = trace(forward, forward.tensors)
    return graph, list(SEEN)


def compare(call: Call, result: Any, mode: str) -> Finding:
    """Trace a call that returned `result`, and compare."""
    versions = [t._version for t in pytree.tree_leaves(call.arguments) if isinstance(t, torch.Tensor)]
    try:
        graph, seen = follow(call, on_meta if mode == "meta" else same)
    except TraceError as error:
        text = str(error)
        honest = "\n" not in text and ("reads a value" in text or "follows from values" in text)
        return Finding(call, mode, "refused for a value" if honest and mode == "meta" else "refused wrongly", text)
    except Exception as error:
        return Finding(call, mode, "raised", f"{type(error).__name__}: {str(error).splitlines()[:1]}")
    if versions != [t._version for t in pytree.tree_leaves(call.arguments) if isinstance(t, torch.Tensor)]:
        return Finding(call, mode, "wrote into its arguments")
    real = described(result)
    if seen != real:
        return differing(call, mode, graph, seen, real)
    if graph.status == "partial":
        return Finding(call, mode, "reported", ", ".join(name for name, _, _ in graph.uncounted), graph)
    wrong = wrong_count(call, result, graph)
    return Finding(call, mode, "other count", wrong, graph) if wrong else Finding(call, mode, "complete", "", graph)


def differing(call: Call, mode: str, graph: Graph, seen: list[Any], real: list[Any]) -> Finding:
    """The finding where a trace returned other shapes than the run."""
    told = f"traced {seen}, ran {real}, notes {graph.notes}"
    if not any(sign in note for note in graph.notes for sign in STATED):
        return Finding(call, mode, "other shapes", told, graph)

    def ones(tensor: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(tensor) if mode == "meta" or tensor.is_floating_point() else tensor

    if "minlength" in str(graph.notes):
        smallest = call.arguments[1].get("minlength")
        return Finding(call, mode, "sized by values" if seen[0][0] == (smallest,) else "other shapes", told, graph)
    if (equal := described(run(call, ones))) != seen:
        return Finding(call, mode, "other shapes than stated", f"{told}, on ones {equal}", graph)
    if mode == "data" and (known := follow(call, same, read=True)[1]) != real:
        return Finding(call, mode, "other shapes with values", f"{told}, with values {known}", graph)
    return Finding(call, mode, "sized by values", "", graph)


# -- all of it ---------------------------------------------------------------------------------------


def check(call: Call) -> list[Finding]:
    """Findings of a call."""
    try:
        call = with_out(call)
        result = run(call)
    except Exception as error:
        refused = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        if call.variant in ("out=", "empty out="):
            return []  # there is nothing to trace
        found = compare(call, None, "data").outcome
        as_torch = found in ("refused wrongly", "raised")
        return [Finding(call, "data", "refused as torch does" if as_torch else "accepted what torch refuses", refused)]
    # A sparse tensor on meta has lost the number of its stored elements.
    sparse = any(is_sparse(t) for t in pytree.tree_leaves(call.arguments))
    return [compare(call, result, mode) for mode in (("data",) if sparse else ("data", "meta"))]


def alike(finding: Finding, counts: dict[Any, int]) -> Finding:
    """The finding, or that the call counts other flops than an earlier variant of it, which `counts` keeps."""
    call, graph = finding.call, finding.graph
    if graph is None or finding.outcome not in ("complete", "reported"):
        return finding
    made = [t.shape for t in graph.ops[-1].spec.outputs] if graph.ops else []  # torch leaves some empty out= empty
    first = counts.setdefault((call.dtype, call.number, str(made)), graph.cost.flops)
    if graph.cost.flops == first:
        return finding
    return replace(finding, outcome="other count", detail=f"{first} flop in another variant, here {graph.cost.flops}")


def main() -> int:
    """Print a table of counts and what did not agree; 1 where anything did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", type=int, help="so many ops and modules, drawn by the seed; all where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=12, help="at most so many samples of each")
    parser.add_argument("--name", action="append", help="only this op or module; repeatable")
    parser.add_argument("--findings", help="also write every finding to this file, a JSON document a line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    everything = [(op.full_name, calls_of_op, op) for op in op_db]
    everything += [(info.formatted_name, calls_of_module, info) for info in module_db]
    chosen = [entry for entry in everything if not options.name or entry[0] in options.name]
    if options.ops:
        chosen = random.Random(options.seed).sample(chosen, min(options.ops, len(chosen)))
    findings: list[Finding] = []
    for _, calls, entry in chosen:
        counts: dict[Any, int] = {}
        for call in calls(entry, options.samples):
            findings += [alike(finding, counts) for finding in check(call)]
    if options.findings:
        with open(options.findings, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(as_row(f)) + "\n" for f in findings)
    return report(len(chosen), findings)


def as_row(finding: Finding) -> dict[str, Any]:
    call, graph = finding.call, finding.graph
    row = {"op": call.name, "variant": call.variant, "dtype": str(call.dtype)[6:], "sample": call.number}
    row |= {"mode": finding.mode, "outcome": finding.outcome, "detail": finding.detail}
    if graph is not None:
        row |= {"flops": graph.cost.flops, "kinds": sorted({op.spec.kind for op in graph.ops})}
    return row


def report(ops: int, findings: list[Finding]) -> int:
    """Print the table and the first disagreements of each op; 1 where there are any."""
    calls = len({str(f.call) for f in findings})
    print(f"{ops} ops and modules, {calls} calls, {len(findings)} traces")
    for outcome, number in Counter(f.outcome for f in findings).most_common():
        names = {f.call.name for f in findings if f.outcome == outcome}
        print(f"  {outcome:30} {number:7} traces of {len(names)} ops")
    wrong = [f for f in findings if f.outcome not in AGREES]
    for name in dict.fromkeys(f.call.name for f in wrong):
        first = next(f for f in wrong if f.call.name == name)
        print(f"{first.call}, {first.mode}: {first.outcome}: {first.detail}"[:600])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
