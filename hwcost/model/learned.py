"""What a residual learned, as values and arrays: a model file keeps them, and they are read back bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwcost.model.features import NAMES, Columns
from hwcost.model.trees import Trees

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_MINIMUM_OF_KIND = 5  # measured kernels of a kind, from which on a kernel of it can be supported
_BINS = 255  # as many as the trees take
MOST_KINDS = 255  # as many categories as the trees take
_GRID = 2.0**20  # features are compared in steps of 1 / _GRID, since CPUs differ in the last bit of a logarithm
_ALL_PAIRS = 1 << 22  # differences of two numbers, up to which no search tree is built


@dataclass(frozen=True, eq=False)
class Bins:
    """Features as numbers of bins, each of which holds about the same weight of the kernels of the fit.

    scikit-learn bins features in the same way, but sorts a column anew for each edge where rows have weights, which
    takes longer than growing the trees. Features that have one value in all kernels of the fit (as the dtype often has)
    tell the trees nothing and are left out.
    """

    edges: Mapping[int, Array]  # column -> the largest value of every bin but the last

    @classmethod
    def of(cls, coded: Array, weight: Array) -> Bins:
        """Bins for coded features [n, features], whose first column, the kind, is not binned."""
        varies = np.flatnonzero(np.ptp(coded[:, 1:], axis=0)) + 1
        return cls({int(column): _edges(coded[:, column], weight) for column in varies})

    def __call__(self, coded: Array) -> NDArray[np.uint8]:
        """[n, 1 + features that vary]: the kind's number, then the bin of each feature."""
        binned = [edges.searchsorted(coded[:, column]) for column, edges in self.edges.items()]
        return np.column_stack([coded[:, 0], *binned]).astype(np.uint8)


def _edges(column: Array, weight: Array) -> Array:
    """Largest values of all bins but the last; midpoints between the values where they are few.

    Where an edge is a value of the fit, it is moved up a little, but no further than half of the way to the next value:
    the bins of the fit stay as they are, and a CPU on which that value comes out a bit larger finds it in its bin. Two
    values of the fit that are neighbouring floats leave no room for that; another CPU may bin them otherwise.
    """
    distinct = np.unique(column)
    if len(distinct) <= _BINS:
        return np.asarray((distinct[1:] + distinct[:-1]) / 2)
    order = np.argsort(column)
    below = np.cumsum(weight[order])
    edges = np.unique(column[order][below.searchsorted(below[-1] * np.arange(1, _BINS) / _BINS)])
    next_value = np.append(distinct, np.inf)[distinct.searchsorted(edges, side="right")]
    moved = edges + np.minimum((next_value - edges) / 2, 1 / _GRID)
    return np.asarray(np.where(moved < next_value, moved, edges))


@dataclass(frozen=True, eq=False)
class Answers:
    """r of each kernel that was measured itself, found by a hash of its coded features."""

    identity: NDArray[np.uint64]  # [measured], ascending
    answer: Array  # [measured]

    @classmethod
    def of(cls, coded: Array, answer: Array) -> Answers:
        """Of kernels with coded features [n, features]; of kernels that look the same, the last one counts."""
        identity, last = np.unique(_identities(coded)[::-1], return_index=True)
        return cls(identity, answer[::-1][last])

    def __call__(self, coded: Array) -> tuple[NDArray[np.bool_], Array]:
        """Which kernels were measured, and r of those; 0 for the others."""
        wanted = _identities(coded)
        place = np.minimum(self.identity.searchsorted(wanted), len(self.identity) - 1)
        known = self.identity[place] == wanted
        return known, np.where(known, self.answer[place], 0.0)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Points, [points, dimensions]; a distance is the largest difference in any dimension."""

    points: Array

    def distance(self, x: Array) -> Array:
        """Distance to the nearest point of each row of x [n, dimensions], [n].

        For a network's kernels all distances are computed, which is quicker than importing SciPy; for many a search
        tree is built. Both give the same.
        """
        if x.size * len(self.points) > _ALL_PAIRS:
            return np.asarray(self.tree.query(x, p=np.inf)[0])
        every = np.abs(x[:, None, 0] - self.points[:, 0])
        for dimension in range(1, x.shape[1]):
            np.maximum(every, np.abs(x[:, None, dimension] - self.points[:, dimension]), out=every)
        return np.asarray(every.min(axis=1))

    @cached_property
    def tree(self) -> cKDTree:
        """A search tree over the points; of several nearest points it always gives the same."""
        from scipy.spatial import cKDTree

        return cKDTree(self.points)


@dataclass(frozen=True, eq=False, kw_only=True)
class Learned:
    """What a fit learned, as values and arrays; all of it is kept in a model file."""

    kinds: tuple[str, ...]  # measured kinds, sorted; a kind's number is its place here
    terms: Mapping[str, Array]  # kind -> (a, b, c, d, e) of eq. (1) of `hwcost.model.residual`; empty with a prior
    terms_of_any: Array  # the same of all kinds together
    medians: Mapping[str, float]  # of r, by kind
    sigmas: Mapping[str, float]  # spread of r, by kind
    sigma_all: float  # spread of r, of all kinds together
    kind: Ints  # [measured] number of each measured kernel's kind
    place: Array  # [measured, dimensions] the features `SUPPORT` of each, most as log2, so that distances are doublings
    bins: Bins
    answers: Answers
    trees: Trees

    @cached_property
    def number(self) -> Mapping[str, int]:
        """Number of each measured kind."""
        return {kind: number for number, kind in enumerate(self.kinds)}

    @cached_property
    def nearby(self) -> Mapping[str, Neighbours]:
        """The measured kernels of each kind that has enough of them."""
        of_kind = {kind: self.place[self.kind == number] for number, kind in enumerate(self.kinds)}
        return {kind: Neighbours(places) for kind, places in of_kind.items() if len(places) >= _MINIMUM_OF_KIND}

    @cached_property
    def everywhere(self) -> Neighbours:
        """The measured kernels of all kinds."""
        return Neighbours(self.place)

    def coded(self, data: Columns) -> Array:
        """Features [n, features] with the kind's number in the first column, NaN for kinds that were not measured."""
        features = data.features.copy()
        features[:, 0] = [self.number.get(kind, np.nan) for kind in data.kinds]
        return features


# -- kernels as numbers --------------------------------------------------------------------------


def _identities(coded: Array) -> NDArray[np.uint64]:
    """[n] hashes of rows of coded features [n, features]; rows that differ once rounded share one once in 2^64.

    The bits of each column are mixed as in the finaliser of MurmurHash3, since few of a short number's bits are set,
    then weighted by odd numbers of their own and summed. (pandas hashes rows too, but takes twenty times as long for
    the 160 kernels of a network.)
    """
    rounded = np.rint(np.ascontiguousarray(coded, dtype=np.float64) * _GRID) + 0.0  # no -0.0, whose bits differ
    bits = rounded.view(np.uint64)
    odd = np.random.default_rng(0).integers(1 << 63, size=coded.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return _mixed((_mixed(bits) * odd).sum(axis=1, dtype=np.uint64))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(33))


# -- as plain values and arrays, for files ---------------------------------------------------------


def to_members(learned: Learned) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(values for JSON, arrays by name) from which `from_members` makes the same again, bit for bit."""
    values = {
        "features": list(NAMES),
        "kinds": list(learned.kinds),
        "terms": {kind: of_kind.tolist() for kind, of_kind in learned.terms.items()},
        "terms_of_any": learned.terms_of_any.tolist(),
        "medians": dict(learned.medians),
        "sigmas": dict(learned.sigmas),
        "sigma_all": learned.sigma_all,
        "binned": list(learned.bins.edges),
        "grid": _GRID,
    }
    edges = list(learned.bins.edges.values())
    arrays: dict[str, NDArray[Any]] = {
        "kind": learned.kind.astype(np.int16),
        "place": np.ascontiguousarray(learned.place.T),  # equal numbers together: a smaller file
        "edges": np.concatenate([*edges, np.zeros(0)]),
        "edge_counts": np.array([len(e) for e in edges], dtype=np.int32),
        "identity": learned.answers.identity,
        "answer": learned.answers.answer,
    }
    arrays |= {f"tree_{name}": array for name, array in learned.trees.to_arrays().items()}
    return values, arrays


def from_members(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Learned:
    """What `to_members` gave.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or does not fit together, or was learned from other
            features.
    """
    if tuple(values["features"]) != NAMES:
        raise ValueError("its trees are of the features of another version; fit it again on its measurements")
    if values.get("grid") != _GRID:
        raise ValueError("its measured kernels are not found by rounded features; fit it again on its measurements")
    ends = np.cumsum(arrays["edge_counts"])
    edges = [arrays["edges"][end - count : end] for end, count in zip(ends, arrays["edge_counts"], strict=True)]
    kinds, kind = tuple(map(str, values["kinds"])), arrays["kind"].astype(np.int64)
    place, identity, answer = arrays["place"].T, arrays["identity"], arrays["answer"]
    whole = len(kind) == len(place) > 0 and len(identity) == len(answer) > 0
    if not whole or kind.min() < 0 or kind.max() >= len(kinds):
        raise ValueError("the arrays of the measured kernels do not fit together")
    trees = Trees.from_arrays({n.removeprefix("tree_"): a for n, a in arrays.items() if n.startswith("tree_")})
    read = 1 + len(values["binned"]) + len(trees.outside)  # the kind, the binned features, one input for each set
    if trees.feature.max() >= read or (len(trees.outside) and trees.outside.shape[1] != len(kinds)):
        raise ValueError("the trees read features that are not there")
    return Learned(
        kinds=kinds,
        terms={str(name): np.array(of_kind, dtype=float) for name, of_kind in values["terms"].items()},
        terms_of_any=np.array(values["terms_of_any"], dtype=float),
        medians={str(name): float(x) for name, x in values["medians"].items()},
        sigmas={str(name): float(x) for name, x in values["sigmas"].items()},
        sigma_all=float(values["sigma_all"]),
        kind=kind,
        place=np.ascontiguousarray(place),
        bins=Bins(dict(zip(map(int, values["binned"]), edges, strict=True))),
        answers=Answers(identity, answer),
        trees=trees,
    )
