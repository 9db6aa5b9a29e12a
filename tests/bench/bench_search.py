"""Searches on NAS-Bench-201, latencies of a Raspberry Pi 4 as the truth.

    python tests/bench/bench_search.py regret --data nas_bench_201.csv.gz --seeds 20
    python tests/bench/bench_search.py margin --data nas_bench_201.csv.gz --seeds 20

`regret`: for each budget (the 15th and 3rd percentile of latency) and each way to search, 60 trainings with
latencies known, and the regret in points of CIFAR-10 accuracy. `own` is what run_study chooses; `blind` the same
without what the space tells of its cells; `random` and `tpe` are Optuna's, behind the same gate; `late` is TPE that
trains first and is told of the budget after.

`margin`: latencies predicted by a look-up fitted on 100 measured cells, drawn anew for each seed. How many chosen
cells are truly within the budget, with a margin P(t <= T) >= p, and what that costs in accuracy.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from scipy.optimize import nnls

from hwcost.search import LatencyObjective, run_study, scoring
from hwcost.search.candidates import NothingFits
from hwcost.spaces.nas_bench_201 import EDGES, NasBench201

SPACE = NasBench201()
CONFIDENCES = (0.5, 0.9, 0.95)
MEASURED = 100  # cells that the look-up is fitted on
FOLDS = 10
Z90 = 1.6449  # of a two-sided 90 % interval


@dataclass(frozen=True)
class Known:
    """A latency (s) and its 90 % interval."""

    latency: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """Every cell's latency (s); a disconnected cell, which has none, never fits."""

    latency: Mapping[str, float]

    def estimate(self, params: Mapping[str, Any], inputs: Any = None) -> Known:
        """As measured."""
        t = self.latency.get(NasBench201.digits(params), 1e3)
        return Known(t, t, t)


class LookUp:
    """A user's own model: so much time for the network, and for each op that leads to the cell's output.

    A runtime may or may not leave out what leads nowhere, so cells with such ops have a spread of their own. Fitted
    on relative errors, coefficients not negative; the spreads come from cross-validation.
    """

    def __init__(self, cells: list[str], latencies: np.ndarray) -> None:
        told = [self._row(NasBench201.from_digits(c)) for c in cells]
        rows, idle = np.array([row for row, _ in told]), np.array([idle for _, idle in told])
        fold = np.arange(len(cells)) % FOLDS  # the cells are in random order
        errors = np.zeros(len(cells))
        for f in range(FOLDS):
            train, test = (fold != f) & ~idle, fold == f
            errors[test] = np.log(latencies[test] / (rows[test] @ self._fit(rows[train], latencies[train])))
        self.sigmas = {bool(i): float(np.sqrt(np.mean(errors[idle == i] ** 2))) for i in (False, True)}
        self._seconds = self._fit(rows[~idle], latencies[~idle])

    @staticmethod
    def _row(params: Mapping[str, Any]) -> tuple[list[float], bool]:
        """What is summed, and whether some op leads nowhere."""
        reaches = {3}
        for a, b in reversed(EDGES):
            if b in reaches and params[f"edge.{a}-{b}"] != "none":
                reaches.add(a)
        ops = [(params[f"edge.{a}-{b}"], b in reaches) for a, b in EDGES]
        counts = (float(ops.count((op, True))) for op in ("conv1x1", "conv3x3", "avgpool3x3"))
        return [1.0, *counts], any(op not in ("none", "skip") and not leads for op, leads in ops)

    @staticmethod
    def _fit(rows: np.ndarray, latencies: np.ndarray) -> np.ndarray:
        return np.asarray(nnls(rows / latencies[:, None], np.ones(len(rows)))[0])

    def estimate(self, params: Mapping[str, Any], inputs: Any = None) -> Known:
        """As fitted."""
        row, idle = self._row(params)
        t, spread = float(np.dot(row, self._seconds)), math.exp(Z90 * self.sigmas[idle])
        return Known(t, t / spread, t * spread)


@dataclass(frozen=True)
class Bench:
    """The table, and a budget (s)."""

    latency: Mapping[str, float]
    accuracy: Mapping[str, float]  # points
    budget: float
    trainings: int

    def regret(self, cells: list[str]) -> float:
        """Of those cells that are truly within the budget."""
        found = ([self.latency[c] for c in cells], [self.accuracy[c] for c in cells])
        return scoring.regret(found, (list(self.latency.values()), list(self.accuracy.values())), budget=self.budget)

    def search(
        self, model: Any, seed: int, sampler: Any = None, *, confidence: float = 0.5, build: Any = None
    ) -> list[str]:
        """The cells that a study paid for."""
        paid: list[str] = []

        def evaluate(params: Mapping[str, Any], trial: Any) -> float:
            paid.append(NasBench201.digits(params))
            return self.accuracy.get(paid[-1], 10.0)  # a disconnected cell learns nothing

        objective = LatencyObjective(
            build or SPACE.suggest, evaluate, model=model, budget=self.budget, confidence=confidence
        )
        run_study(objective, trainings=self.trainings, seed=seed, sampler=sampler)
        if len(set(paid)) != self.trainings:
            raise SystemExit(f"expected {self.trainings} different trainings, but got {len(set(paid))}")
        return paid


def known(sampler: Callable[[int], Any], build: Any = None) -> Callable[[Bench, int], list[str]]:
    """A search with perfect latencies, none of whose trainings is over the budget."""

    def search(bench: Bench, seed: int) -> list[str]:
        cells = bench.search(Measured(bench.latency), seed, sampler(seed), build=build)
        if max(bench.latency[c] for c in cells) > bench.budget:
            raise SystemExit("a cell over the budget was trained")
        return cells

    return search


def blind(trial: Any) -> dict[str, Any]:
    """A cell, by a function that is no space's method."""
    return SPACE.suggest(trial)


def late(bench: Bench, seed: int) -> list[str]:
    """Train, then tell the sampler what the budget says."""
    paid: list[str] = []

    def objective(trial: optuna.Trial) -> float:
        cell = NasBench201.digits(SPACE.suggest(trial))
        trial.set_constraint("latency", bench.latency.get(cell, 1e3) / bench.budget - 1)
        paid.append(cell)
        return bench.accuracy.get(cell, 10.0)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=bench.trainings)
    return [c for c in paid if bench.latency.get(c, 1e3) <= bench.budget]


WAYS = {
    "own": known(lambda seed: None),
    "blind": known(lambda seed: None, blind),
    "tpe": known(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "random": known(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "late": late,
}


def main() -> None:
    """Print one line a budget and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("regret", "margin"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--percentiles", nargs="+", type=int, default=[15, 3])
    parser.add_argument("--trainings", type=int, default=60)
    parser.add_argument("--device", default="raspi4_ms", help="the column of latencies (ms)")
    parser.add_argument("--accuracy", default="cifar10_val_acc", help="the column of accuracies (%%)")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = pd.read_csv(options.data, dtype={"ops": str})
    table = table[table.cifar10_val_acc >= 10]
    latency = dict(zip(table.ops, table[options.device] / 1e3, strict=True))
    accuracy = dict(zip(table.ops, table[options.accuracy], strict=True))
    seeds = range(options.first, options.first + options.seeds)
    for percentile in options.percentiles:
        bench = Bench(latency, accuracy, float(np.percentile(list(latency.values()), percentile)), options.trainings)
        title = f"{percentile:2d}th percentile, {bench.budget * 1e3:.2f} ms"
        if options.what == "regret":
            for name in options.ways:
                _regret(f"{title}, {name:6s}", bench, WAYS[name], seeds)
        else:
            _margin(title, bench, seeds)


def _regret(title: str, bench: Bench, way: Callable[[Bench, int], list[str]], seeds: range) -> None:
    start = time.process_time()
    regrets = [bench.regret(way(bench, seed)) for seed in seeds]
    seconds = (time.process_time() - start) / len(seeds)
    figures = ", ".join(f"{k} {v:.3f}" for k, v in scoring.summary(regrets).items())
    print(f"{title}: regret {figures}; {seconds:.1f} s of CPU a study", flush=True)


def _margin(title: str, bench: Bench, seeds: range) -> None:
    cells = np.array(list(bench.latency))
    models = {}
    for seed in seeds:
        drawn = np.random.default_rng([seed, 100]).choice(cells, MEASURED, replace=False).tolist()
        models[seed] = LookUp(drawn, np.array([bench.latency[c] for c in drawn]))
    sure, unsure = (np.median([m.sigmas[idle] for m in models.values()]) for idle in (False, True))
    print(
        f"{title}: look-up of {MEASURED} cells, held-out error {sure:.1%}, of cells with idle ops {unsure:.1%} "
        f"(medians of {len(seeds)} seeds)"
    )
    best = max(a for c, a in bench.accuracy.items() if bench.latency[c] <= bench.budget)
    for p in CONFIDENCES:
        chosen, paid = [], []
        for seed in seeds:
            try:
                found = bench.search(models[seed], seed, confidence=p)
            except NothingFits:  # by the look-up, that is
                continue
            chosen.append(max(found, key=lambda c: bench.accuracy.get(c, 0.0)))
            paid += found
        within = np.mean([bench.latency[c] <= bench.budget for c in chosen])
        truly = np.mean([bench.latency.get(c, 1e3) <= bench.budget for c in paid])
        short = [best - bench.accuracy[c] for c in chosen]
        print(
            f"{title}, p = {p:4.2f}: {within:6.1%} of chosen cells within the budget, {truly:6.1%} of trainings; "
            f"chosen {np.median(short):+.3f} points below the best (median), {np.mean(short):+.3f} (mean); "
            f"{len(chosen)} of {len(seeds)} seeds found any that fits",
            flush=True,
        )


if __name__ == "__main__":
    main()
