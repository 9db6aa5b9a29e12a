"""Tests of hwcost.model.trees: the arrays predict what scikit-learn does, and one thread grows the trees."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from hwcost.model.trees import Settings, Trees


def rows(number: int, kinds: int) -> np.ndarray:
    """Random inputs: a kind, and twelve binned features."""
    rng = np.random.default_rng(0)
    inputs = np.column_stack([rng.integers(kinds, size=number), rng.integers(0, 255, size=(number, 12))])
    inputs[:kinds, 0] = np.arange(kinds)
    return inputs.astype(np.uint8)


@pytest.mark.parametrize("kinds", [1, 3, 60])
def test_the_arrays_predict_the_bits_that_scikit_learn_does(kinds: int) -> None:
    inputs = rows(3000, kinds)
    target, weight = np.sin(inputs[:, 0]) + 0.01 * inputs[:, 1], 1.0 + inputs[:, 2] / 255
    peer = HistGradientBoostingRegressor(
        max_iter=150, learning_rate=0.1, max_leaf_nodes=31, min_samples_leaf=4, l2_regularization=5.0,
        early_stopping=False, random_state=0, categorical_features=[0],
    ).fit(inputs, target, sample_weight=weight)  # fmt: skip
    found = Trees.grow(inputs, target, weight, Settings())
    assert np.array_equal(found.predict(inputs), peer.predict(inputs))
    again = Trees.from_arrays(found.to_arrays())
    assert np.array_equal(again.predict(inputs[::7]), found.predict(inputs)[::7])


def test_one_thread_grows_the_trees_although_scikit_learn_was_not_loaded_before() -> None:
    """Several threads would sum in an order that differs from run to run."""
    script = (
        "from hwcost.model.trees import one_thread\n"
        "with one_thread():\n"
        "    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads\n"
        "    print(_openmp_effective_n_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_arrays_that_describe_no_trees_are_refused() -> None:
    inputs = rows(200, 2)
    arrays = Trees.grow(inputs, inputs[:, 1].astype(float), np.ones(200), Settings(iterations=2)).to_arrays()
    for name, wrong in (("children", arrays["children"] * 0), ("children", arrays["children"] + 10_000)):
        with pytest.raises(ValueError, match=r"fit together|before its children"):
            Trees.from_arrays(arrays | {name: wrong})
    with pytest.raises(KeyError):
        Trees.from_arrays({n: a for n, a in arrays.items() if n != "roots"})
