"""Sums of small arrays indexed by choices, for many architectures at once.

    t[n] = constant + sum_s T_s[choices of the decisions of s]                                      (1)
    t[n] = constant + sum_s T_s[r, choices],  r = the number of edges <= sum_s Q_s[choices]         (2)

(2) is for times that depend on the traffic of the whole network: a term then holds its traffic Q_s (byte) besides its
times at each reach r.

Two things make it fast. Terms are merged as long as the merged array fits the cache (the sum of two arrays over few
decisions is one array over all decisions of both), so that a network of twenty blocks needs a handful of gathers. And
architectures are taken in chunks that are transposed once, so that indices are computed over contiguous small integers.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MERGED = 1 << 14  # most entries of a merged array: 128 KiB of doubles, well inside an L2 cache
_CHUNK = 1 << 14  # architectures at a time


@dataclass(frozen=True, slots=True)
class Term:
    """The times of one site: `values` is [number of choices of each of `decisions`].

    Where times depend on the reach, `values` has one more axis in front, [1 + reaches, ...]: the traffic, then the time
    at each reach.
    """

    decisions: tuple[int, ...]  # ascending
    values: NDArray[np.float64]


class Lookup:
    """The sum (1) or, with `edges`, (2).

    Args:
        terms: one for each site.
        sizes: number of choices of each decision.
        constant: time of every architecture (s).
        edges: the least traffic (byte) of a network of reach 1, 2, ...; ascending.
    """

    def __init__(self, terms: Sequence[Term], sizes: Sequence[int], constant: float, edges: Sequence[int] = ()) -> None:
        self.sizes = tuple(sizes)
        self.constant = constant
        self.terms = merge(terms, sizes)
        self.edges, reached = _reached(self.terms, edges)
        self._flat = [_Flat.of(t, sizes, reached) for t in self.terms]
        self._lists = [
            (list(zip(f.decisions, f.strides, strict=True)), f.traffic.tolist(), f.times.tolist()) for f in self._flat
        ]

    def one(self, choices: Sequence[int]) -> float:
        """The sum for one architecture.

        Raises:
            IndexError: (0, decision) of a choice that does not exist.
        """
        for decision, (choice, size) in enumerate(zip(choices, self.sizes, strict=True)):
            if not 0 <= choice < size:
                raise IndexError(0, decision)
        found = [
            (sum([choices[d] * stride for d, stride in strides]), traffic, times)
            for strides, traffic, times in self._lists
        ]
        reach = 0
        if self.edges:
            reach = bisect_right(self.edges, sum([traffic[at] for at, traffic, _ in found]))
        total: float = self.constant + sum([times[reach][at] for at, _, times in found])
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
        """The chunk transposed, as small integers, after making sure that every choice exists."""
        kind = np.uint8 if max(self.sizes, default=0) <= 256 else np.uint16
        fits = chunk.dtype == kind or (chunk.min(initial=0) >= 0 and chunk.max(initial=0) <= np.iinfo(kind).max)
        columns = np.ascontiguousarray(chunk.T.astype(kind, copy=False))
        if not fits or (columns.max(axis=1, initial=0) >= self.sizes).any():
            row, decision = (int(i) for i in np.argwhere((chunk < 0) | (chunk >= np.array(self.sizes)))[0])
            raise IndexError(start + row, decision)
        return columns

    def _sum(self, columns: NDArray[np.unsignedinteger], out: NDArray[np.float64]) -> None:
        places = [flat.places(columns) for flat in self._flat]
        out.fill(self.constant)
        reach = self._reach(places) if self.edges else None
        for flat, place in zip(self._flat, places, strict=True):
            if reach is not None:
                place += reach * place.dtype.type(flat.times.shape[1])
            out += flat.times.ravel().take(place, mode="clip")  # every place exists; "clip" only saves the check

    def _reach(self, places: Sequence[NDArray[np.unsignedinteger]]) -> NDArray[np.uint8]:
        moved: Any = sum(f.traffic.take(place, mode="clip") for f, place in zip(self._flat, places, strict=True))
        reach = np.zeros(len(moved), dtype=np.uint8)
        for edge in self.edges:
            reach += moved >= edge
        return reach


@dataclass(frozen=True, slots=True)
class _Flat:
    """A term over one index instead of one for each decision."""

    decisions: tuple[int, ...]
    strides: tuple[int, ...]
    traffic: NDArray[np.float64]  # [entries]; empty where times do not depend on it
    times: NDArray[np.float64]  # [reaches, entries]

    @classmethod
    def of(cls, term: Term, sizes: Sequence[int], reached: slice | None) -> _Flat:
        extents = [sizes[d] for d in term.decisions]
        strides = tuple(math.prod(extents[i + 1 :]) for i in range(len(extents)))
        if reached is None:
            return cls(term.decisions, strides, np.zeros(0), np.ascontiguousarray(term.values).reshape(1, -1))
        values = term.values.reshape(len(term.values), -1)
        return cls(term.decisions, strides, values[0].copy(), np.ascontiguousarray(values[1:][reached]))

    def places(self, columns: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        """The index of each architecture's entry; the integers are large enough to index the times of all reaches."""
        kind: Any = np.uint16 if self.times.size <= 1 << 16 else np.uint32
        place: NDArray[np.unsignedinteger] = np.zeros(columns.shape[1], dtype=kind)
        for d, stride in zip(self.decisions, self.strides, strict=True):
            place += columns[d] * kind(stride)
        return place


def _reached(terms: Sequence[Term], edges: Sequence[int]) -> tuple[list[int], slice | None]:
    """The edges that lie between the least and the most traffic of any architecture, and the reaches they separate."""
    if not edges:
        return [], None
    least = bisect_right(edges, sum(float(np.min(t.values[0])) for t in terms))
    most = bisect_right(edges, sum(float(np.max(t.values[0])) for t in terms))
    return list(edges[least:most]), slice(least, most + 1)


def merge(terms: Sequence[Term], sizes: Sequence[int]) -> list[Term]:
    """Fewer terms with the same sum: each term is added to the one with which it makes the smallest array."""
    merged: list[Term] = []
    for term in sorted(terms, key=lambda t: -t.values.size):
        best, least = -1, 0
        for i, other in enumerate(merged):
            union = set(term.decisions) | set(other.decisions)
            entries = math.prod(sizes[d] for d in union)
            if entries <= max(_MERGED, _entries(other, sizes)) and (best < 0 or entries < least):
                best, least = i, entries
        if best < 0:
            merged.append(term)
        else:
            merged[best] = _add(merged[best], term, sizes)
    return merged


def _entries(term: Term, sizes: Sequence[int]) -> int:
    return math.prod(sizes[d] for d in term.decisions)


def _add(a: Term, b: Term, sizes: Sequence[int]) -> Term:
    union = tuple(sorted(set(a.decisions) | set(b.decisions)))
    return Term(union, _spread(a, union, sizes) + _spread(b, union, sizes))


def _spread(term: Term, union: tuple[int, ...], sizes: Sequence[int]) -> NDArray[np.float64]:
    """The term's array, broadcast over the decisions of `union`."""
    columns = term.values.shape[: term.values.ndim - len(term.decisions)]
    shape = [sizes[d] if d in term.decisions else 1 for d in union]
    return np.broadcast_to(term.values.reshape((*columns, *shape)), (*columns, *(sizes[d] for d in union)))
