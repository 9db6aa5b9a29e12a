"""Latency table files: Parquet with the structure in the schema's metadata.

Format history:
    1  first
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hwcost.table import LatencyTable

FORMAT = 1
_KEY = b"hwcost"
COLUMNS = {
    "block", "latency_s", "low_s", "high_s", "sigma", "macs", "flops", "bytes", "params", "input_bytes", "weight_bytes",
    "peak_memory", "support", "memory_share",
}  # fmt: skip
Structure = tuple[str, tuple[int, ...], NDArray[np.int32]]


class TableError(ValueError):
    """A latency table that cannot be made, read or asked."""


def write(table: LatencyTable, path: Path) -> None:
    """Write a table; a half-written file never takes the place of a whole one."""
    partial = path.with_name(path.name + ".partial")
    try:
        if path.suffix == ".csv":
            table.frame.to_csv(partial, index=False)
        else:
            pq.write_table(_arrow(table), partial, compression="zstd")
        partial.replace(path)
    except OSError as error:
        raise TableError(f"table {path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _arrow(table: LatencyTable) -> pa.Table:
    places = [{"name": p.name, "decisions": p.decisions, "rows": p.rows.tolist()} for p in table.places]
    head = json.dumps({"format": FORMAT, "meta": table.meta, "places": places}, sort_keys=True)
    return pa.Table.from_pandas(table.frame, preserve_index=False).replace_schema_metadata({_KEY: head.encode()})


def read(path: Path) -> tuple[pd.DataFrame, list[Structure], dict[str, Any]]:
    """Rows, places and metadata of a table's file."""
    try:
        content = pq.read_table(path)
    except FileNotFoundError as error:
        raise TableError(f"no latency table {path}; make one with `hwcost table -o {path}`") from error
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise TableError(f"{path} is no Parquet file, or a truncated one ({reason}); make it again") from error
    metadata = content.schema.metadata or {}
    if _KEY not in metadata:
        raise TableError(f"{path} is Parquet but no latency table of hwcost: its metadata lack {_KEY.decode()!r}")
    head = json.loads(metadata[_KEY])
    if head["format"] > FORMAT:
        raise TableError(
            f"{path} has table format {head['format']}, but this version reads up to {FORMAT}; update hwcost"
        )
    missing = COLUMNS - set(content.column_names)
    if missing:
        raise TableError(f"{path} lacks the columns {sorted(missing)}; make it again")
    places = [(p["name"], tuple(p["decisions"]), np.array(p["rows"], dtype=np.int32)) for p in head["places"]]
    return content.to_pandas(), places, head["meta"]
