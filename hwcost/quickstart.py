"""The main job on this machine, in steps: calibrate -> measure -> fit -> table -> search -> verify.

What a finished step made lies in the job's folder, and a later run uses it again. The verb `hwcost quickstart`
shows the progress of the steps and writes the page of the result; here are the steps alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

    from hwcost.device.device import Device
    from hwcost.measure.types import Measurements
    from hwcost.model.cost_model import CostModel
    from hwcost.report.result import Candidate, QuickstartResult, Winner
    from hwcost.spaces.base import Space
    from hwcost.table.table import LatencyTable

SPACE = "tiny-cnn"
RUNTIME = "torch-eager"
_SAMPLE = 10_000  # random architectures whose latencies show what latencies the space has

Progress = Callable[..., None]  # called with (done, total, note)


class QuickstartError(ValueError):
    """A job that cannot go on; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything. The defaults take about five minutes on two cores."""

    folder: Path
    threads: int = 1  # of the target; a training runs on one thread
    seed: int = 0
    networks: int = 120  # measured for the fit
    measuring: float = 110.0  # s at most
    rounds: int = 10  # of each network, spread over the whole time, so that the machine's drift falls on all alike
    trainings: int = 40
    steps: int = 80  # of each training
    budget_share: float = 0.4  # share of the space that fits the budget
    verified: int = 8  # architectures measured in the end, at most
    verifying: float = 30.0  # s at most


def _no_progress(title: str) -> AbstractContextManager[Progress]:
    return nullcontext(lambda *_: None)


def _silent(line: str) -> None:
    pass


@dataclass(kw_only=True)
class Job:
    """One run: its plan, and where it shows what it does."""

    plan: Plan
    progress: Callable[[str], AbstractContextManager[Progress]] = _no_progress  # shows a step with that title
    say: Callable[[str], None] = _silent  # prints one line
    seconds: dict[str, float] = field(default_factory=dict)  # duration of each step that was run

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show how far a step is, and note how long it took."""
        start = time.monotonic()
        with self.progress(f"{title:<10}") as bar:
            yield bar
        self.seconds[title] = time.monotonic() - start

    @cached_property
    def space(self) -> Space:
        """The search space."""
        from hwcost.spaces.registry import get_space

        return get_space(SPACE)

    def path(self, name: str) -> Path:
        """A file of the folder."""
        return self.plan.folder / name

    # -- the machine ------------------------------------------------------------------------------

    def calibrate(self) -> Device:
        """This machine with its measured ceilings."""
        from hwcost.calibration.run import calibrate
        from hwcost.device.device import Device

        path = self.path("device.toml")
        if path.exists():
            self.say(f"using the calibration in {path}; delete it to calibrate again")
            return Device.load(path)
        with self.step("calibrate") as bar:
            device = calibrate(self.plan.threads, progress=bar)
        device.save(path)
        return device

    def measure(self) -> Measurements:
        """Random networks of the space, with the time of each kernel inside them."""
        from itertools import islice

        from hwcost.measure.campaign import measure
        from hwcost.measure.items import sampled_items
        from hwcost.measure.store.store import Store

        plan = self.plan
        items = list(islice(sampled_items(self.space, seed=plan.seed), plan.networks))
        store = Store.open(self.path("measurements.db"), create=True)
        with self.step("measure") as bar:
            return measure(
                items,
                runtime=RUNTIME,
                threads=plan.threads,
                store=store,
                rounds=plan.rounds,
                budget=plan.measuring,
                progress=bar,
            )

    def model(self, device: Device) -> CostModel:
        """The cost model, with its accuracy on networks held out of the fit.

        It is fitted once: the table, the budget and the study are of this model.
        """
        from hwcost.model.cost_model import CostModel

        path = self.path("model.hwcost")
        if path.exists():
            self.say(f"using the model in {path}; delete it to measure more networks and fit again")
            return CostModel.load(path)
        measurements = self.measure()
        with self.step("fit") as bar:
            model = CostModel.fit(measurements, device=device)
            bar(1, 1)
        model.save(path)
        return model

    def table(self, model: CostModel) -> LatencyTable:
        """The latency table of the space."""
        from hwcost.table.schema import TableError
        from hwcost.table.table import LatencyTable

        path = self.path(f"{SPACE}.parquet")
        try:
            table = LatencyTable.load(path)
            if table.meta["model"] == model.digest:
                return table
        except TableError:
            pass  # there is none yet, or an unfinished one: it is made again
        with self.step("table") as bar:
            table = LatencyTable.build(self.space, model, progress=bar)
        table.save(path)
        return table

    # -- the search -------------------------------------------------------------------------------

    def budget(self, table: LatencyTable) -> float:
        """The latency (s), rounded to two digits, that the planned share of the space does not exceed."""
        import numpy as np

        rng = np.random.default_rng(self.plan.seed)
        choices = np.column_stack([rng.integers(0, n, _SAMPLE) for n in table.choices])
        return float(f"{np.quantile(table.latency(choices), self.plan.budget_share):.2g}")

    def search(self, table: LatencyTable, budget: float) -> optuna.Study:
        """The Optuna study of accuracy and latency; what is predicted to be over the budget is not trained."""
        from hwcost.search import LatencyObjective, run_study
        from hwcost.search.digits import Trainer

        objective = LatencyObjective(
            build=self.space.suggest,
            evaluate=partial(train, self.space, Trainer(seed=self.plan.seed, steps=self.plan.steps)),
            model=table,
            budget=budget,
            form="pareto",
        )
        with self.step("search") as bar:
            return run_study(
                objective,
                trainings=self.plan.trainings,
                seed=self.plan.seed,
                storage=f"sqlite:///{self.path('study.db')}",
                name=f"{SPACE} within {budget:.4g} s by {table.meta['model'][:8]}",
                progress=bar,
            )

    def verify(self, chosen: Sequence[Mapping[str, Any]]) -> Measurements:
        """The chosen architectures, measured now, in a store of their own."""
        from hwcost.measure.campaign import measure
        from hwcost.measure.items import space_item
        from hwcost.measure.store.store import Store

        items = [space_item(self.space, params) for params in chosen]
        store = Store.open(self.path("verification.db"), create=True)
        with self.step("verify") as bar:
            return measure(
                items,
                runtime=RUNTIME,
                threads=self.plan.threads,
                store=store,
                rounds=4 * self.plan.rounds,
                budget=self.plan.verifying,
                progress=bar,
            )


def train(space: Space, trainer: Callable[..., float], params: Mapping[str, Any], trial: Any) -> float:
    """Build and train one architecture; returns its validation accuracy."""
    return trainer(space.build(params), trial)


def run(job: Job, commands: tuple[str, ...] = ()) -> QuickstartResult:
    """Do all steps.

    Args:
        job: what to do.
        commands: command lines that do it again, for the page.

    Raises:
        QuickstartError: the search trained nothing within the budget.
    """
    from hwcost.report.result import QuickstartResult

    device = job.calibrate()
    model = job.model(device)
    table = job.table(model)
    budget = job.budget(table)
    study = job.search(table, budget)
    front = front_of(study, job.plan.verified)
    by_accuracy = reversed(front)  # where time does not suffice for all, the most accurate one is measured first
    verified = job.verify([job.space.suggest(_fixed(trial)) for trial in by_accuracy])
    assert model.held_out is not None  # it is fitted
    assert model.measurements is not None
    return QuickstartResult(
        device=device,
        runtime=RUNTIME,
        threads=job.plan.threads,
        space=SPACE,
        task="scikit-learn's digits",
        budget=budget,
        held_out=model.held_out,
        candidates=candidates(study),
        winners=_winners(job, model, front, verified),
        training_seconds=_training_seconds(study),
        environment=_environment(model.measurements),
        stages=job.seconds,
        commands=commands,
    )


def front_of(study: optuna.Study, most: int) -> list[optuna.trial.FrozenTrial]:
    """The trained trials of the study's Pareto front, by latency; of more than `most` a selection with both ends.

    Raises:
        QuickstartError: nothing was trained within the budget.
    """
    from hwcost.search.once import is_training

    front = sorted((t for t in study.best_trials if is_training(t)), key=lambda t: t.values[1])
    if not front:
        raise QuickstartError(
            "the search trained nothing within the budget; raise --trainings, or start anew with another -o"
        )
    if len(front) <= most:
        return front
    step = (len(front) - 1) / (most - 1)
    return [front[round(i * step)] for i in range(most)]


def candidates(study: optuna.Study) -> tuple[Candidate, ...]:
    """Every proposal of the study with its prediction, in order; those that were stopped half-way are left out."""
    from hwcost.report.result import Candidate
    from hwcost.search.once import attribute_of

    states = {"rejected": "rejected", "known": "duplicate", "trained": "trained"}
    found = []
    for trial in study.trials:
        facts = attribute_of(trial)
        state: Any = states.get(str(facts.get("state")))
        if state is None:
            continue
        accuracy = trial.values[0] if trial.values else None
        found.append(
            Candidate(latency=facts["latency"], low=facts["low"], high=facts["high"], state=state, accuracy=accuracy)
        )
    return tuple(found)


def _fixed(trial: optuna.trial.FrozenTrial) -> Any:
    """A trial that suggests the parameters of another one."""
    import optuna

    return optuna.trial.FixedTrial(trial.params)


def _winners(
    job: Job, model: CostModel, front: list[optuna.trial.FrozenTrial], verified: Measurements
) -> tuple[Winner, ...]:
    """The trials of the front that were measured, with their predicted and their measured latency."""
    from hwcost.measure.items import space_item
    from hwcost.report.result import Winner

    measured = {n.name: n.timing for n in verified.networks}
    winners = []
    for trial in front:
        params = job.space.suggest(_fixed(trial))
        timing = measured.get(space_item(job.space, params).name)
        if timing is None:
            job.say(f"trial {trial.number} was not measured in the time for verifying, and is not on the page")
            continue
        winners.append(
            Winner(
                name=f"trial {trial.number}",
                params=params,
                accuracy=trial.values[0],
                estimate=model.estimate(job.space.build(params), job.space.inputs(params)),
                measured=timing.latency,
                spread=timing.spread,
            )
        )
    return tuple(winners)


def _training_seconds(study: optuna.Study) -> float:
    """Mean duration (s) of the trials that were trained."""
    from hwcost.search.once import is_training

    times = [t.duration.total_seconds() for t in study.trials if is_training(t) and t.duration]
    return sum(times) / len(times) if times else 0.0


def _environment(measurements: Measurements) -> dict[str, str]:
    """Where the measurements were taken, as the page lists it."""
    e = measurements.environment
    return {"CPU": e.cpu, "cores": str(e.cores), "governor": e.governor, "pinned": str(e.pinned)} | dict(e.versions)
