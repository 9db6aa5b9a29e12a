"""The format `hwcost`: this project's own files.

Either an export, which is the folder of Parquet files that `hwcost.measure.exchange` wrote, or a model file, which
holds the measurements that it and its prior were fitted on.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hwcost.importers.registry import FormatError, Imported, importer
from hwcost.measure.exchange import load, load_period
from hwcost.measure.tables import SCHEMAS, from_tables
from hwcost.model.provenance import HEAD, PRIOR, unpacked


@importer("hwcost", "a folder that `hwcost export` wrote, or a model file: what it was fitted on")
def read(path: Path) -> Imported:
    """The measurements of an export, or of a model and then of each of its priors.

    Raises:
        MeasurementError: a file is missing or damaged.
        FormatError: a file that is no model, or one without measurements.
    """
    if path.is_file():
        return _of_model(path)
    found, period = load(path), load_period(path)
    return Imported((found,), taken=period[1] if period else None)


def _of_model(path: Path) -> Imported:
    """What a model was fitted on, dated by the day of the fit: the model does not say when it was measured."""
    try:
        held = unpacked(path.read_bytes())
        found = [_tables(part) for part in _with_priors(held)]
        day = str(json.loads(held[HEAD]).get("date", ""))
        taken = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() if day else None
    except (KeyError, ValueError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise FormatError(
            f"{path} must be a folder that `hwcost export` wrote, or a model file that holds measurements"
        ) from error
    return Imported(tuple(from_tables(tables) for tables in found), taken=taken)


def _with_priors(held: Mapping[str, bytes]) -> Iterator[Mapping[str, bytes]]:
    """The members of a model file, then those of its prior, and so on."""
    yield held
    if PRIOR in held:
        yield from _with_priors(unpacked(held[PRIOR]))


def _tables(held: Mapping[str, bytes]) -> dict[str, pa.Table]:
    return {name: pq.read_table(io.BytesIO(held[f"{name}.parquet"])) for name in SCHEMAS}
