"""Tests of hwcost.search.penalties: worked numbers, laws, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.search import penalties
from hwcost.search.penalties import ADDITIVE, MULTIPLICATIVE, PenaltyError, penalise

FORMS = [*MULTIPLICATIVE, *ADDITIVE]


@pytest.mark.parametrize(
    ("form", "ratio", "score"),
    [
        ("mnas-soft", 1.0, 0.75),  # on target, nothing is taken
        ("mnas-soft", 2.0, 0.75 * 0.9526379980439374),  # 2 ** -0.07, the 5 % that MnasNet's section 3.1 speaks of
        ("mnas-soft", 0.5, 0.75 * 1.0497166836230674),  # and as much is given for twice the speed
        ("mnas-hard", 0.5, 0.75),  # within the target all are equal
        ("mnas-hard", 2.0, 0.375),  # 0.75 / 2
        ("tunas-absolute", 1.0, 0.75),
        ("tunas-absolute", 2.0, 0.68),  # 0.75 - 0.07 * 1
        ("tunas-absolute", 0.5, 0.715),  # 0.75 - 0.07 * 0.5: too fast is a fault as well
        ("one-sided", 0.5, 0.75),
        ("one-sided", 1.5, 0.25),  # 0.75 - 1 * 0.5
        ("linear", 2.0, 0.61),  # 0.75 - 0.07 * 2
    ],
)
def test_scores(form: str, ratio: float, score: float) -> None:
    assert penalise(form, 0.75, ratio) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
@given(metric=st.floats(0.01, 1), ratio=st.floats(1, 100), slower=st.floats(1, 10))
def test_above_the_target_slower_is_never_better(form: str, metric: float, ratio: float, slower: float) -> None:
    assert penalise(form, metric, ratio * slower) <= penalise(form, metric, ratio) + 1e-12


@pytest.mark.parametrize("form", ADDITIVE)
@given(loss=st.floats(0, 10), ratio=st.floats(1, 100), slower=st.floats(1, 10))
def test_a_loss_grows_with_latency(form: str, loss: float, ratio: float, slower: float) -> None:
    fast = penalise(form, loss, ratio, direction="minimize")
    assert penalise(form, loss, ratio * slower, direction="minimize") >= fast - 1e-12


@pytest.mark.parametrize("form", FORMS)
@given(ratio=st.floats(0.01, 100), low=st.floats(0, 1), high=st.floats(0, 1))
def test_at_equal_latency_the_better_metric_wins(form: str, ratio: float, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert penalise(form, low, ratio) <= penalise(form, high, ratio)


@pytest.mark.parametrize("form", MULTIPLICATIVE)
def test_multiplicative_forms_refuse_a_minimised_metric(form: str) -> None:
    with pytest.raises(PenaltyError, match="needs one that is maximised; for a minimised metric use 'tunas-absolute'"):
        penalise(form, 0.5, 1.0, direction="minimize")


def test_multiplicative_forms_refuse_a_negative_metric() -> None:
    with pytest.raises(PenaltyError, match="must not be negative"):
        penalise("mnas-soft", -0.5, 2.0)


def test_multiplicative_forms_refuse_what_costs_nothing() -> None:
    """Such as a network without parameters, where parameters are what is traded."""
    with pytest.raises(PenaltyError, match=r"needs a cost above 0, but got 0\.0 times the target"):
        penalise("mnas-soft", 0.5, 0.0)


def test_a_weight_that_rewards_slowness_is_refused() -> None:
    with pytest.raises(PenaltyError, match="not above 0"):
        penalties.check("linear", "maximize", 0.07)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(PenaltyError, match="no penalty 'soft'; choose from mnas-soft"):
        penalise("soft", 0.5, 1.0)
