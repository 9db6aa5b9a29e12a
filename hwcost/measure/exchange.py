"""Measurements as a folder of Parquet files with a card that says what they are.

    networks.parquet  kernels.parquet  times.parquet  README.md

The tables are those of `hwcost.measure.tables`. They hold timings; the rounds behind them stay in the store.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

import pyarrow as pa
import pyarrow.parquet as pq

from hwcost import units
from hwcost.measure.tables import SCHEMAS, from_tables, to_tables, write_parquet
from hwcost.measure.types import MeasurementError, Measurements

Period = tuple[float, float]  # when the first and the last round was taken, s since 1970


def export(
    measurements: Measurements, folder: str | os.PathLike[str], *, command: str = "", period: Period | None = None
) -> Path:
    """Write the files into `folder`, and return it.

    Args:
        measurements: what to write.
        folder: is made if there is none; files of the same names in it are replaced.
        command: how the measurements were made, for the card.
        period: when they were taken, for the card (`Store.period`).

    Raises:
        MeasurementError: the folder cannot be written, or there is nothing to write.
    """
    path = Path(folder)
    if not measurements.networks:
        raise MeasurementError("there is no measured network to export")
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, table in _dated(to_tables(measurements), period).items():
            write_parquet(table, path / f"{name}.parquet")
        (path / "README.md").write_text(card(measurements, command=command, period=period), encoding="utf-8")
    except OSError as error:
        raise MeasurementError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _dated(tables: dict[str, pa.Table], period: Period | None) -> dict[str, pa.Table]:
    """The tables with the period in the metadata of `networks`."""
    if period is not None:
        table = tables["networks"]
        metadata = {**(table.schema.metadata or {}), b"period": json.dumps(period).encode()}
        tables["networks"] = table.replace_schema_metadata(metadata)
    return tables


def load_period(folder: str | os.PathLike[str]) -> Period | None:
    """When exported measurements were taken, of a folder that `load` reads; None where the files do not say."""
    metadata = pq.read_schema(Path(folder) / "networks.parquet").metadata or {}
    if b"period" not in metadata:
        return None
    first, last = json.loads(metadata[b"period"])
    return float(first), float(last)


def load(folder: str | os.PathLike[str]) -> Measurements:
    """Read what `export` wrote.

    Raises:
        MeasurementError: a file is missing or cannot be read; the message names it.
    """
    tables: dict[str, pa.Table] = {}
    for name in SCHEMAS:
        path = Path(folder) / f"{name}.parquet"
        if not path.is_file():
            raise MeasurementError(f"exported measurements must have {path.name}, but {path.parent} has none")
        try:
            tables[name] = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise MeasurementError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from error
    return from_tables(tables)


def card(measurements: Measurements, *, command: str = "", period: Period | None = None) -> str:
    """A description of measurements as Markdown: what, where, when, how, and how repeatable."""
    here, networks = measurements.environment, measurements.networks
    spreads = sorted(n.timing.spread for n in networks)
    latencies = [n.timing.latency for n in networks]
    kernels = Counter(m.kernel.name for n in networks for m in n.kernels)
    distinct = len({m.kernel.digest for n in networks for m in n.kernels})
    families = ", ".join(f"{name} ({count})" for name, count in Counter(n.family for n in networks).most_common(5))
    tail = quantiles(spreads, n=10)[-1] if len(spreads) > 1 else spreads[0]
    flags = Counter(flag for n in networks for flag in n.timing.flags)
    low, high = (units.format(f(latencies), "second") for f in (min, max))
    lines = [
        f"# {len(networks)} networks measured on {here.cpu}",
        "",
        f"- **What**: {len(networks)} networks of {families}, {low} to {high}; "
        f"{kernels.total()} kernels in context, {distinct} distinct. "
        f"Most frequent: {', '.join(f'{name} ({count})' for name, count in kernels.most_common(8))}.",
        f"- **Where**: {here.cpu}, {here.cores} cores, {here.runtime} on {here.threads} thread(s), {here.dtype}, "
        f"{'pinned' if here.pinned else 'not pinned'}, governor {here.governor}.",
        f"- **Versions**: {', '.join(f'{k} {v}' for k, v in sorted(here.versions.items()))}.",
        *([f"- **When**: {_moment(period[0])} to {_moment(period[1])}."] if period else []),
        "- **How**: interleaved rounds; the latency is a low quantile over rounds of the least run, less the time a "
        "run waited for a CPU; median and 95th percentile are of all runs (`hwcost.measure.statistics`).",
        f"- **Repeatability**: spread (relative half-width of a 90 % interval) of whole networks {median(spreads):.1%} "
        f"in the median, {tail:.1%} at the 90th percentile; "
        f"{', '.join(f'{count} flagged {flag}' for flag, count in flags.items()) or 'none flagged'}.",
        *([f"- **Made by**: `{command}`"] if command else []),
        "- **Files**: `networks.parquet` (name, family, specification, latency), `kernels.parquet` (each distinct "
        "kernel as JSON: op kind, shapes, parameters, dtype), `times.parquet` (a row a kernel in a network; `network` "
        "and `kernel` are row numbers of the other two). Seconds and bytes; a kernel's latency is kept to "
        "0.01 %, its median and 95th percentile to 0.2 %, its spread to 2 %.",
        "- **Use**: `hwcost import hwcost FOLDER --store here.db`, or "
        "`hwcost.CostModel.fit(hwcost.measure.exchange.load(FOLDER), device=...)`.",
        "",
    ]
    return "\n".join(lines)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
