"""Tests of the surrogate of ArchitectureSampler: the views, the Gaussian process, the expected improvement."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from hwcost.search.encoding import Encoder, features_of
from hwcost.search.ranking import area_improvement
from hwcost.search.surrogate import Settings, Surrogate, expected_improvement, settings, warp
from hwcost.spaces.nas_bench_201 import NasBench201
from hwcost.spaces.tiny_cnn import TinyCNN


class TestSurrogate:
    """The Gaussian process and the expected improvement."""

    def views(self, n: int) -> tuple[list[dict[str, Any]], Any]:
        rng = np.random.default_rng(0)
        points = [
            {"a": str(rng.integers(3)), "b": str(rng.integers(3)), "w": int(rng.integers(1, 9))} for _ in range(n)
        ]
        distributions: dict[str, Any] = {
            "a": optuna.distributions.CategoricalDistribution(("0", "1", "2")),
            "b": optuna.distributions.CategoricalDistribution(("0", "1", "2")),
            "w": optuna.distributions.IntDistribution(1, 8),
        }
        costs = np.array([p["w"] + 1.0 for p in points])
        return points, Encoder(distributions, lambda p: {"parity": p["w"] % 2})(points, costs)

    def test_distance_is_the_number_of_different_categories(self) -> None:
        points, views = self.views(20)
        for i in range(1, 20):
            different = (points[0]["a"] != points[i]["a"]) + (points[0]["b"] != points[i]["b"])
            far = abs(points[0]["w"] - points[i]["w"]) / 7
            assert np.abs(views.values[0] - views.values[i]).sum() / 2 == pytest.approx(different + far)

    def test_parameters_with_the_same_choices_are_counted_together(self) -> None:
        points, views = self.views(5)
        for point, row in zip(points, views.counts, strict=True):
            assert row.tolist() == [(point["a"] == c) + (point["b"] == c) for c in "012"]

    def test_it_agrees_with_the_textbook_formula(self) -> None:
        """R&W eq. 2.25 and 2.26, by a plain inverse, for one setting."""
        _, views = self.views(8)
        z = np.linspace(-1, 1, 5)
        s = Settings((1.0, 0.5, 0.5, 1.0), (2.0, 1.0, 1.0, 0.5), 0.01)
        process, at = Surrogate(views[slice(0, 5)], z, [s]), views[slice(5, 8)]
        mean, deviation = process.expect(lambda m, _: m, at), process.expect(lambda _, d: d, at)

        def k(i: int, j: int) -> float:
            d1 = np.abs(views.values[i] - views.values[j]).sum() / 2
            d2 = ((views.counts[i] - views.counts[j]) ** 2).sum()
            d3 = ((views.cost[i] - views.cost[j]) ** 2).sum()
            d4 = ((views.features[i] - views.features[j]) ** 2).sum()
            parts = np.exp(-d1 / 2), 0.5 * np.exp(-d2 / 2), 0.5 * np.exp(-d3 / 2), np.exp(-d4 / (2 * 0.5**2))
            return float(sum(parts) / 3)

        gram = np.array([[k(i, j) for j in range(5)] for i in range(5)]) + (0.01 + 1e-8) * np.eye(5)
        inverse = np.linalg.inv(gram)
        variance = z @ inverse @ z / 5
        for i in range(3):
            row = np.array([k(5 + i, j) for j in range(5)])
            assert mean[i] == pytest.approx(row @ inverse @ z)
            assert deviation[i] ** 2 == pytest.approx(variance * (1 - row @ inverse @ row))

    @given(st.floats(-2, 2), st.floats(0.1, 2), st.floats(-2, 2))
    def test_expected_improvement_is_the_integral_it_stands_for(
        self, mean: float, deviation: float, best: float
    ) -> None:
        by_hand, _ = quad(lambda z: (z - best) * norm.pdf(z, mean, deviation), best, best + 25)
        got = expected_improvement(np.array([mean]), np.array([deviation]), best)[0]
        assert got == pytest.approx(by_hand, abs=1e-6)

    def test_warping_keeps_the_order_and_spreads_the_best(self) -> None:
        z = warp(np.array([10.0, 80.0, 85.0, 88.0, 88.2]))
        assert (np.diff(z) > 0).all()
        assert (z[4] - z[2]) / (z[1] - z[0]) > 10 * (88.2 - 85) / (80 - 10)  # the last three points matter
        assert not warp(np.array([1.0, 1.0])).any()

    def test_area_improvement_favours_what_is_cheap_where_nothing_cheap_is_known(self) -> None:
        """Two candidates with the same prediction; accurate networks were trained at cost 2 and above only."""
        prediction = np.zeros(2), np.ones(2)
        levels = np.array([1.0, 2.0, 3.0])
        cheap, expensive = area_improvement(
            *prediction, np.array([1.0, 3.0]), np.array([1.0, 0.0]), np.array([2.0, 2.5]), levels
        )
        assert cheap > expensive


class TestFeatures:
    """Features that a space gives its architectures, beyond their parameters."""

    def test_they_are_found_where_build_is_a_spaces_method(self) -> None:
        assert features_of(NasBench201().suggest) is not None
        assert features_of(lambda trial: {}) is None

    def test_a_space_without_features_gives_none_that_weigh(self) -> None:
        """Costs of 1, 2 and 3 s; views without columns have no weight in the kernel."""
        encode = Encoder({"w": optuna.distributions.IntDistribution(1, 8)}, features_of(TinyCNN().suggest))
        views = encode([{"w": 1}, {"w": 4}, {"w": 8}], np.array([1.0, 2.0, 3.0]))
        assert views.features.shape[0] == 3
        drawn = settings(np.random.default_rng(0), views)
        assert views.features.shape[1] or not any(s.weights[3] for s in drawn)
        assert not any(s.weights[1] for s in drawn)  # no other parameter has the same choices

    @pytest.mark.parametrize("same", [("100210", "123210"), ("000100", "044100")])
    def test_cells_that_are_one_network_have_the_same_features(self, same: tuple[str, str]) -> None:
        """Node 2 leads nowhere in either, since edge 2->3, the last digit, carries none."""
        a, b = (NasBench201.features(NasBench201.from_digits(d)) for d in same)
        assert a == b

    @pytest.mark.parametrize("digits", ["123210", "020301", "213423", "002203", "100044"])
    def test_a_convolution_is_alive_where_the_real_network_sends_it_a_gradient(self, digits: str) -> None:
        params = NasBench201.from_digits(digits)
        network = NasBench201().build(params)
        network(torch.rand(2, 3, 32, 32)).sum().backward()
        edges = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and ".edge." in name]
        told = NasBench201.features(params)
        for kernel, op in ((1, "conv1x1"), (3, "conv3x3")):
            reached = sum(m.kernel_size == (kernel, kernel) and _moved(m) for m in edges)
            assert reached == 15 * told[op]  # every cell of the fifteen is the same


def _moved(convolution: nn.Conv2d) -> bool:
    """Whether training would change its weights."""
    return convolution.weight.grad is not None and bool(convolution.weight.grad.any())
