"""The residual: what a kernel takes over its roofline, learned from measurements.

    t = t_kind * exp(r(x)),    t_kind = a W/P + b Q_weights/B + c Q_read/B + d Q_written/B + e        (1)

t_kind is the roofline with nothing overlapped, each term with what this kind of kernel needs of it: 1/a
is the kind's compute efficiency, b to d say how often its traffic moves and how much of it comes from
caches (B is DRAM's; which level serves a kernel is left to the trees), e is its launch. The five are
found by least squares of relative errors, none below 0, so that t_kind grows with work and traffic; what
a kind's kernels do not tell, such as the price of weights where few have any, is as with all kinds. r
are gradient-boosted trees on the kernel's description x, normalised by the device. Where measurements
of another machine are given as prior knowledge, its t_kind and residual come first:
t = t_prior * exp(r(x)).

Trees do not extrapolate. A kernel counts as measured where a measured kernel of its kind lies within a
factor of 1.7 of it in every dimension (work, traffic, channels, rows, window); outside, the error that
is stated grows to the spread of the kind. Further than two doublings beyond that, the trees' answer
fades into the median of the kind,

    r = f * r_trees + (1 - f) * r_median,    f = 2 ** -(doublings beyond those),    (2)

since the nearest leaf says more of a large convolution than the median of all, most of them small. Out
there no kernel is taken to beat its roofline, which measured ones may where a cache serves them better.
A kernel that was measured itself, in a context like this one, is moved to its own time by n / (n + 1) of the way
where n networks held it.
A kind that was never measured is taken for the kind of the measured kernel nearest to it in those
dimensions (a matrix product is a matrix product by whatever name), and states an error of a factor e.
The description is that of `hwcost.model.features`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import ThreadpoolController

from hwcost.model.features import Columns, support_columns

Array = NDArray[np.float64]

_REACH = 0.75  # doublings: how near the nearest measured kernel must be in every dimension, 2 ** 0.75 = 1.7
_FADE = 2.0  # doublings beyond that until the trees are trusted less
_MINIMUM_OF_KIND = 5
_TERMS_FROM = 15  # kernels of a kind, fewer share the terms of all
_SHORTEST = 1e-8  # s
_DOUBT = 1.0  # networks that must hold a kernel until half of what the trees do not say of it is believed
_FAR = 0.3  # log error from which a kernel says little of its kind's terms
_PARALLEL_FROM = 20_000  # rows
_BINS = 255  # as many as the trees take
UNSEEN_SIGMA = 1.0  # log error stated for a kind that was never measured: a factor of e


@dataclass(frozen=True, slots=True)
class Prediction:
    """Arrays of length n."""

    latency: Array  # s
    sigma: Array  # standard error of log latency
    supported: NDArray[np.bool_]
    known: NDArray[np.bool_]  # measured itself, in a context like this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the trees are grown. Chosen by cross-validation on the training side."""

    iterations: int = 150
    learning_rate: float = 0.1
    leaves: int = 31
    minimum_leaf: int = 4
    l2: float = 5.0
    seed: int = 0


class Bins:
    """Features as the numbers of the bins that they fall into, of which each holds the same weight.

    scikit-learn would bin them so too, but sorts a column anew for each edge where rows have weights, which
    takes longer than growing the trees. The first column, the kind, stays as it is; those in which all kernels
    are alike, as dtypes often are, tell trees nothing and are left out.
    """

    def __init__(self, features: Array, weight: Array) -> None:
        varies = np.flatnonzero(np.ptp(features[:, 1:], axis=0)) if len(features) else np.zeros(0, dtype=np.int64)
        self._edges = {int(place): _edges(features[:, place], weight) for place in varies + 1}

    def __call__(self, features: Array) -> Array:
        """[n, features that vary], each in its bin."""
        binned = [edges.searchsorted(features[:, place]) for place, edges in self._edges.items()]
        return np.column_stack([features[:, 0], *binned])


def _edges(column: Array, weight: Array) -> Array:
    """Largest values of all bins but the last; midpoints between the values where they are few."""
    distinct = np.unique(column)
    if len(distinct) <= _BINS:
        return np.asarray((distinct[1:] + distinct[:-1]) / 2)
    order = np.argsort(column)
    below = np.cumsum(weight[order])
    return np.unique(column[order][below.searchsorted(below[-1] * np.arange(1, _BINS) / _BINS)])


class Answers:
    """r of each kernel that was measured, the trees' and what is believed of what they leave, found by its coded
    features."""

    def __init__(self, coded: Array, answers: Array) -> None:
        # of kernels that look the same, the last one counts
        self._known, last = np.unique(_identities(coded)[::-1], return_index=True)
        self._answers = answers[::-1][last]

    def __call__(self, coded: Array) -> tuple[NDArray[np.bool_], Array]:
        """Which kernels were measured, and r of them: 0 of the others."""
        wanted = _identities(coded)
        place = np.minimum(self._known.searchsorted(wanted), len(self._known) - 1)
        known = self._known[place] == wanted
        return known, np.where(known, self._answers[place], 0.0)


class Residual:
    """Gradient boosting on log(t / t_kind), eq. (1)."""

    def __init__(self, settings: Settings | None = None, prior: Residual | None = None) -> None:
        self.settings = settings or Settings()
        self.prior = prior
        self._terms: dict[str, Array] = {}  # kind -> (a, b, c, d, e) of eq. (1)
        self._terms_of_any = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
        self._vocabulary: dict[str, int] = {}
        self._medians: dict[str, float] = {}
        self._sigmas: dict[str, float] = {}
        self._measured: dict[str, cKDTree] = {}
        self._everything: tuple[cKDTree, NDArray[np.str_]] | None = None  # of all kinds, and which
        self._sigma_all = UNSEEN_SIGMA
        self._trees: HistGradientBoostingRegressor | None = None
        self._bins = Bins(np.zeros((0, 0)), np.zeros(0))
        self._answers = Answers(np.zeros((0, 0)), np.zeros(0))

    def fit(self, data: Columns, latency: Array, weight: Array, networks: Array | None = None) -> Residual:
        """Fit on measured kernels; `latency` in seconds, `weight` their importance, `networks` how many hold each."""
        if self.prior is None:
            self._learn_terms(data, latency, weight)
        target = np.log(latency) - self._base(data)
        names = np.array(data.kinds)
        place = data.features[:, support_columns()]
        self._vocabulary = {str(kind): number for number, kind in enumerate(np.unique(names))}
        for kind in self._vocabulary:
            self._learn_kind(kind, place[names == kind], target[names == kind])
        self._everything = cKDTree(place), names
        self._sigma_all = max(float(np.std(target)), 0.3)
        s = self.settings
        self._trees = HistGradientBoostingRegressor(
            max_iter=s.iterations,
            learning_rate=s.learning_rate,
            max_leaf_nodes=s.leaves,
            min_samples_leaf=s.minimum_leaf,
            l2_regularization=s.l2,
            early_stopping=False,
            random_state=s.seed,
            categorical_features=[0],
        )
        coded = self._coded(data)
        self._bins = Bins(coded, weight)
        binned = self._bins(coded)
        with _threads(len(target)):
            self._trees.fit(binned, target, sample_weight=weight)
            grown = self._trees.predict(binned)
        held = np.ones(len(grown)) if networks is None else networks
        self._answers = Answers(coded, grown + (target - grown) * held / (held + _DOUBT))
        return self

    def _learn_terms(self, data: Columns, latency: Array, weight: Array) -> None:
        kinds, design = np.array(data.kinds), _terms(data)
        relative = design / latency[:, None]
        none = np.zeros((0, 5)), np.zeros(0)
        self._terms_of_any = _least_squares(relative, weight, none)
        usual = np.diag(np.sqrt(np.average(relative**2, axis=0, weights=weight)))
        like_any = usual, usual @ self._terms_of_any  # one kernel's worth for each term
        for kind in set(data.kinds):
            rows = kinds == kind
            if rows.sum() >= _TERMS_FROM:
                self._terms[kind] = _least_squares(relative[rows], weight[rows], like_any)

    def _learn_kind(self, kind: str, place: Array, target: Array) -> None:
        self._medians[kind] = float(np.median(target))
        self._sigmas[kind] = max(float(np.std(target)), 0.2)
        if len(target) >= _MINIMUM_OF_KIND:
            self._measured[kind] = cKDTree(place)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of kernel that were measured."""
        return frozenset(self._vocabulary) | (self.prior.kinds if self.prior else frozenset())

    def predict(self, data: Columns, sigma: Mapping[str, float] | None = None) -> Prediction:
        """Latency of kernels; `sigma` gives the error of each kind inside the measured range, under the name of
        the kind, and of kernels that were measured themselves, under `known_as` of it."""
        n = len(data.kinds)
        if self._trees is None or not n:
            none = np.zeros(n, dtype=bool)
            return Prediction(data.roofline.copy(), np.full(n, UNSEEN_SIGMA), none, none)
        known, _ = self._answers(self._coded(data))
        own = self._outside(data)
        outside = own if self.prior is None else np.minimum(own, self.prior._outside_all(data))
        errors = dict(self._sigmas) | dict(sigma or {})
        names = [(known_as(k), k) if is_known else (k, k) for k, is_known in zip(data.kinds, known, strict=True)]
        inside = np.array([errors.get(name, errors.get(kind, UNSEEN_SIGMA)) for name, kind in names])
        far = np.array([self._sigmas.get(k, max(self._sigma_all, UNSEEN_SIGMA)) for k in data.kinds])
        error = np.where(outside == 0, inside, np.maximum(inside, far))
        latency = np.exp(self._base(data) + self._correction(data, own))
        bounded = np.where(outside == 0, latency, np.maximum(latency, data.roofline))
        return Prediction(bounded, error, outside == 0, known)

    def _base(self, data: Columns) -> Array:
        """Log of what is known before the trees: t_kind, or what the prior makes of the kernels."""
        if self.prior is not None:
            return self.prior._base(data) + self.prior._correction(data, self.prior._outside(data))
        coefficients = np.array([self._terms.get(k, self._terms_of_any) for k in self._akin(data).kinds])
        return np.asarray(np.log(np.maximum((_terms(data) * coefficients).sum(axis=1), _SHORTEST)))

    def _correction(self, data: Columns, outside: Array) -> Array:
        """r(x) of eq. (2), for kernels that are `_outside` by so much."""
        if self._trees is None:
            return np.zeros(len(data.kinds))
        akin = self._akin(data)
        if akin is not data:
            outside = self._outside(akin)
        median = np.array([self._medians[k] for k in akin.kinds])
        coded = self._coded(akin)
        known, found = self._answers(coded)
        if not known.all():
            with _threads(int(np.count_nonzero(~known))):
                found[~known] = self._trees.predict(self._bins(coded[~known]))
        fade = np.exp2(-np.maximum(outside - _FADE, 0.0))
        return np.asarray(fade * found + (1 - fade) * median)

    def _akin(self, data: Columns) -> Columns:
        """The same kernels, those of a kind that was not measured by the name of the nearest one that was."""
        new = np.array([k not in self._vocabulary for k in data.kinds], dtype=bool)
        if self._everything is None or not new.any():
            return data
        tree, kinds = self._everything
        _, nearest = tree.query(data.features[new][:, support_columns()], p=np.inf)
        names = np.array(data.kinds, dtype=object)
        names[new] = kinds[nearest]
        return replace(data, kinds=tuple(str(name) for name in names))

    def _coded(self, data: Columns) -> Array:
        features = data.features.copy()
        features[:, 0] = [self._vocabulary.get(k, np.nan) for k in data.kinds]
        return features

    def _outside_all(self, data: Columns) -> Array:
        """The same of whichever reaches furthest: this, its prior, or that one's."""
        own = self._outside(data)
        return own if self.prior is None else np.minimum(own, self.prior._outside_all(data))

    def _outside(self, data: Columns) -> Array:
        """Doublings from each kernel to where the measured ones of its kind reach; infinite for a kind
        that was not measured."""
        x = data.features[:, support_columns()]
        outside = np.full(len(data.kinds), np.inf)
        kinds = np.array(data.kinds)
        for kind, measured in self._measured.items():
            rows = kinds == kind
            if rows.any():
                nearest, _ = measured.query(x[rows], p=np.inf)
                outside[rows] = np.maximum(nearest - _REACH, 0.0)
        return outside


def _threads(rows: int) -> AbstractContextManager[object]:
    """One thread for small data: waking the others costs more than they bring, most of all on a
    machine that is busy with something else."""
    return one_thread() if rows < _PARALLEL_FROM else nullcontext()


def one_thread() -> AbstractContextManager[object]:
    """No threads of the trees' own."""
    limited: AbstractContextManager[object] = _pools().limit(limits=1, user_api="openmp")
    return limited


@lru_cache(maxsize=1)
def _pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded; finding them takes milliseconds."""
    return ThreadpoolController()


def known_as(kind: str) -> str:
    """Under which name the error of measured kernels of a kind is kept."""
    return f"{kind}, measured"


def _terms(data: Columns) -> Array:
    """The five terms of eq. (1) (s), [n, 5]; that of the launch is a microsecond, to be of their size."""
    return np.column_stack([data.compute_time, data.streams, np.full(len(data.kinds), 1e-6)])


def _identities(coded: Array) -> NDArray[np.uint64]:
    """Numbers that are equal for equal kernels in equal context, and for others once in 2^64; [n].

    The bits of each column are mixed as in the finaliser of MurmurHash3, since few of a short number's bits are set,
    then weighted by odd numbers of their own and summed. (pandas hashes rows too, in twenty times as long for the
    160 kernels of a network.)
    """
    bits = np.ascontiguousarray(coded, dtype=np.float64).view(np.uint64)
    odd = np.random.default_rng(0).integers(1 << 63, size=coded.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return _mixed((_mixed(bits) * odd).sum(axis=1, dtype=np.uint64))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(33))


def _least_squares(relative: Array, weight: Array, prior: tuple[Array, Array]) -> Array:
    """Coefficients >= 0 for which the terms, as shares of what was measured, sum to 1; kernels that are far off
    count less each time. `prior` are equations that hold besides: what a kind's kernels do not tell, such as the
    price of weights where few have any, is then that of all kinds."""
    robust = weight.copy()
    for _ in range(3):
        root = np.sqrt(robust)
        found, _ = nnls(np.vstack([relative * root[:, None], prior[0]]), np.append(root, prior[1]))
        off = np.log(np.maximum(relative @ found, 1e-3))
        robust = weight / (1 + (off / _FAR) ** 2)
    return np.asarray(found)
