"""Gradient-boosted regression trees as plain arrays: grown by scikit-learn, predicted without it.

A cost model's file holds these arrays, so that a model predicts the same bits in every process, whatever version of
scikit-learn is installed, and without unpickling anything.

The trees are those of `sklearn.ensemble.HistGradientBoostingRegressor`. An input is a row of small whole numbers:
the number of a category first, then for each feature the bin that it falls into. A prediction is

    baseline + sum over trees of the value of the leaf that the row reaches                    (1)

added in the order in which the trees were grown, as scikit-learn does, so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import ThreadpoolController

Array = NDArray[np.float64]
_ROWS = 1 << 10  # rows that are followed through all trees at once: what they touch stays in a cache
_CHECKED = 256  # rows for which a grown tree's arrays are compared with scikit-learn's own prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the trees are grown. Chosen by cross-validation on the training side."""

    iterations: int = 150
    learning_rate: float = 0.1
    leaves: int = 31
    minimum_leaf: int = 4
    l2: float = 5.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Trees:
    """The nodes of all trees in one set of arrays, [nodes]; inputs are uint8 arrays [rows, 1 + features].

    A node sends a row to its left child where ``input[feature] <= threshold``. A node that splits by category does so
    by an extra input, which is 0 where the row's category is in the node's set and 1 elsewhere; these inputs follow
    the others, one for each distinct set. A leaf is its own child on both sides.
    """

    baseline: float
    roots: NDArray[np.int32]  # [trees]
    feature: NDArray[np.int32]  # [nodes]
    threshold: NDArray[np.uint8]  # [nodes]
    children: NDArray[np.int32]  # [nodes, 2]: left, right
    value: Array  # [nodes], of leaves
    outside: NDArray[np.uint8]  # [sets, categories]: 0 where the category is in the set, 1 where it is not

    @classmethod
    def grow(cls, inputs: NDArray[np.uint8], target: Array, weight: Array, settings: Settings) -> Trees:
        """Grow trees on rows of `inputs`, [rows, 1 + features], with their `target` and `weight`, [rows].

        One thread grows them: several would add up gradients in an order that differs from run to run.

        Raises:
            RuntimeError: scikit-learn predicts something else than the arrays that were read from its trees.
        """
        from sklearn.ensemble import HistGradientBoostingRegressor

        grown = HistGradientBoostingRegressor(
            max_iter=settings.iterations,
            learning_rate=settings.learning_rate,
            max_leaf_nodes=settings.leaves,
            min_samples_leaf=settings.minimum_leaf,
            l2_regularization=settings.l2,
            early_stopping=False,
            random_state=settings.seed,
            categorical_features=[0],
        )
        with one_thread():
            grown.fit(inputs, target, sample_weight=weight)
            trees = cls._of(grown, int(inputs[:, 0].max()) + 1, inputs.shape[1])
            if not np.array_equal(grown.predict(inputs[:_CHECKED]), trees.predict(inputs[:_CHECKED])):
                raise RuntimeError("this version of scikit-learn keeps its trees in another form; please report it")
        return trees

    @classmethod
    def _of(cls, grown: HistGradientBoostingRegressor, categories: int, inputs: int) -> Trees:
        sets: dict[bytes, int] = {}
        first, parts = 0, list[dict[str, NDArray[Any]]]()
        roots = []
        for (predictor,) in grown._predictors:
            nodes = predictor.nodes
            leaf, split = nodes["is_leaf"].astype(bool), nodes["is_categorical"].astype(bool)
            own = np.arange(len(nodes))
            feature = np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32)
            threshold = np.floor(np.where(leaf | split, 0.0, nodes["num_threshold"])).astype(np.uint8)
            for node in np.flatnonzero(split & ~leaf):
                inside = _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]], categories)
                feature[node] = inputs + sets.setdefault(inside.tobytes(), len(sets))
            children = [np.where(leaf, own, nodes[side]) + first for side in ("left", "right")]
            columns: dict[str, NDArray[Any]] = {
                "feature": feature,
                "threshold": threshold,
                "children": np.column_stack(children).astype(np.int32),
                "value": nodes["value"].astype(float),
            }
            parts.append(columns)
            roots.append(first)
            first += len(nodes)
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        members = [np.frombuffer(inside, dtype=bool) for inside in sets]
        outside = (~np.array(members, dtype=bool).reshape(len(sets), categories)).astype(np.uint8)
        baseline = float(np.asarray(grown._baseline_prediction).ravel()[0])
        return cls(baseline, np.array(roots, dtype=np.int32), outside=outside, **joined)

    def predict(self, inputs: NDArray[np.uint8]) -> Array:
        """Eq. (1) of rows [rows, 1 + features], [rows]."""
        found = np.empty(len(inputs))
        for start in range(0, len(inputs), _ROWS):
            self._predict(inputs[start : start + _ROWS], found[start : start + _ROWS])
        return found

    def _predict(self, inputs: NDArray[np.uint8], out: Array) -> None:
        rows = len(inputs)
        in_set = self.outside[:, inputs[:, 0]]
        flat = np.ascontiguousarray(np.vstack([inputs.T, in_set])).ravel()
        row = np.arange(rows, dtype=np.int32)
        node = np.repeat(self.roots[:, None], rows, axis=1)  # [trees, rows]
        children = self.children.ravel()
        for _ in range(self._depth):
            beyond = flat.take(self.feature.take(node) * np.int32(rows) + row) > self.threshold.take(node)
            node = children.take(2 * node + beyond)
        out.fill(self.baseline)
        for of_tree in self.value.take(node):
            out += of_tree

    @cached_property
    def _depth(self) -> int:
        """Steps after which every row is at a leaf: the most splits between a root and a leaf, at least 1."""
        level, depth = self.roots, 0
        while True:
            below = np.unique(self.children[level])
            below = below[self.children[below, 0] != below]  # leaves need no further step
            depth += 1
            if not len(below):
                return depth
            level = below

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays, by name."""
        return {
            "baseline": np.array([self.baseline]), "roots": self.roots, "feature": self.feature,
            "threshold": self.threshold, "children": self.children, "value": self.value, "outside": self.outside,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Trees:
        """What `to_arrays` gave.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays do not describe trees.
        """
        names = ("roots", "feature", "threshold", "children", "value", "outside")
        found = cls(float(arrays["baseline"][0]), **{name: arrays[name] for name in names})
        nodes = len(found.feature)
        whole = found.children.shape == (nodes, 2) and found.threshold.shape == found.value.shape == (nodes,)
        if not whole or not nodes or found.children.min() < 0 or found.children.max() >= nodes:
            raise ValueError("the arrays of the trees do not fit together")
        if not len(found.roots) or found.roots.min() < 0 or found.roots.max() >= nodes or found.feature.min() < 0:
            raise ValueError("the arrays of the trees do not fit together")
        parents = np.arange(nodes)[:, None]
        if not ((found.children == parents).all(axis=1) | (found.children > parents).all(axis=1)).all():
            raise ValueError("a node of a tree must come before its children")
        return found


def _members(bits: NDArray[np.uint32], categories: int) -> NDArray[np.bool_]:
    """Which of the categories a set of 256 bits holds."""
    held = np.unpackbits(bits.astype("<u4").view(np.uint8), bitorder="little")
    return held[:categories].astype(bool)


def one_thread() -> AbstractContextManager[object]:
    """A context manager: trees that are grown inside it are grown by one thread."""
    limited: AbstractContextManager[object] = _pools().limit(limits=1, user_api="openmp")
    return limited


@lru_cache(maxsize=1)
def _pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded, those of scikit-learn among them; finding them takes
    milliseconds."""
    import sklearn.ensemble  # noqa: F401 - its thread pool must be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
