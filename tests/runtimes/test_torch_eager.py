"""Tests of torch eager: what counts as a call, and the CUDA paths on events that are made up: no GPU was at hand."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from hwcost.measure.clock import take_round
from hwcost.measure.pace import NoPace
from hwcost.runtimes.torch_eager import RUNTIME, EagerSession
from hwcost.tracing.trace import trace


class Gate(nn.Module):
    """Two calls of its own around one of a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.inner(x.relu())


def test_calls_are_of_operators_and_of_the_modules_that_make_them() -> None:
    """Linear, relu, linear, mul: four operators. The first linear's module, the gate, the inner linear's module, and
    the gate again once that has returned: four more, for the counting does not know that the gate was never left."""
    graph = trace(nn.Sequential(nn.Linear(8, 8), Gate()), (torch.empty(2, 8),))
    assert [op.module for op in graph.ops] == ["0", "1", "1.inner", "1"]
    assert RUNTIME.lower(graph).calls == 8


class Event:
    """Happens one millisecond after the one before it."""

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
    """A session that takes its inputs for those of a device on which an inference ends after 10 ms."""
    made = RUNTIME.prepare(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), (torch.ones(2, 8),), threads=1)
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
