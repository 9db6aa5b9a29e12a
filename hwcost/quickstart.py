"""The steps of the quickstart, each resumable: what a step finished lies in the folder and is used again.

calibrate -> measure -> fit -> table -> search -> verify
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwcost.cli.common import Progress, UsageError, progress, say

if TYPE_CHECKING:
    import optuna

    from hwcost.device.device import Device
    from hwcost.measure.types import Measurements
    from hwcost.model.cost_model import CostModel
    from hwcost.table.table import LatencyTable

SPACE = "tiny-cnn"
RUNTIME = "torch-eager"
_SAMPLE = 10_000  # architectures looked up to see what latencies the space has


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything. The defaults make five minutes on two cores."""

    folder: Path
    threads: int = 1  # of the target; trainings use every core
    seed: int = 0
    networks: int = 120  # measured for the fit
    measuring: float = 110.0  # s at most
    rounds: int = 10  # spread over the whole time, so that the drift of the machine falls on all alike
    trainings: int = 40
    steps: int = 80  # of each training
    budget_share: float = 0.4  # of the space fits the budget
    verified: int = 8
    verifying: float = 30.0  # s at most


@dataclass
class Job:
    """One run of the quickstart."""

    plan: Plan
    seconds: dict[str, float] = field(default_factory=dict)  # by step

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Time a step, and show how far it is."""
        start = time.monotonic()
        with progress(f"{title:<10}") as bar:
            yield bar
        self.seconds[title] = time.monotonic() - start

    @cached_property
    def space(self) -> Any:
        """The search space."""
        from hwcost.spaces.registry import get_space

        return get_space(SPACE)

    def path(self, name: str) -> Path:
        """A file of the folder."""
        return self.plan.folder / name

    # -- the machine ------------------------------------------------------------------------------

    def calibrate(self) -> Device:
        """This machine's ceilings."""
        from hwcost.calibration.run import calibrate
        from hwcost.device.device import Device

        path = self.path("device.toml")
        if path.exists():
            say(f"using the calibration in {path}; delete it to calibrate again")
            return Device.load(path)
        with self.step("calibrate") as bar:
            device = calibrate(self.plan.threads, progress=bar)
        device.save(path)
        return device

    def measure(self) -> Measurements:
        """Random networks of the space, each kernel timed inside them."""
        from itertools import islice

        from hwcost.measure.campaign import measure
        from hwcost.measure.items import sampled_items
        from hwcost.measure.store.store import Store

        plan = self.plan
        items = list(islice(sampled_items(self.space, seed=plan.seed), plan.networks))
        store = Store.open(self.path("measurements.db"), create=True)
        with self.step("measure") as bar:
            return measure(
                items, runtime=RUNTIME, threads=plan.threads, store=store, rounds=plan.rounds,
                budget=plan.measuring, progress=bar,
            )  # fmt: skip

    def model(self, device: Device) -> CostModel:
        """The cost model, with its accuracy on networks held out; fitted once, so that what is
        built on it (table, budget, study) stays."""
        from hwcost.model.cost_model import CostModel

        path = self.path("model.hwcost")
        if path.exists():
            say(f"using the model in {path}; delete it to measure more networks and fit again")
            return CostModel.load(path)
        measurements = self.measure()
        with self.step("fit") as bar:
            model = CostModel.fit(measurements, device=device)
            bar(1, 1)
        model.save(path)
        return model

    def table(self, model: CostModel) -> LatencyTable:
        """The space's blocks, priced."""
        from hwcost.table.file import TableError
        from hwcost.table.table import LatencyTable

        path = self.path(f"{SPACE}.parquet")
        try:
            table = LatencyTable.load(path)
            if table.meta["model"] == model.digest:
                return table
        except TableError:
            pass  # none yet, or an unfinished one: it is made again
        with self.step("table") as bar:
            table = LatencyTable.build(self.space, model, progress=bar)
        table.save(path)
        return table

    # -- the search -------------------------------------------------------------------------------

    def budget(self, table: LatencyTable) -> float:
        """A latency (s) of two digits that the stated share of the space keeps."""
        import numpy as np

        rng = np.random.default_rng(self.plan.seed)
        choices = np.column_stack([rng.integers(0, n, _SAMPLE) for n in table.choices])
        return float(f"{np.quantile(table.latency(choices), self.plan.budget_share):.2g}")

    def search(self, table: LatencyTable, budget: float) -> optuna.Study:
        """Optuna: accuracy and latency, nothing trained that is over the budget."""
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
        """The chosen architectures, measured now, interleaved, in a store of their own."""
        from hwcost.measure.campaign import measure
        from hwcost.measure.items import space_item
        from hwcost.measure.store.store import Store

        items = [space_item(self.space, params) for params in chosen]
        store = Store.open(self.path("verification.db"), create=True)
        with self.step("verify") as bar:
            return measure(
                items, runtime=RUNTIME, threads=self.plan.threads, store=store, rounds=4 * self.plan.rounds,
                budget=self.plan.verifying, progress=bar,
            )  # fmt: skip


def train(space: Any, trainer: Callable[..., float], params: Mapping[str, Any], trial: Any) -> float:
    """Build and train one architecture; its validation accuracy."""
    return trainer(space.build(params), trial)


def folder(path: Path) -> Path:
    """The report's folder, made if need be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"output folder {path} cannot be written: {error.strerror}; choose another with -o") from error
    return path
