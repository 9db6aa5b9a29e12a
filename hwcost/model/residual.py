"""The residual: what a kernel takes over its roofline, learned from measurements.

    t = t_kind * exp(r(x)),    t_kind = a W/P + b Q_weights/B + c Q_read/B + d Q_written/B + e        (1)

t_kind is a roofline without overlap, whose terms are scaled for each kind of kernel: 1/a is the kind's compute
efficiency; b, c and d say how much of its traffic moves, counted at DRAM's bandwidth B (which cache serves a kernel is
left to the trees); e is its launch time. The five coefficients are found by least squares of relative errors, none
below 0, so that t_kind grows with work and traffic. What the kernels of a kind do not determine, such as the price of
weights where few of them have any, is as in the fit of all kinds together.

r are gradient-boosted trees (`hwcost.model.trees`) on the kernel's description x (`hwcost.model.features`). Where
another model is given as a prior, its prediction takes the place of t_kind: t = t_prior * exp(r(x)).

Trees do not extrapolate, so three things depend on how far a kernel lies outside what was measured, in doublings of
the dimension in which it lies farthest (work, traffic, channels, rows, window; see `hwcost.model.features.SUPPORT`):

* A kernel counts as supported where a measured kernel of its kind lies within a factor of 1.7 in every dimension.
  Outside, the stated error grows to the spread of the kind.
* Further than two doublings outside, the trees' answer fades into the median of the kind,

      r = f * r_trees + (1 - f) * r_median,    f = 2 ** -(doublings beyond two),                       (2)

  because the nearest leaf says more of a large convolution than the median of all, most of which are small.
* An unsupported kernel is never predicted to beat its roofline; measured ones may, where a cache serves them better.

A kernel that was measured itself, in a context like this one, is moved from the trees' answer towards its own measured
time: by n / (n + 1) of the way where n networks held it. A kind that was never measured is treated as the kind of the
measured kernel nearest to it in those dimensions, and states an error of a factor e.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwcost.model.features import Columns, support_columns
from hwcost.model.learned import MOST_KINDS, Answers, Bins, Learned
from hwcost.model.trees import Settings, Trees

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_NEAR = 0.75  # doublings: how near the nearest measured kernel must be in every dimension, 2 ** 0.75 = 1.7
_FADE = 2.0  # doublings beyond that until the trees are trusted less
_TERMS_FROM = 15  # kernels of a kind; kinds with fewer share the terms of all
_SHORTEST = 1e-8  # s
_DOUBT = 1.0  # networks that must hold a kernel until half of what the trees leave unexplained is believed
_FAR = 0.3  # log error from which a kernel counts little in the fit of its kind's terms
UNSEEN_SIGMA = 1.0  # log error stated for a kind that was never measured: a factor of e
_TERMS = 5  # of eq. (1)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Arrays of length n."""

    latency: Array  # s
    sigma: Array  # own standard error of log latency (s_i of `hwcost.model.intervals`)
    supported: NDArray[np.bool_]  # inside the measured range
    known: NDArray[np.bool_]  # measured itself, in a context like this one


@dataclass(frozen=True, eq=False)
class Residual:
    """Predicts times of kernels by eq. (1). `Residual()` learned nothing and answers the roofline."""

    learned: Learned | None = None
    prior: Residual | None = None

    @classmethod
    def fit(
        cls,
        data: Columns,
        latency: Array,
        weight: Array,
        networks: Array | None = None,
        *,
        settings: Settings | None = None,
        prior: Residual | None = None,
    ) -> Residual:
        """Learn from measured kernels.

        Args:
            data: the kernels, of length n.
            latency: their times (s), [n].
            weight: how much each counts, [n].
            networks: how many networks held each, [n]; one each where not given.
            settings: of the trees.
            prior: what is known from other measurements; it is refined here.

        Raises:
            ValueError: more kinds than the trees can tell apart.
        """
        terms, terms_of_any = ({}, _NO_TERMS) if prior is not None else _learn_terms(data, latency, weight)
        base = prior.log_latency(data) if prior is not None else _log_of_terms(data, terms, terms_of_any)
        target = np.log(latency) - base
        names = np.array(data.kinds)
        kinds = tuple(map(str, np.unique(names)))
        r = {kind: target[names == kind] for kind in kinds}
        if len(kinds) > MOST_KINDS:
            raise ValueError(
                f"a fit tells at most {MOST_KINDS} kinds of kernel apart, but got {len(kinds)}; "
                "fit on measurements of fewer different networks"
            )
        number = {kind: n for n, kind in enumerate(kinds)}
        coded = data.features.copy()
        coded[:, 0] = [number[kind] for kind in data.kinds]
        bins = Bins.of(coded, weight)
        binned = bins(coded)
        trees = Trees.grow(binned, target, weight, settings or Settings())
        grown = trees.predict(binned)
        held = np.ones(len(grown)) if networks is None else networks
        learned = Learned(
            kinds=kinds,
            terms=terms,
            terms_of_any=terms_of_any,
            medians={kind: float(np.median(values)) for kind, values in r.items()},
            sigmas={kind: max(float(np.std(values)), 0.2) for kind, values in r.items()},
            sigma_all=max(float(np.std(target)), 0.3),
            kind=coded[:, 0].astype(np.int64),
            place=data.features[:, support_columns()],
            bins=bins,
            answers=Answers.of(coded, grown + (target - grown) * held / (held + _DOUBT)),
            trees=trees,
        )
        return cls(learned, prior)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of kernel that were measured."""
        own = self.learned.kinds if self.learned else ()
        return frozenset(own) | (self.prior.kinds if self.prior else frozenset())

    def predict(self, data: Columns, sigma: Mapping[str, float] | None = None) -> Prediction:
        """Latency of kernels, with its error.

        Args:
            data: the kernels.
            sigma: error of each kind inside the measured range, under the name of the kind, and of kernels that were
                measured themselves under `known_as` of it; where not given, the spread of the kind.
        """
        n, learned = len(data.kinds), self.learned
        if learned is None or not n:
            none = np.zeros(n, dtype=bool)
            return Prediction(data.roofline.copy(), np.full(n, UNSEEN_SIGMA), none, none)
        known, _ = learned.answers(learned.coded(data))
        outside = self._outside_of_all(data)
        errors = dict(learned.sigmas) | dict(sigma or {})
        names = [(known_as(k), k) if is_known else (k, k) for k, is_known in zip(data.kinds, known, strict=True)]
        inside = np.array([errors.get(name, errors.get(kind, UNSEEN_SIGMA)) for name, kind in names])
        far = np.array([learned.sigmas.get(k, max(learned.sigma_all, UNSEEN_SIGMA)) for k in data.kinds])
        error = np.where(outside == 0, inside, np.maximum(inside, far))
        latency = np.exp(self.log_latency(data))
        bounded = np.where(outside == 0, latency, np.maximum(latency, data.roofline))
        return Prediction(bounded, error, outside == 0, known)

    def log_latency(self, data: Columns) -> Array:
        """Log of eq. (1) with eq. (2), before any bound; of something that has learned."""
        assert self.learned is not None
        if self.prior is not None:
            base = self.prior.log_latency(data)
        else:
            akin = self._akin(data)
            base = _log_of_terms(akin, self.learned.terms, self.learned.terms_of_any)
        return base + self._correction(data)

    def _correction(self, data: Columns) -> Array:
        """r(x) of eq. (2)."""
        learned, akin = self.learned, self._akin(data)
        assert learned is not None
        outside = self._outside(akin)
        median = np.array([learned.medians[k] for k in akin.kinds])
        coded = learned.coded(akin)
        known, found = learned.answers(coded)
        if not known.all():
            found[~known] = learned.trees.predict(learned.bins(coded[~known]))
        fade = np.exp2(-np.maximum(outside - _FADE, 0.0))
        return np.asarray(fade * found + (1 - fade) * median)

    def _akin(self, data: Columns) -> Columns:
        """The same kernels; one of a kind that was not measured gets the kind of the measured kernel nearest to it."""
        learned = self.learned
        assert learned is not None
        new = np.array([k not in learned.number for k in data.kinds], dtype=bool)
        if not new.any():
            return data
        _, nearest = learned.everywhere.tree.query(data.features[new][:, support_columns()], p=np.inf)
        names = np.array(data.kinds, dtype=object)
        names[new] = [learned.kinds[number] for number in learned.kind[nearest]]
        return replace(data, kinds=tuple(str(name) for name in names))

    def _outside_of_all(self, data: Columns) -> Array:
        """Doublings to the nearest measured kernel of the kind, whether measured here or for a prior."""
        own = self._outside(data)
        return own if self.prior is None else np.minimum(own, self.prior._outside_of_all(data))

    def _outside(self, data: Columns) -> Array:
        """Doublings from each kernel to the range around the measured kernels of its kind, 0 inside it; infinite for a
        kind that was hardly measured."""
        assert self.learned is not None
        x = data.features[:, support_columns()]
        outside = np.full(len(data.kinds), np.inf)
        kinds = np.array(data.kinds)
        for kind in set(data.kinds) & self.learned.nearby.keys():
            rows = kinds == kind
            outside[rows] = np.maximum(self.learned.nearby[kind].distance(x[rows]) - _NEAR, 0.0)
        return outside


def known_as(kind: str) -> str:
    """Under which name the error of measured kernels of a kind is kept."""
    return f"{kind}, measured"


# -- the terms of eq. (1) ------------------------------------------------------------------------

_NO_TERMS = np.array([1.0, 1.0, 1.0, 1.0, 0.0])


def _terms(data: Columns) -> Array:
    """The five terms of eq. (1) (s), [n, 5], before their coefficients; the launch is counted in microseconds, to be of
    the size of the others."""
    return np.column_stack([data.compute_time, data.streams, np.full(len(data.kinds), 1e-6)])


def _log_of_terms(data: Columns, terms: Mapping[str, Array], terms_of_any: Array) -> Array:
    """Log of t_kind of eq. (1), [n]."""
    coefficients = np.array([terms.get(k, terms_of_any) for k in data.kinds]).reshape(-1, _TERMS)
    return np.asarray(np.log(np.maximum((_terms(data) * coefficients).sum(axis=1), _SHORTEST)))


def _learn_terms(data: Columns, latency: Array, weight: Array) -> tuple[dict[str, Array], Array]:
    """Coefficients of eq. (1): by kind, for kinds with enough kernels, and of all kinds together."""
    kinds, relative = np.array(data.kinds), _terms(data) / latency[:, None]
    none = np.zeros((0, _TERMS)), np.zeros(0)
    of_any = _least_squares(relative, weight, none)
    usual = np.diag(np.sqrt(np.average(relative**2, axis=0, weights=weight)))
    # "each coefficient is that of all kinds": one equation a term, which counts about as much as one kernel
    like_any = usual, usual @ of_any
    terms = {}
    for kind in set(data.kinds):
        rows = kinds == kind
        if rows.sum() >= _TERMS_FROM:
            terms[kind] = _least_squares(relative[rows], weight[rows], like_any)
    return terms, of_any


def _least_squares(relative: Array, weight: Array, prior: tuple[Array, Array]) -> Array:
    """Coefficients >= 0 with which the terms, as shares of the measured time, sum to 1; [5].

    The fit is repeated, and each time kernels that it missed by far count less. `prior` is (left sides, right sides) of
    further equations, which decide what the kernels leave open.
    """
    from scipy.optimize import nnls

    robust = weight.copy()
    for _ in range(3):
        root = np.sqrt(robust)
        found, _ = nnls(np.vstack([relative * root[:, None], prior[0]]), np.append(root, prior[1]))
        off = np.log(np.maximum(relative @ found, 1e-3))
        robust = weight / (1 + (off / _FAR) ** 2)
    return np.asarray(found)
