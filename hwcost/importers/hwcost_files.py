"""The format `hwcost`: this project's own files.

Either an export, which is the folder of Parquet files that `hwcost.measure.exchange` wrote, or a model file, which
holds the measurements that it and its prior were fitted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from hwcost.foreign import BAD_CONTENT, is_whole, one_line, parsed_json, read_bytes, unzipped
from hwcost.importers.fields import counted
from hwcost.importers.registry import FormatError, Imported, importer
from hwcost.measure.exchange import load, load_period
from hwcost.measure.tables import SCHEMAS, from_tables
from hwcost.measure.types import Measurements
from hwcost.model.data import read_tables
from hwcost.model.provenance import HEAD, PRIOR


@importer("hwcost", "a folder that `hwcost export` wrote, or a model file: what it was fitted on")
def read(path: Path) -> Imported:
    """The measurements of an export, or of a model and then of each of its priors.

    Raises:
        MeasurementError: a file is missing or damaged.
        FormatError: a file that is no model, or one without measurements.
    """
    if path.is_file():
        return _of_model(path)
    found, period = _counted(load(path), path), load_period(path)
    return Imported((found,), taken=period[1] if period else None)


def _of_model(path: Path) -> Imported:
    """What a model was fitted on, dated by the day of the fit: the model does not say when it was measured.

    Its trees are not read: a model of another version's features is fitted again on what is imported here.
    """
    try:
        content = read_bytes(path)
        if is_whole(content) is False:
            raise FormatError(f"{path} is damaged: its bytes are not those that were written; get the file again")
        held = unzipped(content)
        found = [read_tables(_tables(part)) for part in _with_priors(held)]
        day = str(parsed_json(held[HEAD]).get("date", ""))
        taken = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() if day else None
    except FormatError:
        raise
    except BAD_CONTENT as error:
        raise FormatError(
            f"{path} must be a folder that `hwcost export` wrote, or a model file that holds measurements "
            f"({one_line(error)})"
        ) from error
    return Imported(tuple(_counted(from_tables(tables), path) for tables in found), taken=taken)


def _counted(measurements: Measurements, path: Path) -> Measurements:
    for kernel in {m.kernel for network in measurements.networks for m in network.kernels}:
        counted(kernel, str(path))
    return measurements


def _with_priors(held: Mapping[str, bytes], left: int = 8) -> Iterator[Mapping[str, bytes]]:
    """The members of a model file, then those of its prior, and so on."""
    yield held
    if PRIOR in held:
        if not left:
            raise ValueError("a prior of a prior, and so on, too many times")
        yield from _with_priors(unzipped(held[PRIOR]), left - 1)


def _tables(held: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: held[f"{name}.parquet"] for name in SCHEMAS}
