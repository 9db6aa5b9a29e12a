"""The classical look-up table: times of blocks straight from measured networks, without a model.

A block's time in a network is the sum of its kernels' times, measured while that network ran. A network takes longer
than its blocks together; the difference is fitted on the networks,

    t(network) = scale * sum of its blocks + fixed,                        (1)

by least squares of relative errors. The rows of the table are multiplied by `scale`; `fixed` is kept beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from hwcost.graph import Graph
from hwcost.measure.statistics import Z
from hwcost.measure.types import Measurements, NetworkMeasurement
from hwcost.table.build import Walk
from hwcost.table.price import counted, traced
from hwcost.table.schema import Place, TableError

if TYPE_CHECKING:
    from hwcost.spaces.base import Block, Space


def rows_of(space: Space, measurements: Measurements) -> tuple[pa.Table, float, float]:
    """The blocks of a space's measured networks.

    Returns:
        Rows of every block that was measured; the fixed time of a network (s); and the standard deviation of
        log(measured / (1)) over the networks.

    Raises:
        TableError: no network of this space was measured, or no kernel of one.
    """
    networks = [n for n in measurements.networks if n.spec.get("space") == space.name]
    if not networks:
        raise TableError(f"no network of space {space.name} was measured; measure some with `hwcost measure --space`")
    samples: dict[str, list[float]] = {}
    blocks: dict[str, Block] = {}
    held: list[list[str]] = []
    for network in networks:
        stands = space.blocks(network.spec["params"])
        times = _times(network, [b.name for b in stands])
        for block, time in zip(stands, times, strict=True):
            if time > 0:
                samples.setdefault(block.key, []).append(time)
                blocks.setdefault(block.key, block)
        held.append([b.key for b, time in zip(stands, times, strict=True) if time > 0])
    if not samples:
        raise TableError(
            f"no kernel of the networks of space {space.name} was measured, only whole networks; "
            "measure them with `hwcost measure --space`"
        )
    means = {key: float(np.mean(values)) for key, values in samples.items()}
    sums = np.array([sum(means[key] for key in keys) for keys in held])
    total = np.array([n.timing.latency for n in networks])
    scale, fixed = _overhead(sums, total)
    common = float(np.std(np.log(total / (scale * sums + fixed)))) if len(networks) > 1 else 0.0
    dtype = {"dtype": measurements.environment.dtype}
    rows = pa.Table.from_pylist([_row(blocks[key], values, scale) | dtype for key, values in samples.items()])
    return rows, fixed, common


def places_of(space: Space, keys: Sequence[str]) -> tuple[list[Place], list[str]]:
    """The places of a space over rows of these keys, and the keys of the blocks that have none."""
    walk, row = Walk(space), {key: i for i, key in enumerate(keys)}
    found = [block.key for block in walk.blocks()]
    missing = [key for key in found if key not in row]
    row_of = np.array([row.get(key, -1) for key in found], dtype=np.int32)  # of each block in the order of the walk
    row_of[row_of < 0] = -2 - np.arange(len(missing), dtype=np.int32)
    return [Place(p.name, p.decisions, np.where(p.rows < 0, p.rows, row_of[p.rows])) for p in walk.places], missing


def _times(network: NetworkMeasurement, names: list[str]) -> list[float]:
    """Time (s) of each block of `names`: that of the kernels whose module is the block's or lies inside it."""
    times = dict.fromkeys(names, 0.0)
    for kernel in network.kernels:
        parts = kernel.module.split(".")
        enclosing = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))  # the innermost first
        owner = next((name for name in enclosing if name in times), None)
        if owner is not None:
            times[owner] += kernel.timing.latency
    return list(times.values())


def _overhead(sums: NDArray[np.float64], total: NDArray[np.float64]) -> tuple[float, float]:
    """scale and fixed (s) of eq. (1); with one network the whole difference is put into `scale`."""
    if len(total) < 2:
        return float(total[0] / sums[0]), 0.0
    design = np.column_stack([sums, np.ones_like(sums)]) / total[:, None]
    scale, fixed = lsq_linear(design, np.ones(len(total)), bounds=([0.5, 0.0], [2.0, 1e-2])).x
    return float(scale), float(fixed)


def _row(block: Block, samples: list[float], scale: float) -> dict[str, Any]:
    graph: Graph = traced(block)
    mean = scale * float(np.mean(samples))
    sigma = float(np.std(np.log(samples), ddof=1)) if len(samples) > 1 else 0.0
    factor = float(np.exp(Z * sigma))  # between the mean and an end of its interval
    return {
        "block": block.key, "name": block.name, "input_shape": "x".join(map(str, block.input_shape)),
        **counted(graph), "latency_s": mean, "low_s": mean / factor, "high_s": mean * factor, "sigma": sigma,
        "shared": 0.0, "memory_share": 0.0, "bound": "unknown", "support": 1.0, "count": len(samples),
        "coverage": "measured", "kernels": sum(op.state != "free" for op in graph.ops),
    }  # fmt: skip
