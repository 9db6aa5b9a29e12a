"""Networks and visits as rows of the store's tables, and back."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcost.kernel import Kernel
from hwcost.measure.clock import Round
from hwcost.measure.machine import Disturbance
from hwcost.measure.types import Measurement, NetworkMeasurement, Timing


def network_row(
    place: int,
    head: dict[str, Any],
    spec: Mapping[str, Any],
    ids: Sequence[int],
    distances: Sequence[int],
    modules: Sequence[str],
) -> dict[str, Any]:
    """A network as a row; `kernels` are rows of the table of descriptions."""
    return head | {
        "environment_id": place,
        "spec": json.dumps(dict(spec), sort_keys=True),
        "kernels": np.array(ids, "<i4").tobytes(),
        "distances": np.array(distances, "<i8").tobytes(),
        "modules": json.dumps(list(modules)),
        "created": time.time(),
    }


def network(row: Any, whole: Timing, inside: Sequence[Timing], kernels: Mapping[int, Kernel]) -> NetworkMeasurement:
    """A network from its row, with the timings of the whole and of its kernels."""
    ids, distances = np.frombuffer(row.kernels, "<i4"), np.frombuffer(row.distances, "<i8")
    measured = tuple(
        Measurement(kernel=kernels[int(i)], timing=timing, module=module, distance=int(distance))
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
    """A visit from its row, which says the network's kernels as `ids`."""
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


def numbers(kernels: bytes, distances: bytes) -> tuple[list[int], list[int]]:
    """Rows and reuse distances of a network's kernels."""
    return np.frombuffer(kernels, "<i4").tolist(), np.frombuffer(distances, "<i8").tolist()


def _floats(blob: bytes) -> NDArray[np.float32]:
    return np.frombuffer(blob, "<f4").astype(np.float32)
