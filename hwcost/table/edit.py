"""Rows of two tables together: adding those that one lacks, averaging and comparing those that both have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwcost.table.schema import Place, TableError

_MEANS = ("latency_s", "low_s", "high_s", "sigma", "shared")


def absorb(
    frame: pd.DataFrame, places: Sequence[Place], missing: Sequence[str], extra: pd.DataFrame
) -> tuple[pd.DataFrame, list[Place], list[str]]:
    """A table with those rows of `extra` that it has no row for yet.

    Args:
        frame: rows of the table.
        places: its places, which number missing blocks by their position in `missing` (`hwcost.table.schema.Place`).
        missing: keys of the blocks that it has no row for.
        extra: other rows, of which those whose block is in `missing` are added at the end.

    Returns:
        The rows, with the columns that both have where rows were added; the places, which point at them; and the keys
        of the blocks that are still missing.
    """
    position = {key: i for i, key in enumerate(missing)}
    new = extra[extra["block"].isin(position.keys())]
    found = np.array([position[key] for key in new["block"]], dtype=np.int64)
    still = np.ones(len(missing), dtype=bool)
    still[found] = False
    row_of = np.empty(len(missing), dtype=np.int32)  # what a place has to say from now on of each block of `missing`
    row_of[found] = np.arange(len(frame), len(frame) + len(new))
    row_of[still] = -2 - np.arange(still.sum())
    left = [key for key, missed in zip(missing, still, strict=True) if missed]
    moved = [Place(p.name, p.decisions, _moved(p.rows, row_of)) for p in places]
    shared = [name for name in frame if name in new]
    return pd.concat([frame[shared], new[shared]], ignore_index=True) if len(new) else frame, moved, left


def _moved(rows: NDArray[np.int32], row_of: NDArray[np.int32]) -> NDArray[np.int32]:
    """Rows of a place in which block i of the missing ones, -2 - i, has become `row_of[i]`."""
    if not len(row_of):
        return rows
    return np.where(rows <= -2, row_of[np.clip(-2 - rows, 0, len(row_of) - 1)], rows).astype(np.int32)


def averaged(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Rows of `a`; those that `b` has too are the mean of both, weighted by how often each was measured."""
    both = a[["block", "count", *_MEANS]].merge(
        b[["block", "count", *_MEANS]], on="block", how="left", suffixes=("", "_b")
    )
    theirs = both["count_b"].fillna(0).to_numpy(dtype=float)
    mine = both["count"].to_numpy(dtype=float)
    total, out = np.maximum(mine + theirs, 1.0), a.copy()
    for name in _MEANS:
        own = both[name].to_numpy(dtype=float)
        other = both[name + "_b"].fillna(0.0).to_numpy(dtype=float)
        out[name] = np.where(theirs > 0, (mine * own + theirs * other) / total, own)
    out["count"] = (mine + theirs).astype(np.int64)
    return out


def difference(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Blocks that both tables have, by how many times longer they take in `b`.

    Returns:
        Columns block, a_s, b_s (s) and ratio, b_s / a_s, ascending.

    Raises:
        TableError: they have none in common.
    """
    both = a[["block", "latency_s"]].merge(b[["block", "latency_s"]], on="block", suffixes=("_a", "_b"))
    if both.empty:
        raise TableError("two tables are compared by the blocks they share, but they share none")
    out = pd.DataFrame({"block": both["block"], "a_s": both["latency_s_a"], "b_s": both["latency_s_b"]})
    out["ratio"] = out["b_s"] / out["a_s"]
    return out.sort_values("ratio", ignore_index=True)
