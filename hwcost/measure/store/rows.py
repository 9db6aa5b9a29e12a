"""Networks and rounds as rows of the store's tables, and back; checksums of rows."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwcost.foreign import parsed_json, real_number, text_value, whole_number
from hwcost.kernel import Kernel
from hwcost.measure.clock import Round
from hwcost.measure.disturbance import Disturbance
from hwcost.measure.types import Measurement, NetworkMeasurement, Timing
from hwcost.runtimes.base import Placed

if TYPE_CHECKING:
    from sqlalchemy import Table


def checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its checksum, to be written."""
    return {**row, "checksum": _checksum(row)}


def check(table: Table, row: Any, checksum: str | None = None, **other: Any) -> None:
    """Compare a row that was read with its checksum, which rows from an older store lack.

    Args:
        table: that the row is of.
        row: has the table's columns as attributes.
        checksum: the row's, where its own column of that name is of another table.
        other: values of columns that have other names in `row`.

    Raises:
        ValueError: the row is not as it was written.
    """
    wanted = row.checksum if checksum is None else checksum
    names = [c.name for c in table.columns if c.name not in ("id", "checksum")]
    if wanted and _checksum({n: other[n] if n in other else getattr(row, n) for n in names}) != wanted:
        raise ValueError(f"a row of {table.name} is not as it was written")


def _checksum(row: Mapping[str, Any]) -> str:
    """32 hex digits of the names and values of a row's columns: texts, bytes and numbers, which count as floats."""
    whole = blake2b(digest_size=16)
    for name, value in sorted(row.items()):
        if isinstance(value, str):
            content = value.encode()
        else:
            content = struct.pack("<d", float(value)) if isinstance(value, (int, float)) else bytes(value)
        whole.update(f"{name} {len(content)} ".encode() + content)
    return whole.hexdigest()


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
    row = {
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
    return checked(row)


def network_of(
    row: Any, whole: Timing, inside: Sequence[Timing], described: Mapping[int, Kernel]
) -> NetworkMeasurement:
    """A network from its row, the timing of the whole, those of its kernels, and the kernels by their row numbers."""
    ids, distances = kernel_ids_and_distances(row.kernels, row.distances)
    modules, spec = parsed_json(row.modules), parsed_json(row.spec)
    if not isinstance(spec, dict):
        raise ValueError("the specification of a network must be a JSON object")
    measured = tuple(
        Measurement(
            kernel=described[i], timing=_believed(timing), module=text_value(module, "module"), distance=distance
        )
        for i, timing, module, distance in zip(ids, inside, modules, distances, strict=True)
    )
    return NetworkMeasurement(
        name=text_value(row.name, "name"),
        family=text_value(row.family, "family"),
        spec=spec,
        timing=_believed(whole),
        kernels=measured,
        calls=whole_number(row.calls, "calls"),
    )


def _believed(timing: Timing) -> Timing:
    """A timing, after making sure that a clock can have given it."""
    real_number(timing.latency, "a latency", math.nextafter(0.0, 1.0))
    for name in ("median", "p95", "spread"):
        real_number(getattr(timing, name), f"a {name}", 0.0, finite=False)
    whole_number(timing.rounds, "rounds", 1)
    return timing


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
