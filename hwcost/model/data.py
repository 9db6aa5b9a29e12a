"""All that a cost model is: its target, what was fitted, and the measurements it was fitted on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hwcost.measure.arrays import Flat
from hwcost.measure.types import Measurements
from hwcost.model.features import Target, buckets
from hwcost.model.fit import Fitted
from hwcost.model.trees import Settings


class ModelError(ValueError):
    """A model that cannot be fitted, read or used for this target."""


class DefaultModel(UserWarning):
    """A shipped model is used: it knows the machine it was fitted on."""


class OldModelFile(UserWarning):
    """A model file of a format that holds no trees was read, and its trees were grown again."""


class UnmeasuredFusedAttention(UserWarning):
    """A measured network ran fused attention layers that the model has not measured and cannot take apart."""


@dataclass(frozen=True, kw_only=True)
class ModelData:
    """A model as a value; `hwcost.model.files` writes and reads it.

    The measurements are at hand, or still in the Parquet files of `tables`, by their names in
    `hwcost.measure.tables.SCHEMAS`; they are read from there when they are first asked for.
    """

    target: Target
    fitted: Fitted
    provenance: str
    settings: Settings = field(default_factory=Settings)
    date: str = ""  # of the fit
    prior: ModelData | None = None
    taken: Measurements | None = None
    tables: Mapping[str, bytes] | None = None

    @property
    def is_fitted(self) -> bool:
        """False for the roofline alone."""
        return self.taken is not None or self.tables is not None

    @cached_property
    def measurements(self) -> Measurements | None:
        """What it was fitted on; None for the roofline alone.

        Raises:
            ModelError: the tables are damaged.
        """
        if self.taken is not None or self.tables is None:
            return self.taken
        from hwcost.measure.tables import from_tables

        try:
            return from_tables(read_tables(self.tables))
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ModelError(f"the measurements of the model cannot be read: {_first_line(error)}") from error

    @cached_property
    def counts(self) -> Mapping[tuple[str, int], int]:
        """How often each kernel was measured, by its digest and the bucket of its reuse distance."""
        if not self.is_fitted:
            return {}
        if self.tables is not None:  # then the kernels need not be read
            from hwcost.measure.tables import kernels_met

            digests, kernel, distance = kernels_met(read_tables(self.tables))
        else:
            assert self.taken is not None
            flat = Flat.of(self.taken)
            digests, kernel, distance = [k.digest for k in flat.kernels], flat.kernel, flat.distance
        pairs, times = np.unique(np.column_stack([kernel, buckets(distance)]), axis=0, return_counts=True)
        return {(digests[k], b): n for (k, b), n in zip(pairs.tolist(), times.tolist(), strict=True)}


def read_tables(stored: Mapping[str, bytes]) -> dict[str, Any]:
    """Arrow tables from the bytes of Parquet files."""
    import pyarrow.parquet as pq

    return {name: pq.read_table(io.BytesIO(content)) for name, content in stored.items()}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
