"""Tests of hwcost.measure.campaign: what it measures, what it skips, and what a kill -9 leaves behind."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import create_engine, func, select
from torch import nn

from hwcost.measure import campaign, clock
from hwcost.measure.campaign import Campaign, Outcome, Plan, measure
from hwcost.measure.clock import Round
from hwcost.measure.disturbance import Disturbance
from hwcost.measure.materialise import materialise
from hwcost.measure.store import schema
from hwcost.measure.store.store import Store
from hwcost.measure.types import Item, MeasurementError
from hwcost.runtimes.registry import get_runtime
from hwcost.spaces.designed.attention import Attention

NETWORKS = Path(__file__).with_name("networks.py")
_spec = importlib.util.spec_from_file_location("measured_networks", NETWORKS)
assert _spec is not None
assert _spec.loader is not None
networks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(networks)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "m.db", create=True)


def visit(seconds: float, *, waited: float = 0.0) -> Round:
    none = np.zeros(1, np.float32)
    return Round(np.array([seconds], np.float32), none, np.zeros((1, 0), np.float32), Disturbance(0, 0, waited), 1.0)


# -- what is measured ---------------------------------------------------------------------------------


def test_every_network_gets_its_rounds_and_each_kernel_its_time(store: Store) -> None:
    found = measure(list(networks.items(3)), store=store, rounds=3)
    assert [n.name for n in found.networks] == ["toy/1", "toy/2", "toy/3"]
    for network in found.networks:
        assert network.timing.rounds + sum("disturbed" in f for f in network.timing.flags) >= 3
        assert [m.kernel.kind for m in network.kernels] == ["conv2d", "batch_norm", "relu", "linear"]
        assert all(m.timing.latency > 0 for m in network.kernels)
        assert network.timing.latency <= network.timing.median <= network.timing.p95


def test_rounds_are_interleaved_over_all_networks(store: Store) -> None:
    """Each network's rounds lie as far apart as there are others: never two of one in a row while another waits."""
    visits: list[str] = []
    measure(list(networks.items(3)), store=store, rounds=2, progress=lambda done, total, note: visits.append(note))
    order = [note for note in visits if not note.startswith("loading")]
    assert order[:6] == ["toy/1", "toy/2", "toy/3"] * 2


def test_a_campaign_knows_where_its_time_went(store: Store) -> None:
    ends: list[Outcome] = []
    measure([networks.item(1)], store=store, rounds=3, on_end=ends.append)
    (end,) = ends
    assert 0 < end.running < end.timed < end.wall
    assert end.visits >= 3


def test_the_environment_is_that_of_this_machine(store: Store) -> None:
    place = measure([networks.item(1)], store=store, rounds=2).environment
    assert (place.runtime, place.threads, place.dtype) == ("torch-eager", 1, "float32")
    assert place.versions["torch"] == torch.__version__
    assert place.cpu


def test_networks_are_built_on_the_threads_they_run_on(store: Store, request: pytest.FixtureRequest) -> None:
    """Torch's own number of them shares one CPU otherwise, and exporting takes several times as long."""
    seen, like = list[int](), networks.item(1)
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(3)
    item = replace(like, build=lambda: (seen.append(torch.get_num_threads()), like.build())[1])
    measure([item], store=store, rounds=2)
    assert (set(seen), torch.get_num_threads()) == ({1}, 3)


def test_what_is_complete_is_not_measured_again(store: Store) -> None:
    first = measure(list(networks.items(2)), store=store, rounds=2)
    rounds = [n.timing.rounds for n in first.networks]
    again = measure(list(networks.items(3)), store=store, rounds=2)
    assert [n.timing.rounds for n in again.networks[:2]] == rounds
    assert len(again) == 3


def test_more_rounds_are_added_to_those_that_are_there(store: Store) -> None:
    measure([networks.item(1)], store=store, rounds=2)
    before = [r.whole.tolist() for r in store.rounds(1)["toy/1"]]
    measure([networks.item(1)], store=store, rounds=6)
    after = [r.whole.tolist() for r in store.rounds(1)["toy/1"]]
    assert after[: len(before)] == before
    assert len(after) >= 6


def test_a_network_that_does_not_run_does_not_stop_the_others(store: Store) -> None:
    def wrong() -> tuple[nn.Module, tuple[Any, ...]]:
        return nn.Linear(3, 2), (torch.zeros(1, 4),)

    bad = Item(name="bad", family="toy", spec={}, build=wrong)
    with pytest.warns(UserWarning, match=r"1 network\(s\) could not be measured"):
        assert [n.name for n in measure([bad, networks.item(1)], store=store, rounds=2).networks] == ["toy/1"]
    with pytest.raises(MeasurementError, match=r"none of 1 networks could be measured; bad: .*shape"):
        measure([bad], store=store, rounds=2)


def test_a_network_that_memory_does_not_hold_is_refused_before_it_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """65,536 tokens, whose 8 heads each score all of them against all: 137 GB, which a softmax reads and writes."""
    giant = Item(
        name="toy/giant", family="toy", spec={},
        build=lambda: (Attention(64, 8, fused=True), (torch.empty(1, 1 << 16, 64),)),
    )  # fmt: skip
    monkeypatch.setattr(campaign, "free_memory", lambda: 64e9)
    said = r"toy/giant: MeasurementError: it needs 27\d GB of memory, more than half of what is free, 64 GB"
    with pytest.raises(MeasurementError, match=said):
        measure([giant], store=store, rounds=2, runtime="onnxruntime")


def test_a_process_that_finds_every_network_taken_ends_with_nothing(store: Store) -> None:
    place = measure([networks.item(1)], store=store, rounds=2).environment
    elsewhere = Store.open(Path(store.name).with_name("other.db"), create=True)
    elsewhere.claim(elsewhere.environment_id(place), ["toy/1"], "another host:1", seconds=60)
    assert len(measure([networks.item(1)], store=elsewhere, rounds=2)) == 0


@pytest.fixture
def a_second_a_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign's clock stands still but for visits, each of which takes a second."""
    now = [0.0]

    def take_round(*arguments: Any, **options: Any) -> Round:
        now[0] += 1.0
        return clock.take_round(*arguments, **options)

    monkeypatch.setattr(campaign, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(campaign, "take_round", take_round)


@pytest.mark.usefixtures("a_second_a_visit")
def test_a_budget_ends_an_endless_campaign(store: Store) -> None:
    measure(networks.items(10**9), store=store, rounds=2, budget=2.5)
    assert sum(len(rounds) for rounds in store.rounds(1).values()) == 3  # none begins after 2.5 s


def test_networks_are_held_only_while_memory_lasts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network takes a fifth of what is free, of which a wave may take a quarter: two come together."""
    held: list[int] = []
    free = {"GB": 1.0}
    visit_all, warm = Campaign._visit_all, Campaign._warm

    def warmed(*arguments: Any) -> None:
        free["GB"] -= 0.2
        warm(*arguments)

    def visited(self: Campaign, wave: list[Any]) -> None:
        held.append(len(wave))
        free["GB"] = 1.0
        visit_all(self, wave)

    monkeypatch.setattr(campaign, "free_memory", lambda: free["GB"] * 1e9)
    monkeypatch.setattr(Campaign, "_warm", warmed)
    monkeypatch.setattr(Campaign, "_visit_all", visited)
    assert len(measure(list(networks.items(5)), store=store, rounds=2)) == 5
    assert held == [2, 2, 1]


def test_progress_reaches_its_end(store: Store) -> None:
    said: list[tuple[float, float]] = []
    measure(
        list(networks.items(2)), store=store, rounds=2, progress=lambda done, total, note: said.append((done, total))
    )
    assert said[-1][0] == said[-1][1] >= 4
    assert all(a[0] <= b[0] for a, b in pairwise(said))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threads": 0}, "threads must lie in"),
        ({"threads": 10_000}, "threads must lie in"),
        ({"rounds": 1}, "rounds must be at least 2"),
        ({"budget": 0.0}, "must be above 0"),
        ({"spread": -1.0}, "must be above 0"),
        ({"spread": 0.009}, "spread must be at least 0.015"),
        ({"runtime": "abacus"}, "runtime must be one of .*torch-eager"),
    ],
)
def test_a_campaign_that_cannot_be_is_refused(store: Store, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        measure([networks.item(1)], store=store, **arguments)


def test_networks_of_a_space_whose_kernels_are_all_known_are_passed_over(store: Store) -> None:
    """Names are all that tells these networks apart; the fourth and fifth would teach nothing."""
    ends: list[Outcome] = []

    def named(number: int, spec: dict[str, Any]) -> Item:
        return replace(networks.item(2), name=f"toy/n{number}", spec=spec)

    same = [named(n, {"space": "toy", "n": n}) for n in range(3)]
    measure(same, store=store, rounds=2, skip_known=True, on_end=ends.append)
    target = named(5, {"target": "nets.py:toy"})
    more = [named(4, {"space": "toy"}), target, networks.item(3)]
    found = measure(more, store=store, rounds=2, skip_known=True, on_end=ends.append)
    assert [end.known for end in ends] == [[], ["toy/n4"]]
    assert [n.name for n in found.networks] == ["toy/n0", "toy/n1", "toy/n2", "toy/n5", "toy/3"]
    assert len(measure(more, store=store, rounds=2)) == 6  # unless it is asked to, a campaign passes nothing over


@pytest.mark.usefixtures("a_second_a_visit")
def test_an_endless_campaign_plans_as_many_rounds_as_its_time_allows(store: Store) -> None:
    said: list[tuple[float, float]] = []

    def progress(done: float, total: float, note: str) -> None:
        said.append((done, total))
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(networks.items(10**9), store=store, rounds=2, budget=2.5, progress=progress)
    assert said[-2:] == [(1, pytest.approx(2.5)), (2, pytest.approx(2.5))]  # a round a second
    assert all(done <= total for done, total in said)


def test_ctrl_c_keeps_every_round_that_was_taken_and_gives_up_its_claims(store: Store) -> None:
    def progress(done: float, total: float, note: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(list(networks.items(4)), store=store, rounds=4, progress=progress)
    place = 1
    assert sum(len(r) for r in store.rounds(place).values()) == 3
    assert store.claim(place, ["toy/1"], "elsewhere:1", seconds=60) == {"toy/1"}


# -- when a network is done -----------------------------------------------------------------------------


def test_a_network_is_done_after_enough_undisturbed_rounds() -> None:
    plan = Plan(rounds=3)
    assert not plan.is_met([visit(1.0)] * 2)
    assert plan.is_met([visit(1.0)] * 3)
    assert not plan.is_met([visit(1.0), visit(1.0), visit(1.0, waited=0.5)])


def test_a_spread_asked_for_is_waited_for_but_not_for_ever() -> None:
    plan = Plan(rounds=3, spread=0.015)
    wild = [visit(s) for s in (1.0, 1.5, 2.0, 2.5, 3.0)]
    assert plan.is_met([visit(1.0)] * 3)
    assert not plan.is_met(wild)
    assert plan.is_met([*wild, visit(4.0)])


@pytest.mark.usefixtures("a_second_a_visit")
def test_a_budget_is_spent_until_a_spread_is_met(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the rounds are what each gets at first; here none ever repeats as well as was asked for."""
    monkeypatch.setattr(Plan, "is_reached", lambda plan, rounds: False)
    measure(list(networks.items(2)), store=store, rounds=2, spread=0.015, budget=12.5)
    assert [len(rounds) for rounds in store.rounds(1).values()] == [7, 6]
    other = Store.open(tmp_path / "other.db", create=True)
    measure(list(networks.items(2)), store=other, rounds=2, spread=0.015, budget=60.0, insist=False)
    assert [len(rounds) for rounds in other.rounds(1).values()] == [4, 4]


# -- networks made ready ------------------------------------------------------------------------------------


def deep() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    layers = [layer for _ in range(60) for layer in (nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers), (torch.empty(1, 32, 8, 8, device="meta"),)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_activations_neither_vanish_nor_overflow_in_a_deep_network(device: str) -> None:
    def build() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        with torch.device(device):
            return deep()

    module, inputs = materialise(build)
    out = module(*inputs)
    assert not module.training
    assert out.isfinite().all()
    assert 1e-6 < float(out.abs().max()) < 1e6


def test_a_network_is_put_where_the_campaign_measures() -> None:
    module, inputs = materialise(networks.item(3).build, "meta")  # the one other device that every machine has
    assert {t.device.type for t in (*module.parameters(), *module.buffers(), *inputs)} == {"meta"}


def test_normalisation_keeps_its_statistics() -> None:
    module, _ = materialise(lambda: (nn.Sequential(nn.BatchNorm2d(4), nn.LayerNorm(4)), ()))
    assert module[0].running_var.eq(1).all()
    assert module[0].running_mean.eq(0).all()
    assert module[1].weight.eq(1).all()


def test_a_session_runs_the_module_that_was_built() -> None:
    module, inputs = materialise(networks.item(3).build)
    session = get_runtime("torch-eager").prepare(module, inputs, threads=1)
    with torch.inference_mode():
        assert torch.equal(session.run(), module(*inputs))


# -- a campaign that is killed ----------------------------------------------------------------------------


def start(url: Path | str, count: int, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(NETWORKS), str(url), str(count), str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def stored(url: Path) -> list[tuple[int, int]]:
    """(network, round) of every round in the store; opening it is part of the test."""
    store = Store.open(url)
    rows = [
        (number, i)
        for number, rounds in enumerate(store.rounds(1).values(), start=1)  # in the order of their row numbers
        for i, taken in enumerate(rounds)
        if len(taken.whole)
    ]
    store.close()
    return rows


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill -9")
def test_kill_9_loses_nothing_that_was_reported_and_repeats_nothing(tmp_path: Path) -> None:
    kills = int(os.environ.get("HWCOST_TEST_KILLS", "3"))
    count, rounds, rng = max(36, 2 * kills), 4, random.Random(0)
    url, reported = tmp_path / "m.db", list[tuple[int, int]]()
    for _ in range(kills):
        process = start(url, count, rounds)
        assert process.stdout is not None
        early = rng.random() < 0.25  # anywhere from the start on, else among the rounds
        first = "" if early else process.stdout.readline()
        time.sleep(rng.uniform(0.0, 4.0 if early else 0.4))
        process.kill()
        lines = [first, *process.stdout.read().splitlines()]
        process.wait()
        reported += [(int(a), int(b)) for a, b in (line.split() for line in lines if len(line.split()) == 2)]
        assert not reported or set(reported) <= set(stored(url))
    last = start(url, count, rounds)
    out, _ = last.communicate()
    lines = out.splitlines()
    assert lines[-1] == "end"
    reported += [(int(a), int(b)) for a, b in (line.split() for line in lines[:-1])]
    assert max(Counter(reported).values()) == 1
    assert set(reported) <= set(stored(url))
    assert {network for network, _ in stored(url)} == set(range(1, count + 1))
    assert min(Counter(network for network, _ in stored(url)).values()) >= rounds


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that several processes may use, still to be made."""
    if request.param == "sqlite":
        return str(tmp_path / "m.db")
    url = os.environ.get("HWCOST_TEST_POSTGRESQL", "")
    if not url:
        pytest.skip("HWCOST_TEST_POSTGRESQL names no database")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    schema.metadata.drop_all(engine)
    engine.dispose()
    return url


def test_processes_on_one_campaign_take_every_network_once(shared: str) -> None:
    """A round that two processes took would be reported twice, or refused by the store and end one of them."""
    count, rounds = 40, 3
    together = [start(shared, count, rounds) for _ in range(4)]
    reported: list[tuple[int, int]] = []
    for process in together:
        out, _ = process.communicate()
        assert process.returncode == 0
        reported += [(int(a), int(b)) for a, b in (line.split() for line in out.splitlines()[:-1])]
    assert max(Counter(reported).values()) == 1
    assert Counter(network for network, _ in reported) == Counter(rounds_of(shared))
    assert min(Counter(network for network, _ in reported).values()) >= rounds
    assert len({network for network, _ in reported}) == count


def rounds_of(url: str) -> dict[int, int]:
    """How many rounds the store holds of each network, by its row number."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:") if "://" in url else f"sqlite:///{url}")
    query = select(schema.round_.c.network_id, func.count().label("rounds")).group_by(schema.round_.c.network_id)
    with engine.connect() as connection:
        return {row.network_id: row.rounds for row in connection.execute(query)}
