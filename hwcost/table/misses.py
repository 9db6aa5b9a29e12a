"""Blocks that a table has no row for: how many of those asked for, and which rows are most like one of them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwcost.table.schema import Place

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Hits:
    """How often the blocks of some architectures have a row in a table."""

    hits: int
    misses: int
    missing: Mapping[str, int]  # block without a row -> how often it was asked for

    @property
    def share(self) -> float:
        """Share of the blocks asked for that have a row; 1 where none was asked for."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 1.0


def count_hits(
    places: Sequence[Place], choices: NDArray[np.integer], sizes: Sequence[int], missing: Sequence[str]
) -> Hits:
    """Hits and misses of the architectures `choices`, [n, n_decisions]; `missing` are the blocks without a row."""
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
    """The `count` keys of `keys` that are most like `key`, the nearest first.

    Keys that differ from it in numbers alone are ordered by the sum of |log2 of the ratio| over their numbers; where
    there is none, those of the most similar spelling are returned.
    """
    kind, own = _read(key)
    keys = list(keys)
    read = [(other, *_read(other)) for other in keys]
    far = [
        (sum(_doublings(a, b) for a, b in zip(own, numbers, strict=True)), other)
        for other, its_kind, numbers in read
        if its_kind == kind
    ]
    return [other for _, other in sorted(far)[:count]] or difflib.get_close_matches(key, keys, count, cutoff=0.3)


def _read(key: str) -> tuple[str, list[int]]:
    """A key with its numbers left out, and those numbers."""
    return _NUMBER.sub("#", key), [int(n) for n in _NUMBER.findall(key)]


def _doublings(a: int, b: int) -> float:
    return abs(math.log2((a + 1) / (b + 1)))
