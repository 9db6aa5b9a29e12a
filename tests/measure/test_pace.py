"""Tests of hwcost.measure.pace and of how the clock uses it, with times of the piece that are written down."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hwcost.measure import clock
from hwcost.measure.clock import Laps, Round, kernel_timings, take_round, whole_timing
from hwcost.measure.disturbance import Disturbance
from hwcost.measure.pace import CALM, NoPace, Pace, PaceBeforeVisit, pace_of, recall, remember
from hwcost.runtimes.base import nothing


def piece(*seconds: float) -> Callable[[], float]:
    """A piece that takes these times one after the other, then the last of them always."""
    given: Iterator[float] = iter(seconds)
    return lambda: next(given, seconds[-1])


def learnt(*then: float) -> Pace:
    """A pace whose lowest time is 1 s, from ten readings; the next readings are `then`."""
    return Pace(piece(*[1.0] * 10, *then), learn=0.0)


# -- the pace -------------------------------------------------------------------------------------


def test_the_pace_is_relative_to_the_lowest_time() -> None:
    pace = learnt(1.0, 1.2, 2.0)
    assert [pace.read() for _ in range(3)] == [1.0, 1.2, 2.0]


@pytest.mark.parametrize(("faster", "pace"), [(49, 1.0), (50, 2.0)])
def test_readings_below_the_lowest_time_change_it_only_where_a_tenth_of_a_row_reaches_them(
    faster: int, pace: float
) -> None:
    row = ([0.5] * faster + [1.0] * 500)[:500]
    paces = learnt(*row * 20)
    for _ in range(500 * 20):
        paces.read()
    assert paces.read() == pace


def test_a_machine_that_was_slowed_at_first_gets_its_lowest_time_from_the_next_row() -> None:
    paces = learnt(*[0.5] * 500)
    assert [paces.read() for _ in range(500)] == [0.5] * 499 + [1.0]


def test_only_calm_readings_are_divided_by_the_tolerance() -> None:
    paces = Pace(piece(*[1.0] * 10, 1.05, 1.1, 2.1), learn=0.0, tolerance=1.05)
    assert [paces.read() for _ in range(3)] == pytest.approx([1.0, 1.1 / 1.05, 2.1])


def test_waiting_ends_when_the_machine_is_calm() -> None:
    pace = learnt(1.3, 1.2, 1.0, 9.0)
    assert pace.wait(limit=60.0)
    assert pace.read() == 9.0  # it read no further than it had to


def test_waiting_ends_when_the_time_is_up() -> None:
    assert not learnt(1.3).wait(limit=0.0)


def test_waits_in_vain_get_shorter_until_one_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(10_000))  # a second a look
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    slow = [True]
    pace = Pace(lambda: 1.3 if slow[0] else 1.0, learn=0.0, earlier=1.0)

    def waited() -> int:
        before = next(clock)
        pace.wait(limit=64.0)
        return next(clock) - before

    vain = [waited() for _ in range(6)]
    assert vain[0] > 64
    assert all(later < before for before, later in pairwise(vain))
    assert sum(vain) < 3 * vain[0]
    slow[0] = False
    assert waited() < 5
    slow[0] = True
    assert waited() == vain[0]


def test_the_real_piece_gives_a_pace_at_every_reading() -> None:
    pace = Pace(learn=0.01)
    assert all(0 < pace.read() < np.inf for _ in range(20))


def test_the_pace_before_a_visit_holds_until_the_next_wait() -> None:
    paces = PaceBeforeVisit(piece(*[1.0] * 10, 1.3, 1.0, 1.4), learn=0.0)
    assert paces.wait(limit=60.0)
    assert [paces.read() for _ in range(3)] == [1.0, 1.0, 1.0]  # the piece was not asked again
    assert not paces.wait(limit=0.0)
    assert paces.read() == 1.4


def test_settling_ends_with_the_first_doze_in_which_no_thread_ran_or_after_a_tenth_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dozes, used = [], iter([0.0, 0.004, 0.004, 0.008, 0.008, 0.008])  # s of CPU before and after each doze
    monkeypatch.setattr(time, "sleep", dozes.append)
    monkeypatch.setattr(time, "process_time", lambda: next(used))
    paces = PaceBeforeVisit(piece(1.0), learn=0.0)
    paces.settle()
    assert len(dozes) == 3
    busy = iter(range(1000))
    monkeypatch.setattr(time, "process_time", lambda: float(next(busy)))
    paces.settle()
    assert sum(dozes[3:]) == pytest.approx(0.1)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU: two threads would wait for each other")
@pytest.mark.parametrize(("of_torch", "kind"), [(True, Pace), (False, PaceBeforeVisit)])
def test_the_pace_of_several_threads(of_torch: bool, kind: type[Pace]) -> None:
    before = torch.get_num_threads()
    paces = pace_of(2, of_torch=of_torch)
    try:
        assert type(paces) is kind
        assert torch.get_num_threads() == 2
        assert all(0 < paces.read() < np.inf for _ in range(20))
    finally:
        torch.set_num_threads(before)


def test_the_lowest_time_is_kept_for_each_number_of_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HWCOST_CACHE", str(tmp_path))
    remember(learnt(), threads=2)
    assert (recall(1), recall(2), recall(3)) == (np.inf, 1.0, np.inf)


def test_a_process_that_begins_on_a_slowed_machine_uses_the_lowest_time_of_earlier_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HWCOST_CACHE", str(tmp_path / "cache"))
    remember(learnt())  # nothing is known yet: its 1 s is the best
    slowed = Pace(piece(1.5), learn=0.0, earlier=recall())
    assert slowed.read() == 1.5
    remember(slowed)
    assert recall() == 1.0  # it taught nothing
    remember(Pace(piece(0.9), learn=0.0))
    assert recall() == 0.9


def test_a_lowest_time_is_forgotten_after_two_weeks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HWCOST_CACHE", str(tmp_path))
    remember(learnt())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 15 * 86400)
    assert recall() == np.inf


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": ["x", 2]}'])
def test_a_damaged_file_of_lowest_times_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    monkeypatch.setenv("HWCOST_CACHE", str(tmp_path))
    (tmp_path / "pace.json").write_text(content)
    assert recall() == np.inf
    remember(learnt())
    assert recall() == 1.0


# -- runs between readings ------------------------------------------------------------------------


def test_a_run_counts_if_the_readings_before_and_after_it_are_calm() -> None:
    laps = Laps(learnt(1.0, 1.0, 1.2, 1.0, 1.0))
    for _ in range(5):
        laps()
    assert laps.paces == [1.0, 1.2, 1.2, 1.0]
    assert laps.calm() == 2


def test_what_happens_in_a_pause_is_no_run() -> None:
    laps = Laps(NoPace())
    laps()
    laps()
    laps.pause()
    laps()
    assert len(laps.walls) == 1


@pytest.mark.parametrize(("unbroken", "counted"), [(False, 1), (True, 0)])
def test_a_run_in_which_the_thread_waited_counts_unless_it_must_be_unbroken(unbroken: bool, counted: int) -> None:
    """A wait can be taken off a whole run; off the kernels of a profile it cannot."""
    laps = Laps(NoPace(), unbroken=unbroken)
    laps()
    time.sleep(0.02)
    laps()
    assert laps.waits[0] > 0.01
    assert laps.calm() == counted


class Idle:
    """A session that does nothing and counts its runs."""

    network = None
    sleeps = False
    warm_ups = 0

    def __init__(self) -> None:
        self.runs = self.profiles = 0

    def run(self) -> None:
        self.runs += 1

    def profile(self, runs: int = 1, between: Callable[[], None] = nothing) -> np.ndarray:
        for _ in range(runs):
            between()
            self.profiles += 1
        between()
        return np.ones((runs, 1))


def test_runs_that_are_not_calm_are_repeated_up_to_three_times_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_WARM", np.inf)  # six runs, however long they take
    calm, slowed = Idle(), Idle()
    take_round(calm, expected=1.0, threads=1, pace=NoPace())
    taken = take_round(slowed, expected=1.0, threads=1, pace=learnt(1.0, 1.5))
    assert (calm.runs, calm.profiles) == (6 + 2, 1)
    assert (slowed.runs, slowed.profiles) == (6 + 3 * 2, 1)  # profiles of a long network are not repeated
    assert taken.disturbed
    short = Idle()
    take_round(short, expected=1e-3, threads=1, pace=learnt(1.0, 1.5))
    assert (short.runs, short.profiles) == (6 + 3 * 32, 3 * 12)
    in_vain = Idle()  # the wait before the visit did not succeed
    take_round(in_vain, expected=1e-3, threads=1, pace=learnt(1.5))
    assert (in_vain.runs, in_vain.profiles) == (6 + 32, 12)


class Told(NoPace):
    """Tells a session's diary when threads are waited for."""

    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self._diary = diary

    def settle(self) -> None:
        self._diary.append("settle")


class Diary(Idle):
    """What was asked of a session, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.diary: list[str] = []

    def run(self) -> None:
        self.diary.append("run")

    def profile(self, runs: int = 1, between: Callable[[], None] = nothing) -> np.ndarray:
        self.diary.append("profile")
        return super().profile(runs, between)


@pytest.mark.parametrize(("threads", "warm"), [(1, 6), (2, 9)])
def test_several_threads_run_until_they_are_spread_and_profilers_find_none_at_work(
    threads: int, warm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, session = iter(range(1000)), Diary()
    monkeypatch.setattr(clock, "_WARM", 9.0)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))  # a second a look
    take_round(session, expected=1.0, threads=threads, pace=Told(session.diary))
    assert session.diary == ["run"] * (warm + 2) + ["settle", "profile"]


# -- what counts ----------------------------------------------------------------------------------


def visit(whole: list[float], kernels: list[float], paces: list[float]) -> Round:
    return Round(
        np.array(whole, np.float32), np.zeros(len(whole), np.float32), np.array(kernels, np.float32)[:, None],
        Disturbance(0.0, 0, 0.0), seconds=sum(whole), paces=np.array(paces, np.float32),
    )  # fmt: skip


def test_the_latency_comes_from_calm_runs_and_the_median_from_all() -> None:
    rounds = [visit([1.0, 2.0, 3.0], [0.25, 0.5], [CALM + 0.1, 1.0, 1.0, 1.3, 1.0])] * 2
    whole, (kernel,) = whole_timing(rounds), kernel_timings(rounds)
    assert (whole.latency, whole.median) == (2.0, 2.0)
    assert kernel.latency == 0.5
    assert kernel.median == pytest.approx(0.375)


def test_a_visit_without_a_calm_run_is_disturbed_and_one_without_paces_is_not() -> None:
    assert visit([1.0], [0.5], [1.2, 1.0]).disturbed
    assert not visit([1.0], [0.5], [1.0, 1.2]).disturbed  # its profile counts as far as it goes
    assert not visit([1.0], [0.5], [1.0, 1.0]).disturbed
    assert not visit([1.0], [0.5], []).disturbed


def test_the_spread_covers_how_much_the_calmest_run_was_slowed() -> None:
    # Two visits whose calmest run was at 1.6 and 1.25 times the pace; the second gave the latency, 4 s.
    rounds = [visit([5.0, 6.0], [2.5], [1.6, 1.7, 1.6]), visit([4.0, 4.5], [2.0], [1.25, 1.4, 1.0])]
    whole, (kernel,) = whole_timing(rounds), kernel_timings(rounds)
    assert (whole.latency, whole.flags) == (4.0, ("disturbed",))
    assert whole.latency * (1 - whole.spread) < 4.0 / 1.25
    calm = whole_timing([visit([5.0, 6.0], [2.5], []), visit([4.0, 4.5], [2.0], [])])
    assert whole.spread == pytest.approx(np.hypot(calm.spread, 0.2))
    assert kernel.spread < whole.spread  # a profile was calm
