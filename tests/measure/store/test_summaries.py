"""Tests of hwcost.measure.store.summaries: what is kept of a timing, and that it comes back."""

import math

from hypothesis import given
from hypothesis import strategies as st

from hwcost.measure.store.summaries import pack, rounded, unpack
from hwcost.measure.types import Timing

times = st.floats(1e-7, 1e3)
timings = st.builds(
    Timing,
    latency=times,
    median=times,
    p95=times,
    spread=st.one_of(st.floats(1e-3, 10.0), st.just(math.inf)),
    rounds=st.integers(0, 1000),
    flags=st.lists(st.sampled_from(["unstable", "disturbed"]), unique=True).map(tuple),
)


@given(timings)
def test_a_kernels_timing_is_kept_to_far_less_than_its_spread(timing: Timing) -> None:
    kept = rounded(timing)
    assert abs(kept.latency / timing.latency - 1) <= 0.00013
    assert abs(kept.median / timing.median - 1) <= 0.002
    assert abs(kept.p95 / timing.p95 - 1) <= 0.002
    assert kept.spread == timing.spread or abs(kept.spread / timing.spread - 1) <= 0.02
    assert rounded(kept) == kept


@given(st.lists(timings))
def test_what_is_packed_comes_back(several: list[Timing]) -> None:
    assert unpack(**pack(several)) == several
