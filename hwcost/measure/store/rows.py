"""Networks and rounds as rows of the store's tables, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcost.kernel import Kernel
from hwcost.measure.clock import Round
from hwcost.measure.disturbance import Disturbance
from hwcost.measure.types import Measurement, NetworkMeasurement, Timing
from hwcost.runtimes.base import Placed


def network_row(
    *,
    environment_id: int,
    name: str,
    family: str,
    spec: Mapping[str, Any],
    calls: int,
    kernels: Sequence[Placed | Measurement],
    kernel_ids: Sequence[int],
    created: float,
) -> dict[str, Any]:
    """A network as a row of the table `network`; `kernel_ids` are the rows of its kernels in the table `kernel`."""
    return {
        "environment_id": environment_id,
        "name": name,
        "family": family,
        "spec": json.dumps(dict(spec), sort_keys=True),
        "calls": calls,
        "kernels": np.array(kernel_ids, "<i4").tobytes(),
        "distances": np.array([k.distance for k in kernels], "<i8").tobytes(),
        "modules": json.dumps([k.module for k in kernels]),
        "created": created,
    }


def network_of(
    row: Any, whole: Timing, inside: Sequence[Timing], described: Mapping[int, Kernel]
) -> NetworkMeasurement:
    """A network from its row, the timing of the whole, those of its kernels, and the kernels by their row numbers."""
    ids, distances = kernel_ids_and_distances(row.kernels, row.distances)
    measured = tuple(
        Measurement(kernel=described[i], timing=timing, module=module, distance=distance)
        for i, timing, module, distance in zip(ids, inside, json.loads(row.modules), distances, strict=True)
    )
    return NetworkMeasurement(
        name=row.name,
        family=row.family,
        spec=json.loads(row.spec),
        timing=whole,
        kernels=measured,
        calls=row.calls,
    )


def round_of(row: Any) -> Round:
    """A round from its row, which also has the network's kernels as `ids`."""
    width = len(row.ids) // 4
    kernels = _floats(row.kernels)
    return Round(
        _floats(row.whole),
        _floats(row.waits),
        kernels.reshape(-1, width) if width else np.zeros((1, 0), np.float32),
        Disturbance(row.steal, row.switches, row.waited),
        row.seconds,
        _floats(row.paces),
    )


def kernel_ids_and_distances(kernels: bytes, distances: bytes) -> tuple[list[int], list[int]]:
    """Row numbers and reuse distances (byte) of a network's kernels, from the columns that hold them."""
    return np.frombuffer(kernels, "<i4").tolist(), np.frombuffer(distances, "<i8").tolist()


def _floats(blob: bytes) -> NDArray[np.float32]:
    return np.frombuffer(blob, "<f4").astype(np.float32)
