"""Tests of hwcost.measure.clock: what a visit does, when a network is warm, and what is refused."""

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwcost.measure.clock import quiet_interpreter, take_round, warm_up
from hwcost.measure.pace import NoPace
from hwcost.measure.types import MeasurementError
from hwcost.runtimes.base import nothing


class Counting:
    """A session that counts its calls and leaves garbage."""

    network = None
    sleeps = False
    warm_ups = 0

    def __init__(self) -> None:
        self.calls: list[str] = []

    def run(self) -> None:
        self.calls.append("run")

    def profile(self, runs: int = 1, between: Callable[[], None] = nothing) -> Any:
        for _ in range(runs):
            between()
            self.calls.append("profile")
        between()
        return np.ones((runs, 2))


def test_a_visit_warms_up_then_runs_then_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwcost.measure.clock._WARM", np.inf)
    session = Counting()
    taken = take_round(session, expected=1.0, threads=1, pace=NoPace())
    warm = session.calls.count("run") - len(taken.whole)
    assert session.calls == ["run"] * session.calls.count("run") + ["profile"] * len(taken.kernels)
    assert (warm, len(taken.whole)) == (6, 2)


def test_a_long_network_warms_up_with_one_run() -> None:
    session = Counting()
    session.run = lambda: (session.calls.append("run"), time.sleep(0.015))  # type: ignore[method-assign,assignment]
    taken = take_round(session, expected=1.0, threads=1, pace=NoPace())
    assert session.calls.count("run") - len(taken.whole) == 1
    assert taken.running > 0.015 * session.calls.count("run")


@pytest.mark.parametrize(
    ("moments", "best", "runs"),
    [
        ([9.0, 5.0, 2.0, 2.0, 2.05, 7.0], 2.0, 5),  # two runs agree with the best so far
        ([2.0, 2.0, 2.0], 2.0, 3),
        ([float(20 - n) for n in range(20)], 1.0, 20),  # still falling: it ends all the same
    ],
)
def test_a_network_is_run_until_it_is_stable(
    monkeypatch: pytest.MonkeyPatch, moments: list[float], best: float, runs: int
) -> None:
    given = iter(moments)
    taken: list[float] = []

    def timed(session: Any) -> tuple[float, float]:
        taken.append(next(given))
        return taken[-1], 0.0

    monkeypatch.setattr("hwcost.measure.clock.timed", timed)
    assert warm_up(Counting()) == best  # type: ignore[arg-type]
    assert len(taken) == runs


def test_short_networks_are_run_more_often_in_a_visit() -> None:
    long, short = (take_round(Counting(), expected=e, threads=1, pace=NoPace()) for e in (1.0, 1e-4))
    assert len(short.whole) > len(long.whole)


def test_gaps_in_a_profile_are_refused() -> None:
    session = Counting()
    session.profile = lambda runs, between: np.full((runs, 2), np.nan)  # type: ignore[method-assign]
    with pytest.raises(MeasurementError, match="has gaps"):
        take_round(session, expected=1.0, threads=1, pace=NoPace())


def test_no_garbage_is_collected_while_the_clock_runs() -> None:
    with quiet_interpreter():
        assert not gc.isenabled()
    assert gc.isenabled()
