"""Sums of look-ups, fast: f(choices) = constant + sum_s T_s[choices of the decisions of s].

Two things make it fast. Terms are merged while the merged array stays in cache (a sum of two
arrays over few decisions is one array over their union), so a network of twenty blocks needs a
handful of gathers. And architectures are taken in chunks, transposed once, so that every index is
computed over contiguous small integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MERGED = 1 << 14  # entries of a merged array: 128 KiB of doubles, well inside L2
_CHUNK = 1 << 14  # architectures at a time


@dataclass(frozen=True, slots=True)
class Term:
    """An array over some of the decisions: `values` is [sizes of `decisions`]."""

    decisions: tuple[int, ...]  # ascending
    values: NDArray[np.float64]


class Lookup:
    """The merged terms over decisions of the given sizes."""

    def __init__(self, terms: Sequence[Term], sizes: Sequence[int], constant: float) -> None:
        self.sizes = tuple(sizes)
        self.constant = constant
        self.terms = merge(terms, sizes)
        self._flat = [(t.decisions, _strides(t, sizes), np.ascontiguousarray(t.values).ravel()) for t in self.terms]
        self._lists = [(d, s, flat.tolist()) for d, s, flat in self._flat]

    def one(self, choices: Sequence[int]) -> float:
        """The sum for one architecture."""
        total = self.constant
        for decisions, strides, values in self._lists:
            total += values[sum(choices[d] * s for d, s in zip(decisions, strides, strict=True))]
        return total

    def many(self, choices: NDArray[np.integer]) -> NDArray[np.float64]:
        """The sum for each row of `choices`, [n, n_decisions] -> [n].

        Raises:
            IndexError: (row, decision) of a choice that does not exist.
        """
        total = np.empty(len(choices))
        for start in range(0, len(choices), _CHUNK):
            columns = self._columns(choices[start : start + _CHUNK], start)
            self._sum(columns, total[start : start + _CHUNK])
        return total

    def _columns(self, chunk: NDArray[np.integer], start: int) -> NDArray[np.unsignedinteger]:
        """The chunk transposed to small integers, after making sure that every choice exists."""
        kind = np.uint8 if max(self.sizes, default=0) <= 256 else np.uint16
        fits = chunk.dtype == kind or (chunk.min(initial=0) >= 0 and chunk.max(initial=0) <= np.iinfo(kind).max)
        columns = np.ascontiguousarray(chunk.T.astype(kind, copy=False))
        if not fits or (columns.max(axis=1, initial=0) >= self.sizes).any():
            row, decision = (int(i) for i in np.argwhere((chunk < 0) | (chunk >= np.array(self.sizes)))[0])
            raise IndexError(start + row, decision)
        return columns

    def _sum(self, columns: NDArray[np.unsignedinteger], out: NDArray[np.float64]) -> None:
        out.fill(self.constant)
        for decisions, strides, values in self._flat:
            kind: Any = np.uint16 if len(values) <= 1 << 16 else np.uint32
            index = np.zeros(len(out), dtype=kind)
            for d, stride in zip(decisions, strides, strict=True):
                index += columns[d] * kind(stride)
            out += values.take(index, mode="clip")  # every index is in range; "clip" only saves the check


def merge(terms: Sequence[Term], sizes: Sequence[int]) -> list[Term]:
    """Fewer terms of the same sum: each is added to the one with which it makes the smallest array."""
    merged: list[Term] = []
    for term in sorted(terms, key=lambda t: -t.values.size):
        best, least = -1, 0
        for i, other in enumerate(merged):
            union = set(term.decisions) | set(other.decisions)
            entries = math.prod(sizes[d] for d in union)
            if entries <= max(_MERGED, other.values.size) and (best < 0 or entries < least):
                best, least = i, entries
        if best < 0:
            merged.append(term)
        else:
            merged[best] = _add(merged[best], term, sizes)
    return merged


def _add(a: Term, b: Term, sizes: Sequence[int]) -> Term:
    union = tuple(sorted(set(a.decisions) | set(b.decisions)))
    return Term(union, _spread(a, union, sizes) + _spread(b, union, sizes))


def _spread(term: Term, union: tuple[int, ...], sizes: Sequence[int]) -> NDArray[np.float64]:
    """The term's array, broadcast over the decisions of `union`."""
    shape = [sizes[d] if d in term.decisions else 1 for d in union]
    return np.broadcast_to(term.values.reshape(shape), [sizes[d] for d in union])


def _strides(term: Term, sizes: Sequence[int]) -> list[int]:
    extents = [sizes[d] for d in term.decisions]
    return [math.prod(extents[i + 1 :]) for i in range(len(extents))]
