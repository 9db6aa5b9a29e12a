"""Tests of running with torch eager: the code for CUDA, with made-up CUDA events, since no GPU was at hand."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from hwcost.measure.clock import take_round
from hwcost.measure.pace import NoPace
from hwcost.runtimes.torch_eager.session import EagerSession, prepare


class Event:
    """A made-up CUDA event, which happens one millisecond after the one recorded before it."""

    happened = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.happened += 1
        self.at = Event.happened

    def elapsed_time(self, end: Event) -> float:
        return float(end.at - self.at)  # ms


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> EagerSession:
    """A session that believes its inputs are on a CUDA device, on which an inference ends after 10 ms."""
    made = prepare(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), (torch.ones(2, 8),), threads=1)
    assert not made.sleeps
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: time.sleep(0.01))
    made._on_cuda = made.sleeps = True
    return made


def test_kernels_are_timed_by_events_in_seconds(session: EagerSession) -> None:
    times = session.profile(2)
    assert times.shape == (2, len(session.network.kernels))
    assert times == pytest.approx(1e-3)  # not the 10 ms of the host


def test_a_run_ends_when_the_device_is_done_and_its_sleep_is_no_wait(session: EagerSession) -> None:
    taken = take_round(session, expected=0.01, threads=1, pace=NoPace())
    assert taken.calm_whole().min() >= 0.01
    assert (taken.waits == 0).all()
