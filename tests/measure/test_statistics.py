"""Tests of hwcost.measure.statistics: worked numbers, a resampling oracle, laws, and coverage."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.measure.statistics import COVERAGE, Z, bootstrap_weights, latency_and_spread, low_rank, summarise

times = st.lists(st.floats(1e-6, 1e2), min_size=2, max_size=30)


@pytest.mark.parametrize(("rounds", "rank"), [(1, 1), (8, 1), (10, 1), (11, 2), (20, 2), (21, 3)])
def test_the_low_quantile_is_the_least_of_ten(rounds: int, rank: int) -> None:
    assert low_rank(rounds) == rank


def test_an_interval_of_z_standard_deviations_covers_what_it_should() -> None:
    assert NormalDist().inv_cdf((1 + COVERAGE) / 2) == pytest.approx(Z, abs=5e-4)


@pytest.mark.parametrize("rounds", [2, 5, 10, 13, 24])
def test_the_exact_bootstrap_agrees_with_resampling(rounds: int) -> None:
    drawn = np.random.default_rng(0).integers(rounds, size=(40_000, rounds - 1))
    kth = np.sort(drawn, axis=1)[:, low_rank(rounds) - 1]
    frequency = np.bincount(kth, minlength=rounds) / len(drawn)
    np.testing.assert_allclose(bootstrap_weights(rounds), frequency, atol=0.01)


def test_worked_spread() -> None:
    # Ten rounds 1.00, 1.01 ... 1.09: the latency is 1.00; the bootstrap gives at least the j-th smallest
    # with probability (1 - (j-1)/10)^9: 0.39 for the second, 0.13 for the third, 0.04 for the fourth,
    # so 90 % of it lies within the third, 2 % above.
    low, spread = latency_and_spread(np.arange(100, 110)[:, None] / 100)
    assert low[0] == 1.0
    assert spread[0] == pytest.approx(0.02)


def test_one_round_says_nothing_of_its_spread() -> None:
    assert latency_and_spread(np.array([[1.0]]))[1][0] == math.inf


@given(times, st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(values: list[float], scale: float) -> None:
    column = np.array(values)[:, None]
    (low, spread), (scaled, same) = latency_and_spread(column), latency_and_spread(column * scale)
    np.testing.assert_allclose(scaled, low * scale, rtol=1e-9)
    np.testing.assert_allclose(same, spread, rtol=1e-6, atol=1e-9)


@given(times)
def test_things_timed_together_do_not_mix(values: list[float]) -> None:
    column = np.array(values)[:, None]
    both = latency_and_spread(np.hstack([column, column[::-1] * 3]))
    alone = latency_and_spread(column)
    assert both[0][0] == alone[0][0]
    assert both[1][0] == alone[1][0]


def test_disturbed_rounds_count_for_the_tail_and_not_for_the_latency() -> None:
    rounds = [np.array([[2.0], [2.2]]), np.array([[1.0], [9.0]]), np.array([[2.1], [2.3]])]
    timing = summarise(rounds, [False, True, False])[0]
    assert timing.latency == 2.0
    assert timing.rounds == 2
    assert timing.p95 > 7
    assert timing.flags == ()


def test_rounds_that_agree_still_leave_the_drift_between_campaigns() -> None:
    timing = summarise([np.array([[1.0]])] * 8, [False] * 8)[0]
    assert timing.spread == pytest.approx(0.015)


def test_where_most_rounds_are_disturbed_all_are_used_and_it_says_so() -> None:
    rounds = [np.array([[2.0]]), np.array([[1.0]]), np.array([[3.0]])]
    timing = summarise(rounds, [True, True, False], target=0.015)[0]
    assert (timing.latency, timing.rounds) == (1.0, 3)
    assert timing.flags == ("disturbed", "unstable")


def test_a_machine_that_is_never_calm_cannot_tell_how_much_too_long_its_runs_are() -> None:
    # Rounds that agree, each at 1.6 times the pace: unloaded, the runs take between 10 / 1.6 = 6.25 and 10.
    agreeing = [np.array([[10.0]])] * 8
    slowed = summarise(agreeing, [True] * 8, paces=[1.6] * 8)[0]
    assert slowed.latency == 10.0
    assert slowed.latency * (1 - slowed.spread) < 6.25
    assert slowed.spread == pytest.approx(math.hypot(0.375, 0.015))


def test_one_calm_round_among_slowed_ones_tells() -> None:
    rounds, disturbed = [np.array([[7.0]])] + [np.array([[10.0]])] * 3, [False, True, True, True]
    told = summarise(rounds, disturbed, paces=[1.0, 1.6, 1.6, 1.6])[0]
    unknown = summarise(rounds, disturbed, paces=[1.3, 1.6, 1.6, 1.6])[0]
    assert told.latency == unknown.latency == 7.0  # the least of four rounds
    assert unknown.spread == pytest.approx(math.hypot(told.spread, 1 - 1 / 1.3))


@pytest.mark.parametrize("noise", ["exponential", "lognormal"])
@pytest.mark.parametrize("rounds", [5, 6, 8, 12, 20])
def test_two_campaigns_disagree_by_less_than_their_spreads_say_nine_times_of_ten(noise: str, rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    shape = (rounds, 4000)
    drift = {"exponential": rng.exponential, "lognormal": lambda scale, size: rng.lognormal(-3, 1, size)}[noise]
    first, second = (latency_and_spread(1 + drift(0.05, shape)) for _ in range(2))
    disagreement = np.abs(first[0] - second[0]) / np.minimum(first[0], second[0])
    assert np.mean(disagreement <= np.hypot(first[1], second[1])) > 0.87
