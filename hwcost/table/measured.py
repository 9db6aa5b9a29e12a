"""The classical look-up table: times of blocks straight from measured networks, without a model.

A block's time in a network is the sum of its kernels' times there, in context. What remains between the
sum of a network's blocks and the whole is fitted on the networks,

    t(network) = scale * sum of its blocks + fixed,                        (1)

by least squares of relative errors; `scale` is in the rows already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from hwcost.graph import Graph
from hwcost.measure.types import Measurements, NetworkMeasurement
from hwcost.table.build import Walk
from hwcost.table.file import Place, TableError
from hwcost.table.price import counted, traced


def rows_of(space: Any, measurements: Measurements) -> tuple[pd.DataFrame, float, float]:
    """(rows of every block that was measured, fixed time (s), common error) of a space's networks.

    Raises:
        TableError: no network of this space was measured.
    """
    networks = [n for n in measurements.networks if n.spec.get("space") == space.name]
    if not networks:
        raise TableError(f"no network of space {space.name} was measured; measure some with `hwcost measure --space`")
    samples: dict[str, list[float]] = {}
    blocks: dict[str, Any] = {}
    held: list[list[str]] = []
    for network in networks:
        stands = space.blocks(network.spec["params"])
        times = _times(network, [b.name for b in stands])
        for block, time in zip(stands, times, strict=True):
            if time > 0:
                samples.setdefault(block.key, []).append(time)
                blocks.setdefault(block.key, block)
        held.append([b.key for b, time in zip(stands, times, strict=True) if time > 0])
    means = {key: float(np.mean(values)) for key, values in samples.items()}
    sums = np.array([sum(means[key] for key in keys) for keys in held])
    total = np.array([n.timing.latency for n in networks])
    scale, fixed = _overhead(sums, total)
    common = float(np.std(np.log(total / (scale * sums + fixed)))) if len(networks) > 1 else 0.0
    frame = pd.DataFrame([_row(blocks[key], values, scale) for key, values in samples.items()])
    return frame.assign(dtype=measurements.environment.dtype), fixed, common


def places_of(space: Any, keys: Sequence[str]) -> tuple[list[Place], list[str]]:
    """The places of a space over rows of these keys, and the keys of the blocks that have none."""
    walk, row = Walk(space), {key: i for i, key in enumerate(keys)}
    found = [block.key for block in walk.blocks()]
    missing = [key for key in found if key not in row]
    to = np.array([row.get(key, -1) for key in found], dtype=np.int32)
    to[to < 0] = -2 - np.arange(len(missing), dtype=np.int32)
    return [Place(p.name, p.decisions, np.where(p.rows < 0, p.rows, to[p.rows])) for p in walk.places], missing


def _times(network: NetworkMeasurement, names: list[str]) -> list[float]:
    """Seconds of each block: its kernels are those whose module lies below its name."""
    times = dict.fromkeys(names, 0.0)
    for m in network.kernels:
        parts = m.module.split(".")
        owner = next((n for i in range(len(parts), 0, -1) if (n := ".".join(parts[:i])) in times), None)
        if owner is not None:
            times[owner] += m.timing.latency
    return list(times.values())


def _overhead(sums: NDArray[np.float64], total: NDArray[np.float64]) -> tuple[float, float]:
    """(scale, fixed (s)) of eq. (1); with one network, all of the difference is scale."""
    if len(total) < 2:
        return float(total[0] / sums[0]), 0.0
    design = np.column_stack([sums, np.ones_like(sums)]) / total[:, None]
    scale, fixed = lsq_linear(design, np.ones(len(total)), bounds=([0.5, 0.0], [2.0, 1e-2])).x
    return float(scale), float(fixed)


def _row(block: Any, samples: list[float], scale: float) -> dict[str, Any]:
    graph: Graph = traced(block)
    mean = scale * float(np.mean(samples))
    sigma = float(np.std(np.log(samples), ddof=1)) if len(samples) > 1 else 0.0
    spread = float(np.exp(1.645 * sigma))
    return {
        "block": block.key, "name": block.name, "input_shape": "x".join(map(str, block.input_shape)),
        **counted(graph), "latency_s": mean, "low_s": mean / spread, "high_s": mean * spread, "sigma": sigma,
        "shared": 0.0, "memory_share": 0.0, "bound": "unknown", "support": 1.0, "count": len(samples),
        "coverage": "measured", "kernels": sum(op.state != "free" for op in graph.ops),
    }  # fmt: skip
