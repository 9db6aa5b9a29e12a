"""A campaign: many networks measured in interleaved rounds, into a store.

Networks are loaded in waves, as many at a time as memory and time allow. Within a wave, each pass visits every network
that still needs rounds, so that the rounds of a network are spread over the whole wave.

A network is done when it has enough undisturbed rounds and its spread is at most the one asked for. It also counts as
done, for the time being, when it has twice as many rounds as were asked for, so that other networks get their turn.
Time that is left in the end goes to the networks whose spread is still too wide.

Every round is written to the store as soon as it is taken, so a campaign that was killed goes on where it stopped.
Several processes may work on one campaign: each claims the networks that it loads, and passes over those that another
process has claimed.

With `skip_known`, a campaign leaves out networks of a search space that hold nothing new: a kernel is known in its
context (the bucket of its reuse distance) when it is part of three complete networks of the same environment, and a
network is left out when all its kernels are known.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hwcost import units
from hwcost.kernel import bucket
from hwcost.measure.clock import WAIT, Round, quiet_interpreter, take_round, warm_up, whole_timing
from hwcost.measure.machine import check_device, check_threads, environment, free_memory
from hwcost.measure.pace import pace_of, remember
from hwcost.measure.process import flush_denormals, keep_freed_memory, pinning, torch_threads, worker_name
from hwcost.measure.statistics import DRIFT
from hwcost.measure.store.store import Store
from hwcost.measure.targets import first_line
from hwcost.measure.types import Environment, Item, MeasurementError, Measurements
from hwcost.runtimes.base import Network, Runtime, Session
from hwcost.runtimes.registry import get_runtime

if TYPE_CHECKING:
    from torch import nn

Progress = Callable[[float, float, str], None]  # rounds done, rounds planned, what is done now

_MEMORY_SHARE = 0.25  # of the free memory, that the networks of a wave may take
_MOST_MEMORY = 0.5  # of the free memory, that one network may take: exporters hold it twice
_WAVE = 300.0  # s that a wave should take at most, so that other processes find networks to take
_CLAIM = 600.0  # s after which a claim that was not renewed lapses
_RENEWAL = 60.0  # s between renewals
_ENOUGH = 3  # complete networks that hold a kernel in its context, for it to be known
_NEWEST = 0.1  # weight of the last visit in the moving average of waiting times
_CALM_VISIT = (6.0, 0.12)  # a visit on a calm machine takes as long as so many runs, but at least so many s


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a campaign asks for."""

    rounds: int = 8  # undisturbed rounds of each network, at least
    spread: float = math.inf  # the one to reach
    budget: float = math.inf  # s of wall time
    insist: bool = True  # spend what is left of the budget on networks whose spread is too wide
    patience: int = 2  # a network gets at most this many times `rounds`

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise MeasurementError(f"rounds must be at least 2, or no spread is known, but got rounds={self.rounds}")
        if not self.spread > 0 or not self.budget > 0:
            raise MeasurementError(f"spread and budget must be above 0, but got {self.spread} and {self.budget} s")
        if self.spread < DRIFT:
            raise MeasurementError(
                f"spread must be at least {DRIFT}, by which campaigns at different hours differ, but got {self.spread}"
            )

    def is_met(self, rounds: Sequence[Round]) -> bool:
        """Whether a network with these rounds needs no more: it reached the spread, or used up its rounds."""
        return len(rounds) >= self.patience * self.rounds or self.is_reached(rounds)

    def is_reached(self, rounds: Sequence[Round]) -> bool:
        """Whether a network has enough undisturbed rounds and the spread that was asked for."""
        undisturbed = sum(not r.disturbed for r in rounds)
        return undisturbed >= self.rounds and (math.isinf(self.spread) or whole_timing(rounds).spread <= self.spread)

    @property
    def insists(self) -> bool:
        """Whether networks whose spread is too wide are visited again; only where a spread and a budget were given."""
        return self.insist and math.isfinite(self.spread) and math.isfinite(self.budget)


@dataclass(slots=True)
class Outcome:
    """How a campaign went."""

    done: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)  # left out: every kernel is known in its context
    elsewhere: list[str] = field(default_factory=list)  # claimed by another process
    failed: dict[str, str] = field(default_factory=dict)  # name -> why
    visits: int = 0
    disturbed: int = 0  # of these visits
    timed: float = 0.0  # s of visits and first warm-ups, with waiting for a calm CPU and making profiles
    running: float = 0.0  # s of these in which a network ran
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
    """Measure networks and their kernels in context; returns all that the store then holds of this environment.

    Networks of which the store has enough rounds are not measured again; those that were begun are finished.
    From the call on, the process keeps memory that it frees (`hwcost.measure.process.keep_freed_memory`). With a
    runtime that takes activations from the process's heap (`Runtime.keeps_heap`), a process that has measured hundreds
    of networks gives longer times: use several processes, as `hwcost measure` does.

    Args:
        items: the networks, each with a name of its own; may be endless where a budget is given.
        runtime: the name of a runtime.
        threads: number of threads; they are bound to cores where the system allows it.
        store: open for writing.
        rounds: undisturbed rounds of each network, at least.
        spread: the spread to reach, 0.015 or more; a network gets up to twice the rounds for it.
        budget: wall time (s) after which no new round begins.
        insist: spend what is left of the budget on networks that did not reach the spread.
        skip_known: leave out networks of a space whose kernels are all known in their contexts.
        device: where the networks run: "cpu", or "cuda" where the runtime may run on it (untested on hardware).
        progress: called with (rounds done, rounds planned, what is done now).
        on_end: called with the outcome.

    Raises:
        MeasurementError: a bad argument, or no network could be measured. If only some could not, it warns.
        RuntimeUnavailable: the runtime's package is not installed.
    """
    plan = Plan(rounds=rounds, spread=spread, budget=budget, insist=insist)
    check_threads(threads)
    check_device(device, runtime)
    chosen = get_runtime(runtime)
    keep_freed_memory()
    with pinning(threads) as pinned, torch_threads(threads), flush_denormals():
        here = environment(chosen, threads, pinned=pinned, device=device)
        campaign = Campaign(chosen, here, store, plan, progress, skip_known=skip_known)
        outcome = campaign.run(items)
    if on_end:
        on_end(outcome)
    if outcome.failed:
        name, why = next(iter(outcome.failed.items()))
        if not outcome.done:
            raise MeasurementError(f"none of {len(outcome.failed)} networks could be measured; {name}: {why}")
        warnings.warn(f"{len(outcome.failed)} network(s) could not be measured; {name}: {why}", stacklevel=2)
    if any(networks and not e.differences(here) for e, networks in store.environments()):
        return store.measurements(environment=here, spread=plan.spread)
    return Measurements(environment=here, networks=())  # other processes have claimed every network


class _KnownKernels:
    """How many complete networks of an environment hold each kernel in its context."""

    def __init__(self, store: Store, environment_id: int, rounds: int) -> None:
        self._networks = Counter(
            context
            for network in store.contexts(environment_id, rounds)
            for context in {(digest, bucket(distance)) for digest, distance in network}
        )

    def add(self, networks: Iterable[Network]) -> None:
        """Count networks that have become complete."""
        for network in networks:
            self._networks.update(self._contexts(network))

    def hold_all_of(self, network: Network) -> bool:
        """Whether every kernel of the network is known in its context."""
        return all(self._networks[context] >= _ENOUGH for context in self._contexts(network))

    @staticmethod
    def _contexts(network: Network) -> set[tuple[str, int]]:
        return {(p.kernel.digest, bucket(p.distance)) for p in network.kernels}


@dataclass(slots=True, eq=False)
class _Loaded:
    """A network of the wave, ready to run."""

    item: Item
    network_id: int
    session: Session
    rounds: list[Round]
    expected: float  # s that a run takes

    @property
    def visit_time(self) -> float:
        """Seconds that a visit takes on a calm machine."""
        runs, seconds = _CALM_VISIT
        return max(runs * self.expected, seconds)


class Campaign:
    """One process's part of a campaign: `run` measures, `outcome` says how it went."""

    def __init__(
        self,
        runtime: Runtime,
        here: Environment,
        store: Store,
        plan: Plan,
        progress: Progress | None = None,
        *,
        skip_known: bool = False,
    ) -> None:
        self._runtime, self._store, self._plan = runtime, store, plan
        self._threads, self._device = here.threads, here.versions.get("device", "cpu")
        self._environment = store.environment_id(here)
        self._worker = worker_name()
        self._pace = pace_of(self._threads, of_torch=runtime.on_torch_threads)
        self._progress = progress or (lambda done, total, note: None)
        self._known = _KnownKernels(store, self._environment, plan.rounds) if skip_known else None
        self._claimed: set[str] = set()  # names of networks that are not done
        self._too_wide: list[Item] = []  # done, but without reaching the spread that was asked for
        self._endless = False
        self._begun = self._renewed = time.monotonic()
        self._waiting = 0.0  # s that a visit lately took longer than on a calm machine
        self._planned = 0  # rounds
        self._taken = 0  # rounds, of those planned
        self.outcome = Outcome()

    def run(self, items: Iterable[Item]) -> Outcome:
        """Measure wave after wave until the items or the budget end.

        Where the plan insists, networks that did not reach the spread are then visited again, each time with twice the
        rounds, until they do or the budget ends.
        """
        self._begun = time.monotonic()
        self._pace.wait(WAIT)
        self._waiting = self._elapsed()
        try:
            self._waves(self._queue(items))
            while self._too_wide and self._elapsed() < self._plan.budget:
                again, self._too_wide = self._too_wide, []
                self._plan = replace(self._plan, patience=2 * self._plan.patience)
                self._waves(self._queue(again))
        finally:
            self._store.release(self._environment, self._worker)
            remember(self._pace, self._threads)
            self.outcome.wall = self._elapsed()
        return self.outcome

    def _elapsed(self) -> float:
        """Seconds since the campaign began."""
        return time.monotonic() - self._begun

    def _waves(self, queue: Iterator[tuple[Item, list[Round]]]) -> None:
        while self._elapsed() < self._plan.budget:
            wave = self._load(queue)
            if not wave:
                break
            self._visit_all(wave)

    def _done(self, item: Item, rounds: Sequence[Round]) -> None:
        """Note that a network is done, and whether to come back to it."""
        if item.name not in self.outcome.done:
            self.outcome.done.append(item.name)
        if self._plan.insists and not self._plan.is_reached(rounds):
            self._too_wide.append(item)

    # -- which networks ---------------------------------------------------------------------------

    def _queue(self, items: Iterable[Item]) -> Iterator[tuple[Item, list[Round]]]:
        """Items that are neither done nor claimed by another process, with the rounds they have; claims them."""
        total = len({item.name for item in items}) if isinstance(items, Sequence) else 0
        self._planned, self._endless = self._planned + total * self._plan.rounds, not total
        for batch in _batches(_once(items), 16):
            names = [item.name for item in batch]
            free = self._claim(names)
            self._claimed |= free
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

    def _load(self, queue: Iterator[tuple[Item, list[Round]]]) -> list[_Loaded]:
        """Load networks of the queue for a wave, as many as memory and time allow."""
        from hwcost.measure.materialise import materialise

        wave: list[_Loaded] = []
        least_free, time_needed = free_memory() * (1 - _MEMORY_SHARE), 0.0
        for item, rounds in queue:
            try:
                module, inputs = materialise(item.build, self._device, self._check_memory)
                session = self._runtime.prepare(module, inputs, threads=self._threads)
                if self._known and not rounds and "space" in item.spec and self._known.hold_all_of(session.network):
                    self._leave_out(item)
                    continue
                self._warm(wave, item, rounds, session)
            except Exception as error:  # a network that does not run is the user's matter; the others go on
                self.outcome.failed[item.name] = first_line(error)
                self._planned -= self._plan.rounds
                continue
            self._tell(f"loading {item.name}")
            # Of a sample of a space it is better to have fewer networks with all their rounds, so time that will be
            # spent waiting is planned for. Of networks that the user named, all should get some rounds.
            time_needed += self._plan.rounds * (wave[-1].visit_time + (self._waiting if self._known else 0.0))
            too_long = time_needed > _WAVE or self._elapsed() + time_needed > self._plan.budget
            if too_long or free_memory() < least_free:
                break
        return wave

    def _check_memory(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Raise a MeasurementError for a network that memory does not hold: the system would kill this process."""
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

    def _leave_out(self, item: Item) -> None:
        """Note that a network holds no kernel that is new."""
        self.outcome.known.append(item.name)
        self._claimed.discard(item.name)
        self._planned -= self._plan.rounds

    def _warm(self, wave: list[_Loaded], item: Item, rounds: list[Round], session: Session) -> None:
        """Warm the network up, and add it to the store and to the wave."""
        begun = time.monotonic()
        expected = warm_up(session)
        self.outcome.running += time.monotonic() - begun
        session.profile()
        self.outcome.timed += time.monotonic() - begun
        network_id = self._store.add_network(self._environment, item, session.network)
        wave.append(_Loaded(item, network_id, session, rounds, expected))

    # -- the rounds -------------------------------------------------------------------------------

    def _visit_all(self, wave: list[_Loaded]) -> None:
        """Visit the networks of the wave in turn until all are done or the budget ends."""
        unfinished, self._renewed = list(wave), -math.inf  # claims are renewed at once: loading may have taken long
        with quiet_interpreter():
            while unfinished:
                if time.monotonic() - self._renewed > _RENEWAL:
                    kept = self._claim(self._claimed)
                    unfinished = [n for n in unfinished if n.item.name in kept]  # lapsed claims may be lost
                for network in unfinished:
                    if self._elapsed() > self._plan.budget:
                        return
                    self._visit(network)
                done = [n for n in unfinished if self._plan.is_met(n.rounds)]
                for network in done:
                    self._done(network.item, network.rounds)
                self._claimed -= {n.item.name for n in done}
                if self._known:
                    self._known.add(n.session.network for n in done)
                unfinished = [n for n in unfinished if n not in done]

    def _visit(self, network: _Loaded) -> None:
        begun = time.monotonic()
        taken = take_round(network.session, network.expected, threads=self._threads, pace=self._pace)
        took = time.monotonic() - begun
        self._waiting += _NEWEST * (max(took - network.visit_time, 0.0) - self._waiting)
        self.outcome.timed += took
        self.outcome.running += taken.running
        self.outcome.visits += 1
        self.outcome.disturbed += taken.disturbed
        self._store.add_round(network.network_id, len(network.rounds), taken)
        network.rounds.append(taken)
        self._taken += 1
        self._tell(network.item.name)

    def _claim(self, names: Iterable[str]) -> set[str]:
        """Claim networks, or renew the claims; returns those that this process now holds."""
        self._renewed = time.monotonic()
        return self._store.claim(self._environment, names, self._worker, seconds=_CLAIM)

    def _tell(self, note: str) -> None:
        """Report progress; an endless campaign plans as many rounds as its budget allows at the present rate."""
        planned = float(self._planned)
        if self._endless and math.isfinite(self._plan.budget):
            share = self._elapsed() / self._plan.budget
            planned = self._taken / min(share, 1.0) if share > 0 else planned
        self._progress(self._taken, max(planned, self._taken), note)


def _once(items: Iterable[Item]) -> Iterator[Item]:
    """Each network once, by name."""
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
