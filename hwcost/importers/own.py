"""This project's own export (`hwcost export`): the folder of Parquet files that `hwcost.measure.exchange` wrote."""

from __future__ import annotations

from pathlib import Path

from hwcost.importers import Imported
from hwcost.measure.exchange import load, load_period


def read(path: Path) -> Imported:
    """Measurements of one environment.

    Raises:
        MeasurementError: a file is missing or damaged.
    """
    found, period = load(path), load_period(path)
    return Imported((found,), taken=period[1] if period else None)
