"""The format `kernels`: one JSON document a line, which any program on any device can write.

    {"environment": {"cpu": "Cortex-A72", "cores": 4, "runtime": "torch-eager", "threads": 1}}
    {"kernel": [{"kind": "relu", "in": [{"name": "self", "shape": [8]}], "out": [{"name": "out", "shape": [8]}]}],
     "latency_s": 1.2e-6}

The first line is the environment in which all kernels were measured (`hwcost.measure.types.Environment`). Each other
line is a kernel (`hwcost.kernel.Kernel.to_json`) with its latency in seconds and, where they are known, median_s,
p95_s, spread (relative half-width of a 90 % interval), rounds, and distance (the kernel's reuse distance in bytes,
`hwcost.measure.types.Measurement`).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hwcost.importers.fields import positive
from hwcost.importers.registry import FormatError, Imported, importer
from hwcost.kernel import Kernel, KernelError
from hwcost.measure.types import Environment, MeasurementError, Measurements, NetworkMeasurement, Timing, lone

_KEYS = {"kernel", "latency_s", "median_s", "p95_s", "spread", "rounds", "distance"}


@importer("kernels", "a JSON document a line: the environment, then each kernel with its latency_s")
def read(path: Path) -> Imported:
    """The kernels of a file, each as a network of its own; they are of one environment.

    Raises:
        FormatError: a line breaks the format; says which.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    numbered = ((f"{path}:{number}", text) for number, text in enumerate(lines, start=1))
    rows = [(where, _document(where, text)) for where, text in numbered if text.strip()]
    if not rows or set(rows[0][1]) != {"environment"}:
        raise FormatError(f'{path}:1: the first line must be {{"environment": {{...}}}}')
    place = _environment(*rows[0])
    kernels = tuple(_measured(where, row, path.stem) for where, row in rows[1:])
    return Imported((Measurements(environment=place, networks=kernels),))


def _document(where: str, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: every line must be a JSON document, but {error}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{where}: every line must be a JSON object, but got {text.strip()[:60]!r}")
    return document


def _environment(where: str, row: dict[str, Any]) -> Environment:
    try:
        return Environment.from_json(row["environment"])
    except MeasurementError as error:
        raise FormatError(f"{where}: {error}") from error


def _measured(where: str, row: dict[str, Any], family: str) -> NetworkMeasurement:
    unknown = set(row) - _KEYS
    if unknown or not {"kernel", "latency_s"} <= set(row):
        raise FormatError(f"{where}: a kernel must have kernel and latency_s, and may have {sorted(_KEYS)}")
    try:
        kernel = Kernel.from_json(json.dumps(row["kernel"]))
    except KernelError as error:
        raise FormatError(f"{where}: {error}") from error
    latency = positive(row["latency_s"], "latency_s", where)
    timing = Timing(
        latency=latency,
        median=positive(row.get("median_s", latency), "median_s", where),
        p95=positive(row.get("p95_s", latency), "p95_s", where),
        spread=positive(row["spread"], "spread", where) if "spread" in row else math.inf,
        rounds=int(row.get("rounds", 1)),
    )
    number = where.rpartition(":")[2]
    return lone(f"{family}/{number}", family, kernel, timing, distance=int(row.get("distance", 0)))
