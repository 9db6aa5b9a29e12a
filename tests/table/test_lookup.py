"""Tests of hwcost.table.lookup against a naive sum, and of merging."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.table.lookup import Lookup, Term, merge


@st.composite
def sums(draw: st.DrawFn) -> tuple[list[Term], list[int]]:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    terms = []
    for _ in range(draw(st.integers(0, 6))):
        decisions = tuple(sorted(draw(st.sets(st.integers(0, len(sizes) - 1), max_size=4))))
        terms.append(Term(decisions, rng.random([sizes[d] for d in decisions])))
    return terms, sizes


@given(sums(), st.integers(0, 2**32))
def test_against_a_naive_sum(drawn: tuple[list[Term], list[int]], seed: int) -> None:
    terms, sizes = drawn
    lookup = Lookup(terms, sizes, constant=0.25)
    rng = np.random.default_rng(seed)
    choices = np.column_stack([rng.integers(0, n, 20) for n in sizes])
    many = lookup.many(choices)
    for row, value in zip(choices.tolist(), many, strict=True):
        naive = 0.25 + sum(float(t.values[tuple(row[d] for d in t.decisions)]) for t in terms)
        assert value == pytest.approx(naive)
        assert lookup.one(row) == pytest.approx(naive)


@given(sums(), st.integers(0, 2**32))
def test_by_reach_against_a_naive_sum(drawn: tuple[list[Term], list[int]], seed: int) -> None:
    """Terms of traffic and two times: the second holds where the traffic is 3 or more."""
    terms, sizes = drawn
    rng = np.random.default_rng(seed)
    three = [Term(t.decisions, np.stack([rng.integers(0, 3, t.values.shape), t.values, 2 * t.values])) for t in terms]
    lookup = Lookup(three, sizes, 0.25, edges=[3])
    choices = np.column_stack([rng.integers(0, n, 20) for n in sizes])
    for row, value in zip(choices.tolist(), lookup.many(choices), strict=True):
        moved, near, far = sum(
            (t.values[(slice(None), *(row[d] for d in t.decisions))] for t in three), start=np.zeros(3)
        )
        assert value == pytest.approx(0.25 + (far if moved >= 3 else near))
        assert lookup.one(row) == pytest.approx(value)


@given(sums())
def test_merging_leaves_fewer_terms_none_much_larger(drawn: tuple[list[Term], list[int]]) -> None:
    terms, sizes = drawn
    merged = merge(terms, sizes)
    assert len(merged) <= len(terms)
    largest = max((t.values.size for t in terms), default=1)
    assert all(t.values.size <= max(largest, 1 << 14) for t in merged)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_any_integers_and_more_than_one_chunk(dtype: type) -> None:
    lookup = Lookup([Term((0,), np.arange(3.0)), Term((1,), 10 * np.arange(4.0))], [3, 4], 0.0)
    choices = np.array([[i % 3, i % 4] for i in range(50_000)], dtype=dtype)
    assert (lookup.many(choices) == [i % 3 + 10 * (i % 4) for i in range(50_000)]).all()


@pytest.mark.parametrize(("row", "decision", "value"), [(7, 1, 4), (49_999, 0, -1), (20_000, 0, 300)])
def test_a_choice_that_does_not_exist_is_found(row: int, decision: int, value: int) -> None:
    lookup = Lookup([Term((0, 1), np.ones((3, 4)))], [3, 4], 0.0)
    choices = np.zeros((50_000, 2), dtype=np.int64)
    choices[row, decision] = value
    with pytest.raises(IndexError) as caught:
        lookup.many(choices)
    assert caught.value.args == (row, decision)
