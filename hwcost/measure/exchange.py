"""Measurements as a folder of Parquet files with a card that says what they are.

    networks.parquet  kernels.parquet  times.parquet  README.md

The tables are those of `hwcost.measure.tables`; rounds stay in the store.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from statistics import median, quantiles

import pyarrow as pa
import pyarrow.parquet as pq

from hwcost import units
from hwcost.measure import MeasurementError, Measurements
from hwcost.measure.tables import SCHEMAS, from_tables, to_tables


def export(measurements: Measurements, folder: str | os.PathLike[str], *, command: str = "") -> Path:
    """Write the files into `folder`, which is made where there is none.

    Args:
        measurements: of one environment.
        folder: files of the same names in it are replaced.
        command: how the measurements were made, for the card.

    Raises:
        MeasurementError: the folder cannot be written, or there is nothing to write.
    """
    place = Path(folder)
    if not measurements.networks:
        raise MeasurementError("there is no measured network to export")
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, table in to_tables(measurements).items():
            pq.write_table(table, place / f"{name}.parquet", compression="zstd", compression_level=9)
        (place / "README.md").write_text(card(measurements, command=command), encoding="utf-8")
    except OSError as error:
        raise MeasurementError(f"{place} cannot be written: {error.strerror or error}") from error
    return place


def load(folder: str | os.PathLike[str]) -> Measurements:
    """Read what `export` wrote.

    Raises:
        MeasurementError: a file is missing or is not what it should be; names it.
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


def card(measurements: Measurements, *, command: str = "") -> str:
    """What, where, how and how repeatable, as Markdown."""
    place, networks = measurements.environment, measurements.networks
    spreads = sorted(n.timing.spread for n in networks)
    latencies = [n.timing.latency for n in networks]
    kernels = Counter(m.kernel.name for n in networks for m in n.kernels)
    distinct = len({m.kernel.digest for n in networks for m in n.kernels})
    families = ", ".join(f"{name} ({count})" for name, count in Counter(n.family for n in networks).most_common(5))
    tail = quantiles(spreads, n=10)[-1] if len(spreads) > 1 else spreads[0]
    flags = Counter(flag for n in networks for flag in n.timing.flags)
    low, high = (units.format(f(latencies), "second") for f in (min, max))
    lines = [
        f"# {len(networks)} networks measured on {place.cpu}",
        "",
        f"- **What**: {len(networks)} networks of {families}, {low} to {high}; "
        f"{kernels.total()} kernels in context, {distinct} distinct. "
        f"Most frequent: {', '.join(f'{name} ({count})' for name, count in kernels.most_common(8))}.",
        f"- **Where**: {place.cpu}, {place.cores} cores, {place.runtime} on {place.threads} thread(s), {place.dtype}, "
        f"{'pinned' if place.pinned else 'not pinned'}, governor {place.governor}.",
        f"- **Versions**: {', '.join(f'{k} {v}' for k, v in sorted(place.versions.items()))}.",
        "- **How**: interleaved rounds; the latency is a low quantile over rounds of the least run, less the time a "
        "run waited for a CPU; median and 95th percentile are of all runs (`hwcost.measure.statistics`).",
        f"- **Repeatability**: spread (relative half-width of a 90 % interval) of whole networks {median(spreads):.1%} "
        f"in the median, {tail:.1%} at the 90th percentile; "
        f"{', '.join(f'{count} flagged {flag}' for flag, count in flags.items()) or 'none flagged'}.",
        *([f"- **Made by**: `{command}`"] if command else []),
        "- **Units**: seconds, bytes. `times.network` and `times.kernel` are row numbers of the other two files.",
        "",
    ]
    return "\n".join(lines)
