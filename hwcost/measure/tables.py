"""Measurements as Arrow tables, the form in which files hold them.

There are three tables: `networks` with a row for each network, `kernels` with each distinct kernel once, as canonical
JSON, and `times` with a row for each kernel in a network, which refers to the other two by row number.

Files take about eight bytes for each kernel in a network: text is stored once for each distinct value, and the bytes of
times are split by significance, so that digits which were rounded away (`hwcost.measure.store.summaries`) compress.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hwcost.kernel import Kernel, KernelError, digest_of
from hwcost.measure.arrays import Flat
from hwcost.measure.types import Environment, Measurement, MeasurementError, Measurements, NetworkMeasurement, Timing

_TIMING = [
    ("latency", pa.float64()),
    ("median", pa.float64()),
    ("p95", pa.float64()),
    ("spread", pa.float64()),
    ("rounds", pa.int32()),
    ("flags", pa.string()),  # joined by commas
]
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
    """Write a table to a file or a binary stream, compressed."""
    times = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    repeated = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_integer(f.type)]
    encoding = dict.fromkeys(times, "BYTE_STREAM_SPLIT")
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=19,
        use_dictionary=repeated,
        column_encoding=encoding,
        write_statistics=False,
    )


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
    """The measurements that `to_tables` made tables of.

    Raises:
        MeasurementError: a table or a column is missing, or a value cannot be read.
    """
    environment, kernels = _environment_and_kernels(tables)
    try:
        members: dict[int, list[Measurement]] = {}
        where = _columns(tables["times"], "network", "kernel", "module", "distance")
        for (network, kernel, module, distance), timing in zip(where, _timings(tables["times"]), strict=True):
            inside = Measurement(kernel=kernels[kernel], timing=timing, module=module, distance=distance)
            members.setdefault(network, []).append(inside)
        networks: list[NetworkMeasurement] = []
        what = _columns(tables["networks"], "name", "family", "spec", "calls")
        for (name, family, spec, calls), timing in zip(what, _timings(tables["networks"]), strict=True):
            networks.append(
                NetworkMeasurement(
                    name=name,
                    family=family,
                    spec=json.loads(spec),
                    timing=timing,
                    kernels=tuple(members.get(len(networks), ())),
                    calls=calls,
                )
            )
    except (IndexError, TypeError, ValueError) as error:
        raise MeasurementError(f"measurements that cannot be read: {error}") from error
    return Measurements(environment=environment, networks=tuple(networks))


def flat_from_tables(tables: Mapping[str, pa.Table]) -> Flat:
    """As `from_tables`, but as arrays.

    Raises:
        MeasurementError: as of `from_tables`.
    """
    environment, kernels = _environment_and_kernels(tables)
    networks, times = tables["networks"], tables["times"]
    flat = Flat(
        environment=environment,
        names=tuple(networks["name"].to_pylist()),
        families=tuple(networks["family"].to_pylist()),
        latency=_numbers(networks["latency"], np.float64),
        spread=_numbers(networks["spread"], np.float64),
        calls=_numbers(networks["calls"], np.float64),
        kernels=tuple(kernels),
        network=_numbers(times["network"], np.int64),
        kernel=_numbers(times["kernel"], np.int64),
        distance=_numbers(times["distance"], np.int64),
        time=_numbers(times["latency"], np.float64),
    )
    for numbers, most in ((flat.network, len(flat)), (flat.kernel, len(kernels))):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < most:
            raise MeasurementError(f"measurements that cannot be read: no row {numbers.max()} of {most}")
    return flat


def kernels_met(tables: Mapping[str, pa.Table]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Which kernels were measured in which contexts, without the time that reading the kernels takes.

    Returns:
        The digest of each distinct kernel; and for each kernel in each network the number of its digest, [rows], and
        its reuse distance (byte), [rows].
    """
    digests = [digest_of(text) for text in tables["kernels"]["description"].to_pylist()]
    times = tables["times"]
    return digests, _numbers(times["kernel"], np.int64), _numbers(times["distance"], np.int64)


def _numbers(column: pa.ChunkedArray, dtype: type[np.generic]) -> NDArray[Any]:
    return np.asarray(column.to_numpy(), dtype=dtype)


def _environment_and_kernels(tables: Mapping[str, pa.Table]) -> tuple[Environment, list[Kernel]]:
    """The environment, and the kernels by row number, after checking that no table or column is missing."""
    for name, schema in SCHEMAS.items():
        missing = set(schema.names) - set(tables[name].column_names if name in tables else ())
        if missing:
            raise MeasurementError(f"table {name!r} must have the columns {schema.names}, but lacks {sorted(missing)}")
    metadata = tables["networks"].schema.metadata or {}
    if b"environment" not in metadata:
        raise MeasurementError("measurements must say in which environment they were taken, but the metadata do not")
    try:
        kernels = [Kernel.from_json(text, canonical=True) for text in tables["kernels"]["description"].to_pylist()]
        return Environment.from_json(json.loads(metadata[b"environment"])), kernels
    except (KernelError, ValueError) as error:
        raise MeasurementError(f"measurements that cannot be read: {error}") from error


def _timing_out(timing: Timing) -> dict[str, Any]:
    return {
        "latency": timing.latency,
        "median": timing.median,
        "p95": timing.p95,
        "spread": timing.spread,
        "rounds": timing.rounds,
        "flags": ",".join(timing.flags),
    }


def _columns(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """The rows of some columns as tuples; `to_pylist` of the table makes dictionaries, which takes thrice as long."""
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _timings(table: pa.Table) -> Iterator[Timing]:
    for latency, median, p95, spread, rounds, flags in _columns(table, *(name for name, _ in _TIMING)):
        yield Timing(
            latency=latency,
            median=median,
            p95=p95,
            spread=spread,
            rounds=rounds,
            flags=tuple(flags.split(",")) if flags else (),
        )
