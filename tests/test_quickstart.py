"""Tests of hwcost.quickstart, made small: every step for real, and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hwcost.cli.quickstart import summary
from hwcost.device.device import Device
from hwcost.quickstart import Job, Plan, run
from hwcost.report.page import save_page
from hwcost.report.result import QuickstartResult


def small(folder: Path) -> Plan:
    """A few seconds of everything; a device file in the folder takes the place of the calibration."""
    return Plan(
        folder=folder,
        networks=12,
        measuring=120.0,  # times that a busy machine does not reach either
        rounds=2,
        trainings=4,
        steps=8,
        verified=2,
        verifying=120.0,
        budget_share=0.2,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("quickstart")
    Device.load("intel-i7-12700h").save(made / "device.toml")
    return made


@pytest.fixture(scope="module")
def result(folder: Path) -> QuickstartResult:
    return run(Job(plan=small(folder)))


def test_it_trains_what_was_asked_for_and_nothing_over_the_budget(result: QuickstartResult) -> None:
    trained = [c for c in result.candidates if c.state == "trained"]
    assert len(trained) == 4
    assert all(c.latency <= result.budget for c in trained)
    assert all(c.accuracy is None for c in result.candidates if c.state == "rejected")
    assert all(c.latency > result.budget for c in result.candidates if c.state == "rejected")


def test_what_it_found_was_measured(result: QuickstartResult) -> None:
    trained = [c for c in result.candidates if c.state == "trained"]
    dominated = [
        c for c in trained
        if any(o.latency < c.latency and (o.accuracy or 0) >= (c.accuracy or 0) for o in trained)
    ]  # fmt: skip
    assert len(result.winners) == min(2, len(trained) - len(dominated))
    for winner in result.winners:
        assert winner.measured > 0
        assert winner.estimate.low < winner.estimate.latency < winner.estimate.high
        assert 0 <= winner.accuracy <= 1


def test_the_accuracy_it_states_is_of_networks_held_out(result: QuickstartResult) -> None:
    assert len(result.held_out.networks) == 12


def test_the_page_and_the_summary_tell_the_same(result: QuickstartResult, folder: Path) -> None:
    save_page(result, folder / "index.html")
    told = summary(result, folder / "index.html", 1.0)
    assert json.loads(json.dumps(told))["trainings"] == 4
    page = (folder / "index.html").read_text()
    assert f"{result.best.accuracy:.1%}".rstrip("%") in page.replace(" ", "")


def test_a_second_run_measures_and_trains_nothing_again(result: QuickstartResult, folder: Path) -> None:
    job = Job(plan=small(folder))
    again = run(job)
    assert {c.accuracy for c in again.candidates} == {c.accuracy for c in result.candidates}
    assert len(again.candidates) == len(result.candidates)
    assert [w.measured for w in again.winners] == [w.measured for w in result.winners]
    assert not {"calibrate", "measure", "fit", "table"} & set(job.seconds)


def test_more_trainings_go_on_where_it_stopped(result: QuickstartResult, folder: Path) -> None:
    more = run(Job(plan=replace(small(folder), trainings=6)))
    assert more.count("trained") == 6
