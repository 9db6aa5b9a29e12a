"""The format `kernels`: one JSON document a line, which any program on any device can write.

    {"environment": {"cpu": "Cortex-A72", "cores": 4, "runtime": "torch-eager", "threads": 1}}
    {"kernel": [{"kind": "relu", "in": [{"name": "self", "shape": [8]}], "out": [{"name": "out", "shape": [8]}]}],
     "latency_s": 1.2e-6}

The first line is the environment in which all kernels were measured (`hwcost.measure.types.Environment`). Each other
line is a kernel (`hwcost.kernel.Kernel.to_json`) with its latency in seconds and, where they are known, median_s,
p95_s, spread (relative half-width of a 90 % interval), rounds, and distance (the kernel's reuse distance in bytes,
`hwcost.measure.types.Measurement`). Every kind of op must be one that a rule counts, and a layer's weights are marked
"weight": true.
"""

from __future__ import annotations

import json
import math
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hwcost.foreign import one_line, parsed_json, read_text
from hwcost.importers.fields import counted, positive, whole_number
from hwcost.importers.registry import FormatError, Imported, importer
from hwcost.kernel import Kernel, KernelError
from hwcost.measure.types import Environment, MeasurementError, Measurements, NetworkMeasurement, Timing, lone
from hwcost.rules.registry import cost_of, known_kinds

_WEIGHTED = frozenset(
    [f"conv{form}{n}d" for form in ("", "_transpose") for n in (1, 2, 3)]
    + ["linear", "bilinear", "embedding", "embedding_bag", "lstm", "gru", "rnn_tanh", "rnn_relu"]
)  # kinds of layer that have weights
_KEYS = {"kernel", "latency_s", "median_s", "p95_s", "spread", "rounds", "distance"}


@importer("kernels", "a JSON document a line: the environment, then each kernel with its latency_s")
def read(path: Path) -> Imported:
    """The kernels of a file, each as a network of its own; they are of one environment.

    Raises:
        FormatError: a line breaks the format; says which.
    """
    try:
        lines = read_text(path).split("\n")
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    numbered = ((f"{path}:{number}", text) for number, text in enumerate(lines, start=1))
    rows = [(where, _document(where, text)) for where, text in numbered if text.strip()]
    if not rows or set(rows[0][1]) != {"environment"}:
        raise FormatError(f'{path}:1: the first line must be {{"environment": {{...}}}}')
    place = _environment(*rows[0])
    kernels = tuple(_measured(where, row, path.stem) for where, row in rows[1:])
    return Imported((Measurements(environment=place, networks=kernels),))


def _document(where: str, text: str) -> dict[str, Any]:
    try:
        document = parsed_json(text, finite=True)
    except ValueError as error:
        raise FormatError(f"{where}: every line must be a JSON document, but {one_line(error)}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{where}: every line must be a JSON object, but got {text.strip()[:60]!r}")
    return document


def _environment(where: str, row: dict[str, Any]) -> Environment:
    try:
        return Environment.from_json(row["environment"])
    except MeasurementError as error:
        raise FormatError(f"{where}: {error}") from error


def _check_ops(written: list[dict[str, Any]], kernel: Kernel, where: str) -> None:
    """Refuse ops that no rule counts, which would be kept as if they did no work, and layers without weights, whose
    traffic would be that of other layers."""
    for fields, op in zip(written, kernel.ops, strict=True):
        if cost_of(op)[1] == "unknown":
            near = get_close_matches(op.kind, known_kinds()[0], n=1)
            meant = f"did you mean {near[0]!r}?" if near else "or register a rule for it with hwcost.rule"
            raise FormatError(f"{where}: kind must be one that a rule counts, but got {op.kind!r:.60}; {meant}")
        if op.kind in _WEIGHTED and not any("weight" in tensor for tensor in fields["in"]):
            raise FormatError(
                f'{where}: a {op.kind} must have its weights among its inputs, marked "weight": true (or false, where '
                f"the network computes them), but it has {', '.join(t.name for t in op.inputs) or 'no input'}"
            )


def _measured(where: str, row: dict[str, Any], family: str) -> NetworkMeasurement:
    unknown = set(row) - _KEYS
    if unknown or not {"kernel", "latency_s"} <= set(row):
        raise FormatError(f"{where}: a kernel must have kernel and latency_s, and may have {sorted(_KEYS)}")
    try:
        kernel = Kernel.from_json(json.dumps(row["kernel"]))
    except (KernelError, RecursionError) as error:
        raise FormatError(f"{where}: {one_line(error)}") from error
    counted(kernel, where)
    _check_ops(row["kernel"], kernel, where)
    latency = positive(row["latency_s"], "latency_s", where)
    timing = Timing(
        latency=latency,
        median=positive(row.get("median_s", latency), "median_s", where),
        p95=positive(row.get("p95_s", latency), "p95_s", where),
        spread=positive(row["spread"], "spread", where) if "spread" in row else math.inf,
        rounds=whole_number(row.get("rounds", 1), "rounds", where),
    )
    number = where.rpartition(":")[2]
    distance = whole_number(row.get("distance", 0), "distance", where, least=-1)
    return lone(f"{family}/{number}", family, kernel, timing, distance=distance)
