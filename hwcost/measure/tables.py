"""Measurements as Arrow tables, the form in which they are kept in files.

Three tables: `networks` (one row a network), `kernels` (each distinct description once, as canonical
JSON) and `times` (one row a kernel in a network, pointing at both). Nothing is lost; files are small
because text is stored once per distinct value and the bytes of times are split by significance, so
that digits which are not there (`hwcost.measure.summaries`) take no room: about eight bytes a kernel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from hwcost.kernel import Kernel, KernelError
from hwcost.measure import Environment, Measurement, MeasurementError, Measurements, NetworkMeasurement, Timing

_TIMING = [("latency", pa.float64()), ("median", pa.float64()), ("p95", pa.float64()), ("spread", pa.float64()),
           ("rounds", pa.int32()), ("flags", pa.string())]  # fmt: skip
SCHEMAS: Mapping[str, pa.Schema] = {
    "networks": pa.schema(
        [("name", pa.string()), ("family", pa.string()), ("spec", pa.string()), ("calls", pa.int32()), *_TIMING]
    ),
    "kernels": pa.schema([("description", pa.string())]),
    "times": pa.schema(
        [("network", pa.int32()), ("kernel", pa.int32()), ("module", pa.string()), ("distance", pa.int64()), *_TIMING]
    ),
}


def write_parquet(table: pa.Table, sink: Path | BinaryIO) -> None:
    """Write one of the tables as small as it gets."""
    times = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    text = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_integer(f.type)]
    encoding = dict.fromkeys(times, "BYTE_STREAM_SPLIT")
    pq.write_table(
        table, sink, compression="zstd", compression_level=19, use_dictionary=text, column_encoding=encoding,
        write_statistics=False,
    )  # fmt: skip


def to_tables(measurements: Measurements) -> dict[str, pa.Table]:
    """The three tables; the environment goes into the metadata of `networks`."""
    kernels: dict[Kernel, int] = {}
    networks, times = [], []
    for number, network in enumerate(measurements.networks):
        row = {"name": network.name, "family": network.family, "spec": json.dumps(dict(network.spec), sort_keys=True)}
        networks.append(row | {"calls": network.calls} | _timing_out(network.timing))
        for m in network.kernels:
            index = kernels.setdefault(m.kernel, len(kernels))
            times.append(
                {"network": number, "kernel": index, "module": m.module, "distance": m.distance} | _timing_out(m.timing)
            )
    descriptions = [{"description": kernel.to_json()} for kernel in kernels]
    rows = {"networks": networks, "kernels": descriptions, "times": times}
    tables = {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in SCHEMAS.items()}
    environment = json.dumps(measurements.environment.to_json(), sort_keys=True)
    tables["networks"] = tables["networks"].replace_schema_metadata({"environment": environment})
    return tables


def from_tables(tables: Mapping[str, pa.Table]) -> Measurements:
    """Read `to_tables`' tables.

    Raises:
        MeasurementError: a table or a column is missing, or a description cannot be read.
    """
    for name, schema in SCHEMAS.items():
        missing = set(schema.names) - set(tables[name].column_names if name in tables else ())
        if missing:
            raise MeasurementError(f"table {name!r} must have the columns {schema.names}, but lacks {sorted(missing)}")
    metadata = tables["networks"].schema.metadata or {}
    if b"environment" not in metadata:
        raise MeasurementError("measurements must say in which environment they were taken, but the metadata do not")
    try:
        kernels = [Kernel.from_json(text) for text in tables["kernels"]["description"].to_pylist()]
        environment = Environment.from_json(json.loads(metadata[b"environment"]))
        members: dict[int, list[Measurement]] = {}
        for row in tables["times"].to_pylist():
            members.setdefault(row["network"], []).append(
                Measurement(
                    kernel=kernels[row["kernel"]],
                    timing=_timing_in(row),
                    module=row["module"],
                    distance=row["distance"],
                )
            )
    except (KernelError, IndexError, ValueError) as error:
        raise MeasurementError(f"measurements that cannot be read: {error}") from error
    networks = tuple(
        NetworkMeasurement(
            name=row["name"], family=row["family"], spec=json.loads(row["spec"]), calls=row["calls"],
            timing=_timing_in(row), kernels=tuple(members.get(number, ())),
        )
        for number, row in enumerate(tables["networks"].to_pylist())
    )  # fmt: skip
    return Measurements(environment=environment, networks=networks)


def _timing_out(timing: Timing) -> dict[str, Any]:
    return {
        "latency": timing.latency, "median": timing.median, "p95": timing.p95, "spread": timing.spread,
        "rounds": timing.rounds, "flags": ",".join(timing.flags),
    }  # fmt: skip


def _timing_in(row: Mapping[str, Any]) -> Timing:
    flags = tuple(row["flags"].split(",")) if row["flags"] else ()
    return Timing(
        latency=row["latency"],
        median=row["median"],
        p95=row["p95"],
        spread=row["spread"],
        rounds=row["rounds"],
        flags=flags,
    )
