"""The rows of a latency table: the latency of many blocks at once, computed on arrays.

A block's time is

    t = scale * sum_k t(kernel k) + per_call * calls,                      (1)

the law of a network (`hwcost.model.overhead`) without the part that a network pays once. Each distinct kernel of
a batch is predicted once, and a block's time is a sum over indices into these predictions.

How long a kernel takes depends on the reach of its network, a class of the network's total traffic
(`hwcost.model.features.reach_of`), which is not known for a block by itself. So a row holds the block's traffic (byte),
of which the sum over a network's blocks determines the reach; its time (s) at every reach; and as its latency the mean
of these times, weighted by how often networks of the space have each reach.

Blocks of one form (`hwcost.table.templates`) are lowered together where the runtime makes one kernel of each op: an op
is made once for every distinct set of the sizes it depends on. Other blocks are lowered one by one, from the graph that
their template gives or that was traced.

A `Pricer` keeps nothing from batch to batch, so batches may be priced in any process and any order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwcost.device.device import Device
from hwcost.graph import Graph, Op
from hwcost.kernel import Kernel
from hwcost.model.catalogue import distance
from hwcost.model.features import NAMES, Columns, buckets, columns, reach_of
from hwcost.model.intervals import interval_of, parts_of_sums
from hwcost.model.residual import Prediction
from hwcost.runtimes.op_by_op import OpByOp, step
from hwcost.runtimes.registry import get_runtime
from hwcost.runtimes.reuse import Reuse
from hwcost.table.schema import TableError, at_reach

if TYPE_CHECKING:
    from hwcost.model.cost_model import CostModel
    from hwcost.spaces.base import Block, Space
    from hwcost.table.templates import Template

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_SAMPLES = 32  # random architectures from which the shares of the reaches in a space are estimated
_MOST = 1 << 50  # byte, more than any network moves
_COUNTS = ("macs", "flops", "bytes", "params", "input_bytes", "weight_bytes", "peak_memory", "calls", "stride")


@dataclass(frozen=True)
class Task:
    """Some blocks to price. Each stands either in one of `groups` or among `loose`."""

    keys: tuple[str, ...]
    names: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[Template, Ints, Ints], ...]  # template, sizes [n, number of sizes], positions in the task [n]
    loose: tuple[tuple[int, Graph], ...]  # position in the task, traced graph

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class _Batch:
    """The kernels of a task's blocks: entry i of the concatenated `row` and `index` says that kernel `index[i]` runs in
    block `row[i]`."""

    rows: int
    kernels: dict[tuple[Kernel, int], int] = field(default_factory=dict)  # (kernel, bucket of its distance) -> index
    row: list[Ints] = field(default_factory=list)
    index: list[Ints] = field(default_factory=list)
    counts: dict[str, Ints] = field(default_factory=dict)
    shapes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = {name: np.zeros(self.rows, dtype=np.int64) for name in _COUNTS}
        self.shapes = [""] * self.rows

    def number(self, kernel: Kernel, bucket: int) -> int:
        """The index of a kernel whose input lies at a distance of this bucket; a new one where it is not known yet."""
        return self.kernels.setdefault((kernel, bucket), len(self.kernels))


class Pricer:
    """Prices tasks for one model; small enough to be sent to other processes.

    Args:
        model: what predicts the kernels.
        space: the space whose networks weigh the times at the reaches; None: blocks have no times by reach.
    """

    def __init__(self, model: CostModel, space: Space | None = None) -> None:
        self.shares = reaches(model, space) if model.is_fitted and space is not None else np.ones(1)  # of each reach
        self.target, self.runtime, self.fitted, self.lowering = (
            model.target,
            model.runtime,
            model.fitted,
            model.lowering,
        )
        self.is_fitted = model.is_fitted
        self.measured = model.counts

    def price(self, task: Task) -> dict[str, Any]:
        """The columns of a task's rows, by name (`hwcost.table.schema`)."""
        batch, runtime = _Batch(len(task)), get_runtime(self.runtime)
        for template, sizes, positions in task.groups:
            if isinstance(runtime, OpByOp):
                _add_form(batch, runtime, template.form(self.lowering), sizes, positions)
            else:
                for position, own in zip(positions, sizes.tolist(), strict=True):
                    self._add_graph(batch, int(position), template.graph(own))
        for position, graph in task.loose:
            self._add_graph(batch, position, graph)
        shape = ["x".join(map(str, s)) for s in task.input_shapes]
        head = {"block": list(task.keys), "name": list(task.names), "input_shape": shape, "output_shape": batch.shapes}
        own = {"dtype": [self.target.dtype] * len(task), **self._times(batch)}
        return head | own | {name: values for name, values in batch.counts.items() if name != "calls"}

    def _count(self, batch: _Batch, row: Ints, index: Ints) -> Ints:
        """How often each block was measured: as often as the one of its kernels that was measured least often."""
        if not self.measured:
            return np.zeros(batch.rows, dtype=np.int64)
        times = np.array([self.measured.get((k.digest, b), 0) for k, b in batch.kernels], dtype=np.int64)
        count = np.full(batch.rows, np.iinfo(np.int64).max)
        np.minimum.at(count, row, times[index])
        return np.where(np.bincount(row, minlength=batch.rows) > 0, count, 0)

    def _add_graph(self, batch: _Batch, position: int, graph: Graph) -> None:
        """Lower one block, and add its kernels and counts to the batch."""
        network = self.lowering.kernels(graph, part=True)
        found = [batch.number(p.kernel, int(buckets(np.array([p.distance]))[0])) for p in network.kernels]
        batch.index.append(np.array(found, dtype=np.int64))
        batch.row.append(np.full(len(found), position, dtype=np.int64))
        counts = counted(graph)
        batch.shapes[position] = counts.pop("output_shape")
        for name, value in (counts | {"calls": network.calls}).items():
            batch.counts[name][position] = value

    def _predict(self, kernels: Sequence[tuple[Kernel, int]]) -> tuple[Columns, list[Prediction]]:
        """Features of the kernels, and their predictions in networks of each reach."""
        usual = int(np.argmax(self.shares)) if len(self.shares) > 1 else 1
        data = columns(kernels, self.target, usual)
        found = self.fitted.residual.predict(data, self.fitted.errors.sigma)
        if len(self.shares) == 1:
            return data, [found]
        return data, [found if r == usual else self._reaching(data, r) for r in range(len(self.shares))]

    def _reaching(self, data: Columns, reach: int) -> Prediction:
        """The same kernels in networks of another reach."""
        features = data.features.copy()
        features[:, NAMES.index("reach")] = reach
        return self.fitted.residual.predict(replace(data, features=features), self.fitted.errors.sigma)

    def _times(self, batch: _Batch) -> dict[str, Any]:
        """Latency, interval, bound and coverage of each block."""
        row = np.concatenate([*batch.row, np.zeros(0, dtype=np.int64)])
        index = np.concatenate([*batch.index, np.zeros(0, dtype=np.int64)])
        data, predicted = self._predict([(kernel, distance(bucket)) for kernel, bucket in batch.kernels])
        kernels = [kernel for kernel, _ in batch.kernels]
        n, overhead = batch.rows, self.fitted.overhead
        least = data.least(predicted[0].supported)
        times = overhead.kernels(np.stack([p.latency for p in predicted]), least)
        sigmas, unknown = self.shares @ [p.sigma for p in predicted], self.shares @ [~p.known for p in predicted]
        time = (self.shares @ times)[index]
        total = np.maximum(np.bincount(row, time, n), 1e-12)  # blocks without any kernel take 1 ps: no time is 0
        called = overhead.calls(batch.counts["calls"].astype(float))
        latency = total + called
        errors, same = self.fitted.errors, _numbered(kernels)
        own = sigmas if self.is_fitted else np.zeros(len(kernels))
        sigma, shared = parts_of_sums(row, same[index], time, own[index], errors.shared * unknown[index], n)
        low, high = interval_of(latency, errors, sigma, shared)
        memory = np.bincount(row, time * ~data.compute_bound[index], n) / total
        supported = predicted[0].supported & self.is_fitted
        support = np.bincount(row, time * supported[index], n) / total
        inside = np.bincount(row, ~supported[index], n) == 0
        count = self._count(batch, row, index)
        moved = np.bincount(row, np.array([float(k.cost.bytes) for k in kernels])[index], n)
        there = [np.bincount(row, each[index], n) + called for each in times]
        return {
            "latency_s": latency, "low_s": low, "high_s": high, "sigma": sigma,
            "shared": shared, "memory_share": memory, "bound": np.where(memory >= 0.5, "memory", "compute").tolist(),
            "support": np.where(inside, 1.0, support), "count": count, "kernels": np.bincount(row, minlength=n),
            "coverage": np.where(count > 0, "measured", np.where(inside, "interpolated", "extrapolated")).tolist(),
            **self._by_reach(moved.astype(np.int64), there),
        }  # fmt: skip

    def _by_reach(self, traffic: Ints, times: Sequence[Array]) -> dict[str, Any]:
        """The columns of traffic and of times at each reach; none where the model was not fitted."""
        if len(self.shares) == 1:
            return {}
        return {"traffic": traffic} | {at_reach(r): np.maximum(t, 1e-12) for r, t in enumerate(times)}


def reach_edges(device: Device) -> list[int]:
    """The least traffic (byte) of a network of reach 1, 2, and so on."""
    most = reach_of(_MOST, device)
    return [bisect_left(range(_MOST), r, key=lambda moved: reach_of(moved, device)) for r in range(1, most + 1)]


def reaches(model: CostModel, space: Space) -> Array:
    """The share of random networks of a space that have each reach; [number of reaches], the sum is 1."""
    rng = np.random.default_rng(0)
    drawn = model.estimate_many([space.sample(rng) for _ in range(_SAMPLES)], space=space)
    found = [reach_of(e.cost.bytes, model.device) for e in drawn]
    return np.bincount(found, minlength=reach_of(_MOST, model.device) + 1) / len(drawn)


def traced(block: Block) -> Graph:
    """The graph of a block at its place in a network, traced on the meta device.

    Raises:
        TableError: its module cannot be made.
    """
    import torch

    from hwcost.tracing.trace import trace

    try:
        with torch.device("meta"):
            module = block.build()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise TableError(f"block {block.name!r} ({block.key}) cannot be built: {said}") from error
    graph = trace(module, (torch.empty(block.input_shape, device="meta"),)).unstacked()
    return graph.changed(lambda form: replace(form, since=block.since))


def counted(graph: Graph) -> dict[str, Any]:
    """The columns of a row that follow from the block's graph alone: counts, bytes and the output's shape."""
    cost, out = graph.cost, _output(graph.ops, graph.output_values)
    return {
        "output_shape": "x".join(map(str, out)), "macs": cost.macs, "flops": cost.flops, "bytes": cost.bytes,
        "params": graph.params, "input_bytes": sum(t.bytes for t in graph.inputs),
        "weight_bytes": graph.weight_bytes, "peak_memory": graph.peak_memory,
        "stride": _stride(graph.inputs[0].shape if graph.inputs else (), out),
    }  # fmt: skip


def _numbered(kernels: Sequence[Kernel]) -> Ints:
    """A number for each kernel that equal kernels, in different contexts, share."""
    number: dict[Kernel, int] = {}
    return np.array([number.setdefault(kernel, len(number)) for kernel in kernels], dtype=np.int64)


# -- blocks of one form, for runtimes that make a kernel of every op ---------------------------------


def _add_form(batch: _Batch, runtime: OpByOp, template: Template, sizes: Ints, positions: Ints) -> None:
    """Add the blocks of one form to the batch, op by op; each distinct op is made once.

    Args:
        batch: what they are added to.
        runtime: the runtime, which makes one kernel of each op.
        template: of the form.
        sizes: of each block, [blocks, sizes].
        positions: of each block in the task, [blocks].
    """
    n, reuse = len(sizes), Reuse(template.input_values, np.zeros(len(sizes), dtype=np.int64))
    totals = {name: np.zeros(n, dtype=np.int64) for name in ("macs", "flops", "bytes")}
    output: list[tuple[int, ...]] = [()] * n
    given_out = set(template.output_values)
    for i, like in enumerate(template.ops):
        used = sizes[:, template.uses(i)]
        _, first, inverse = np.unique(used, axis=0, return_index=True, return_inverse=True)
        inverse = inverse.reshape(-1)
        ops = [template.op(i, sizes[at].tolist()) for at in first]
        for name, values in totals.items():
            values += np.array([getattr(op.cost, name) for op in ops], dtype=np.int64)[inverse]
        inputs = range(len(like.spec.inputs))
        read = [np.array([op.spec.inputs[t].bytes for op in ops], dtype=np.int64)[inverse] for t in inputs]
        moves = np.array([op.cost.bytes for op in ops], dtype=np.int64)[inverse]
        distance = step(reuse, like, read, moves)
        if like.state != "free":
            _add_op(batch, [runtime.kernel_of(op) for op in ops], inverse, buckets(distance), positions)
        for o in (o for o, value in enumerate(like.writes) if value in given_out):
            output = [ops[u].spec.outputs[o].shape for u in inverse]
    batch.counts["calls"][positions] = runtime.calls_of(template.ops)
    for name, values in totals.items():
        batch.counts[name][positions] = values
    _add_sizes(batch, template, sizes, positions)
    _add_shapes(batch, positions, output, sizes, template)


def _add_op(batch: _Batch, kernels: Sequence[Kernel], inverse: Ints, bucket: Ints, positions: Ints) -> None:
    """Add one op of every block to the batch.

    Args:
        batch: what it is added to.
        kernels: the distinct kernels that the op runs as.
        inverse: which of them each block has, [blocks].
        bucket: of the distance of the op's input in each block, [blocks]; from -1 to 254.
        positions: of each block in the task, [blocks].
    """
    pair, which = np.unique(inverse * 256 + bucket + 1, return_inverse=True)  # distinct (kernel, bucket)
    numbers = [batch.number(kernels[int(p) // 256], int(p) % 256 - 1) for p in pair]
    batch.row.append(positions)
    batch.index.append(np.array(numbers, dtype=np.int64)[which.reshape(-1)])


def _add_sizes(batch: _Batch, template: Template, sizes: Ints, positions: Ints) -> None:
    """Add parameters and bytes of the blocks of one form."""
    by_size = list(sizes.T)
    weights = np.zeros(len(sizes), dtype=np.int64) + template.weight_bytes(by_size)
    live = np.zeros(len(sizes), dtype=np.int64)
    for held in template.activations(by_size):
        live = np.maximum(live, held)
    batch.counts["params"][positions] = template.params(by_size)
    batch.counts["weight_bytes"][positions] = weights
    batch.counts["peak_memory"][positions] = weights + live
    batch.counts["input_bytes"][positions] = template.input_bytes(by_size)


def _add_shapes(batch: _Batch, positions: Ints, output: list[tuple[int, ...]], sizes: Ints, template: Template) -> None:
    """Add output shapes and strides of the blocks of one form."""
    inputs = zip(*(np.broadcast_to(d, len(sizes)).tolist() for d in template.input_shape(list(sizes.T))), strict=True)
    for position, out, given in zip(positions.tolist(), output, inputs, strict=True):
        batch.shapes[position] = "x".join(map(str, out))
        batch.counts["stride"][position] = _stride(given, out)


def _output(ops: Sequence[Op], values: Sequence[int]) -> tuple[int, ...]:
    """Shape of the last output; () where the output is an input."""
    written = [(t.shape, value) for op in ops for t, value in zip(op.spec.outputs, op.writes, strict=True)]
    return next((shape for shape, value in reversed(written) if value in values), ())


def _stride(given: Sequence[int], out: Sequence[int]) -> int:
    """Width of the input map over that of the output map, rounded, at least 1; 1 where there are no maps."""
    return max(round(given[-1] / max(out[-1], 1)), 1) if len(given) == len(out) == 4 else 1
