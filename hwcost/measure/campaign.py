"""A campaign: many networks measured in interleaved rounds, into a store, as long as it takes.

Networks are held in memory in *waves*, as many as fit; within a wave each round visits every
network that still needs one, so that each is timed over the whole length of its wave. A network is
done when it has enough undisturbed rounds and its spread is what was asked for, or, as long as others
wait, when twice as many rounds did not get it there: what is left of the budget of time in the end goes
to those. Every round is written when it is taken: a campaign that was killed
goes on where it stopped, and a second process takes the networks that the first does not hold.

Where it is asked to, a campaign passes over networks of a search space that would teach it nothing: each of
their kernels, in that context, is already part of three complete networks of the same environment.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hwcost import units
from hwcost.measure.clock import WAIT, Round, quiet_interpreter, take_round, warm_up, whole_timing
from hwcost.measure.enough import Known
from hwcost.measure.machine import (
    check_device,
    check_threads,
    environment,
    free_memory,
    keep_freed_memory,
    pinning,
    torch_threads,
    vanishing_is_zero,
    worker_name,
)
from hwcost.measure.pace import pace_of, remember
from hwcost.measure.statistics import DRIFT
from hwcost.measure.store.store import Store
from hwcost.measure.types import Environment, Item, MeasurementError, Measurements
from hwcost.runtimes.base import Runtime, Session
from hwcost.runtimes.registry import get_runtime

if TYPE_CHECKING:
    from torch import nn

Progress = Callable[[float, float, str], None]  # done, total, what it is at

_MEMORY_SHARE = 0.25  # of the memory that is free, that a wave may take
_MOST_MEMORY = 0.5  # of the memory that is free, that a network may take: exporters hold it twice
_WAVE = 300.0  # s that a wave should take at most, so that other processes find networks to take
_CLAIM = 600.0  # s without a sign of life after which a claim lapses
_RENEWAL = 60.0  # s between signs of life
_FORGETS = 0.1  # weight of the last visit in what a visit is known to wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a campaign asks for."""

    rounds: int = 8  # least undisturbed rounds of each network
    spread: float = math.inf  # relative half-width of a 90 % interval to reach
    budget: float = math.inf  # s of wall time
    insist: bool = True  # spend what is left of a budget on networks whose spread is too wide
    patience: int = 2  # a network gets at most this many times the rounds

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise MeasurementError(f"rounds must be at least 2, or no spread is known, but got rounds={self.rounds}")
        if not self.spread > 0 or not self.budget > 0:
            raise MeasurementError(f"spread and budget must be above 0, but got {self.spread} and {self.budget} s")
        if self.spread < DRIFT:
            raise MeasurementError(
                f"spread must be at least {DRIFT}, by which campaigns on different hours differ, but got {self.spread}"
            )

    def is_met(self, rounds: Sequence[Round]) -> bool:
        """Whether a network with these rounds is done, for better or worse."""
        return len(rounds) >= self.patience * self.rounds or self.is_reached(rounds)

    def is_reached(self, rounds: Sequence[Round]) -> bool:
        """Whether a network with these rounds is as repeatable as was asked for."""
        quiet = sum(not r.disturbed for r in rounds)
        return quiet >= self.rounds and (math.isinf(self.spread) or whole_timing(rounds).spread <= self.spread)

    @property
    def insists(self) -> bool:
        """Whether there is a spread to reach, and a time in which to try."""
        return self.insist and math.isfinite(self.spread) and math.isfinite(self.budget)


@dataclass(slots=True)
class Outcome:
    """How a campaign went."""

    done: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)  # passed over: every kernel is known in its context
    elsewhere: list[str] = field(default_factory=list)  # left to another process, which holds them
    failed: dict[str, str] = field(default_factory=dict)  # name -> why
    visits: int = 0
    disturbed: int = 0  # visits of which no run, or too little of the time, was the machine's own
    timed: float = 0.0  # s in visits and warm-ups: with waiting for a calm CPU, and the runtime's making of a profile
    running: float = 0.0  # s of these in which a network ran, for the clock or to warm up
    wall: float = 0.0  # s in all


def measure(
    items: Iterable[Item],
    *,
    runtime: str = "torch-eager",
    threads: int = 1,
    store: Store,
    rounds: int = 8,
    spread: float = math.inf,
    budget: float = math.inf,
    insist: bool = True,
    skip_known: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    on_end: Callable[[Outcome], None] | None = None,
) -> Measurements:
    """Measure networks and their kernels in context; returns what the store has of this environment.

    Networks that the store has complete are skipped; those that were begun are finished. The process keeps
    memory that it frees from then on (`hwcost.measure.machine.keep_freed_memory`). On torch, a process that
    has measured hundreds of networks gives longer times: use several, as `hwcost measure` does.

    Args:
        items: the networks, of unique name; may be endless where a budget is given.
        runtime: a name of `hwcost.runtimes`.
        threads: number of threads; they are bound to cores where the system allows it.
        store: open for writing.
        rounds: undisturbed rounds of each network, at least.
        spread: go on, up to twice the rounds, until the spread is at most this, 0.015 or more.
        budget: wall time (s) after which no new round begins.
        insist: what is left of the budget goes to networks whose spread is above the one asked for.
        skip_known: pass over networks of a space whose kernels are all known in their contexts.
        device: where the networks are put: "cpu", or "cuda" with torch-eager (untested on hardware).
        progress: told (rounds done, rounds planned, what it is at).
        on_end: told how the campaign went.

    Raises:
        MeasurementError: a bad argument, or no network could be measured; some that could not are warned of.
        RuntimeUnavailable: the runtime's package is not installed.
    """
    plan = Plan(rounds=rounds, spread=spread, budget=budget, insist=insist)
    check_threads(threads)
    check_device(device, runtime)
    chosen = get_runtime(runtime)
    keep_freed_memory()
    with pinning(threads) as pinned, torch_threads(threads), vanishing_is_zero():
        place = environment(chosen, threads, pinned=pinned, device=device)
        campaign = Campaign(chosen, place, store, plan, progress, skip_known=skip_known)
        outcome = campaign.run(items)
    if on_end:
        on_end(outcome)
    if outcome.failed:
        name, why = next(iter(outcome.failed.items()))
        if not outcome.done:
            raise MeasurementError(f"none of {len(outcome.failed)} networks could be measured; {name}: {why}")
        warnings.warn(f"{len(outcome.failed)} network(s) could not be measured; {name}: {why}", stacklevel=2)
    if any(networks and not e.differences(place) for e, networks in store.environments()):
        return store.measurements(environment=place, spread=plan.spread)
    return Measurements(environment=place, networks=())  # other processes hold every network


@dataclass(slots=True)
class _Visited:
    """A network of the wave."""

    item: Item
    network_id: int
    session: Session
    rounds: list[Round]
    expected: float  # s of one run


class Campaign:
    """One process's part of a campaign; `run` does it, `outcome` tells how it went."""

    def __init__(
        self,
        runtime: Runtime,
        place: Environment,
        store: Store,
        plan: Plan,
        progress: Progress | None = None,
        *,
        skip_known: bool = False,
    ) -> None:
        self._runtime, self._place, self._store, self._plan = runtime, place, store, plan
        self._environment = store.environment_id(place)
        self._worker = worker_name()
        self._pace = pace_of(place.threads, of_torch=runtime.on_torch_threads)
        self._told = progress or (lambda done, total, note: None)
        self._known = Known(store, self._environment, plan.rounds) if skip_known else None
        self._held: set[str] = set()  # names claimed and not done
        self._wide: list[Item] = []  # done without reaching the spread asked for
        self._endless = False
        self._begun = self._renewed = time.monotonic()
        self._waited = 0.0  # s that a visit takes longer than it should, of late
        self._planned = 0
        self._taken = 0
        self.outcome = Outcome()

    def run(self, items: Iterable[Item]) -> Outcome:
        """Measure wave after wave until the items or the budget end; with patience, where the plan insists."""
        start = self._begun = time.monotonic()
        self._pace.wait(WAIT)
        self._waited = time.monotonic() - start
        try:
            self._waves(self._waiting(items), start)
            while self._wide and time.monotonic() - start < self._plan.budget:
                again, self._wide = self._wide, []
                self._plan = replace(self._plan, patience=2 * self._plan.patience)
                self._waves(self._waiting(again), start)
        finally:
            self._store.release(self._environment, self._worker)
            remember(self._pace, self._place.threads)
            self.outcome.wall = time.monotonic() - start
        return self.outcome

    def _waves(self, queue: Iterator[tuple[Item, list[Round]]], start: float) -> None:
        while time.monotonic() - start < self._plan.budget:
            wave = self._load(queue, start)
            if not wave:
                break
            self._visit(wave, start)

    def _done(self, item: Item, rounds: Sequence[Round]) -> None:
        """Done, but perhaps not for good."""
        self.outcome.done += [item.name] if item.name not in self.outcome.done else []
        if self._plan.insists and not self._plan.is_reached(rounds):
            self._wide.append(item)

    # -- which networks ---------------------------------------------------------------------------

    def _waiting(self, items: Iterable[Item]) -> Iterator[tuple[Item, list[Round]]]:
        """Items that are neither complete nor held by another process, with the rounds they have."""
        total = len({item.name for item in items}) if isinstance(items, Sequence) else 0
        self._planned, self._endless = self._planned + total * self._plan.rounds, not total
        for batch in _batches(_once(items), 16):
            names = [item.name for item in batch]
            free = self._claim(names)
            self._held |= free
            begun = self._store.rounds(self._environment, names)
            if not total:
                self._planned += len(batch) * self._plan.rounds
            for item in batch:
                rounds = begun.get(item.name, [])
                if self._plan.is_met(rounds):
                    self._done(item, rounds)
                    self._taken += self._plan.rounds
                elif item.name in free:
                    self._taken += min(len(rounds), self._plan.rounds)
                    yield item, rounds
                else:
                    self.outcome.elsewhere.append(item.name)
                    self._planned -= self._plan.rounds

    def _load(self, queue: Iterator[tuple[Item, list[Round]]], start: float) -> list[_Visited]:
        """Build networks until memory, the budget or the queue is full."""
        from hwcost.measure.materialise import materialise

        wave: list[_Visited] = []
        least, cost = free_memory() * (1 - _MEMORY_SHARE), 0.0
        for item, rounds in queue:
            try:
                module, inputs = materialise(item.build, self._place.versions.get("device", "cpu"), self._check_memory)
                session = self._runtime.prepare(module, inputs, threads=self._place.threads)
                if self._known and not rounds and "space" in item.spec and self._known.holds(session.network):
                    self._pass_over(item)
                    continue
                self._warm(wave, item, rounds, session)
            except Exception as error:  # a network that does not run is the user's; the others go on
                self.outcome.failed[item.name] = _brief(error)
                self._planned -= self._plan.rounds
                continue
            self._tell(f"loading {item.name}")
            # of a space's sample, fewer networks with all their rounds; of a list, all with what there is time for
            cost += self._plan.rounds * (_expected(wave[-1]) + (self._waited if self._known else 0.0))
            if free_memory() < least or cost > _WAVE or time.monotonic() - start + cost > self._plan.budget:
                break
        return wave

    def _check_memory(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Raise a MeasurementError for a network that does not fit: the system would kill the campaign at it."""
        from hwcost.tracing.trace import TraceError, trace

        try:
            graph = trace(module, inputs)
        except TraceError:
            return  # a runtime may run what cannot be traced
        needs = max([graph.peak_memory, *(p.kernel.cost.bytes for p in self._runtime.lower(graph).kernels)])
        free = free_memory()
        if needs > _MOST_MEMORY * free:
            needed, there = units.format(needs, "byte"), units.format(free, "byte")
            raise MeasurementError(f"it needs {needed} of memory, more than half of what is free, {there}")

    def _pass_over(self, item: Item) -> None:
        self.outcome.known.append(item.name)
        self._held.discard(item.name)
        self._planned -= self._plan.rounds

    def _warm(self, wave: list[_Visited], item: Item, rounds: list[Round], session: Session) -> None:
        begun = time.monotonic()
        expected = warm_up(session)
        self.outcome.running += time.monotonic() - begun
        session.profile()
        self.outcome.timed += time.monotonic() - begun
        network_id = self._store.add_network(self._environment, item, session.network)
        wave.append(_Visited(item, network_id, session, rounds, expected))

    # -- the rounds -------------------------------------------------------------------------------

    def _visit(self, wave: list[_Visited], start: float) -> None:
        """Interleaved rounds until every network of the wave is done, or the budget is."""
        open_, self._renewed = list(wave), -math.inf  # while they were loaded, the first claims grew old
        with quiet_interpreter():
            while open_:
                if time.monotonic() - self._renewed > _RENEWAL:
                    kept = self._claim(self._held)
                    open_ = [v for v in open_ if v.item.name in kept]  # a claim that lapsed may have been taken
                for visited in open_:
                    if time.monotonic() - start > self._plan.budget:
                        return
                    self._round(visited)
                done = [v for v in open_ if self._plan.is_met(v.rounds)]
                for visited in done:
                    self._done(visited.item, visited.rounds)
                self._held -= {v.item.name for v in done}
                if self._known:
                    self._known.add(v.session.network for v in done)
                open_ = [v for v in open_ if v not in done]

    def _round(self, visited: _Visited) -> None:
        begun = time.monotonic()
        taken = take_round(visited.session, visited.expected, threads=self._place.threads, pace=self._pace)
        took = time.monotonic() - begun
        self.outcome.timed += took
        self._waited += _FORGETS * (max(took - _expected(visited), 0.0) - self._waited)
        self.outcome.running += taken.running
        self.outcome.visits += 1
        self.outcome.disturbed += taken.disturbed
        self._store.add_round(visited.network_id, len(visited.rounds), taken)
        visited.rounds.append(taken)
        self._taken += 1
        self._tell(visited.item.name)

    def _claim(self, names: Iterable[str]) -> set[str]:
        self._renewed = time.monotonic()
        return self._store.claim(self._environment, names, self._worker, seconds=_CLAIM)

    def _tell(self, note: str) -> None:
        """Rounds done and planned; of an endless campaign, as many as its time will allow at this rate."""
        planned = float(self._planned)
        if self._endless and math.isfinite(self._plan.budget):
            share = (time.monotonic() - self._begun) / self._plan.budget
            planned = self._taken / min(share, 1.0) if share > 0 else planned
        self._told(self._taken, max(planned, self._taken), note)


def _expected(visited: _Visited) -> float:
    """Seconds of a visit on a calm machine."""
    return max(6 * visited.expected, 0.12)


def _once(items: Iterable[Item]) -> Iterator[Item]:
    """Each network once, however often it is named."""
    seen: set[str] = set()
    for item in items:
        if item.name not in seen:
            seen.add(item.name)
            yield item


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


__all__ = ["Campaign", "Item", "Outcome", "Plan", "measure"]
