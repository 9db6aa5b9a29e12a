"""What is done with the rows of latency tables: adding rows, telling what is missing, comparing.

A miss names the rows that are nearest to it: those whose key reads the same but for the numbers, by the
sum of the ratios (in doublings) of the numbers that differ.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwcost.table.file import Place, TableError

_NUMBER = re.compile(r"\d+")
_MEANS = ("latency_s", "low_s", "high_s", "sigma", "shared")


@dataclass(frozen=True, slots=True)
class Hits:
    """How often the blocks of some architectures have a row."""

    hits: int
    misses: int
    missing: Mapping[str, int]  # block without a row -> how often it was asked for

    @property
    def share(self) -> float:
        """Of the look-ups that hit; 1 where nothing was asked."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 1.0


def count_hits(
    places: Sequence[Place], choices: NDArray[np.integer], sizes: Sequence[int], missing: Sequence[str]
) -> Hits:
    """The report of a look-up of `choices`, [n, n_decisions]."""
    found = np.zeros(len(missing), dtype=np.int64)
    hits = 0
    for place in places:
        flat = np.zeros(len(choices), dtype=np.int64)
        for d in place.decisions:
            flat = flat * sizes[d] + choices[:, d]
        rows = place.rows[flat]
        hits += int((rows >= 0).sum())
        found += np.bincount(-2 - rows[rows <= -2], minlength=len(missing))
    return Hits(hits, int(found.sum()), {missing[int(i)]: int(found[i]) for i in np.flatnonzero(found)})


def nearest(key: str, keys: Iterable[str], count: int = 3) -> list[str]:
    """The rows that are most like a missing one; by spelling where none is of its kind."""
    kind, own = _read(key)
    keys = list(keys)
    far = [
        (sum(_doublings(a, b) for a, b in zip(own, v, strict=True)), k)
        for k in keys
        for t, v in [_read(k)]
        if t == kind
    ]
    return [k for _, k in sorted(far)[:count]] or difflib.get_close_matches(key, keys, count, cutoff=0.3)


def _read(key: str) -> tuple[str, list[int]]:
    return _NUMBER.sub("#", key), [int(n) for n in _NUMBER.findall(key)]


def _doublings(a: int, b: int) -> float:
    return abs(math.log2((a + 1) / (b + 1)))


def absorb(
    frame: pd.DataFrame, places: Sequence[Place], missing: Sequence[str], extra: pd.DataFrame
) -> tuple[pd.DataFrame, list[Place], list[str]]:
    """The table with those rows of `extra` that it misses, and the columns that both have."""
    wanted = {key: i for i, key in enumerate(missing)}
    new = extra[extra["block"].isin(wanted.keys())]
    to = np.zeros(len(missing), dtype=np.int32)
    to[[wanted[key] for key in new["block"]]] = np.arange(len(frame), len(frame) + len(new)) + 2
    left = [key for key, row in zip(missing, to, strict=True) if not row]
    to[to == 0] = -np.arange(len(left), dtype=np.int32)
    to -= 2  # new rows count on from the old ones, those still missing from -2 down
    moved = [Place(p.name, p.decisions, _moved(p.rows, to)) for p in places]
    shared = [name for name in frame if name in new]
    return pd.concat([frame[shared], new[shared]], ignore_index=True) if len(new) else frame, moved, left


def _moved(rows: NDArray[np.int32], to: NDArray[np.int32]) -> NDArray[np.int32]:
    if not len(to):
        return rows
    return np.where(rows <= -2, to[np.clip(-2 - rows, 0, len(to) - 1)], rows).astype(np.int32)


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
    """Blocks that both tables have, by how many times longer they take in `b`: block, a_s, b_s, ratio.

    Raises:
        TableError: they have none in common.
    """
    both = a[["block", "latency_s"]].merge(b[["block", "latency_s"]], on="block", suffixes=("_a", "_b"))
    if both.empty:
        raise TableError("two tables are compared by the blocks they share, but they share none")
    out = pd.DataFrame({"block": both["block"], "a_s": both["latency_s_a"], "b_s": both["latency_s_b"]})
    out["ratio"] = out["b_s"] / out["a_s"]
    return out.sort_values("ratio", ignore_index=True)
