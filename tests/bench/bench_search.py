"""Regret of searches on NAS-Bench-201, latencies of a Raspberry Pi 4 as the truth.

    python tests/bench/bench_search.py --data ../shared/data/nas_bench_201/nas_bench_201.csv.gz --seeds 20

For each budget (the 15th and 3rd percentile of latency) and each sampler: 60 trainings, all within the budget,
and the regret in points of CIFAR-10 accuracy. `own` is what run_study chooses; `random` and `tpe` are Optuna's,
behind the same gate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from hwcost.search import LatencyObjective, run_study, scoring
from hwcost.search.spaces.nas_bench_201 import NasBench201

SAMPLERS = {
    "own": lambda seed: None,
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


@dataclass(frozen=True)
class Known:
    """A latency that was measured."""

    latency: float

    @property
    def low(self) -> float:
        """The same."""
        return self.latency

    high = low


@dataclass(frozen=True)
class Measured:
    """Every cell's latency (s); a disconnected cell, which has none, never fits."""

    latency: Mapping[str, float]

    def estimate(self, params: Mapping[str, Any], inputs: Any = None) -> Known:
        """As measured."""
        return Known(self.latency.get(NasBench201.digits(params), 1e3))


def main() -> None:
    """Print one line a budget and sampler."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--trainings", type=int, default=60)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = pd.read_csv(options.data, dtype={"ops": str})
    table = table[table.cifar10_val_acc >= 10]
    truth = (table.raspi4_ms / 1e3, table.cifar10_val_acc)
    for percentile in (15, 3):
        budget = float(np.percentile(truth[0], percentile))
        for name in options.samplers:
            start = time.perf_counter()
            regrets = [
                _one(table, budget, SAMPLERS[name](s), s, options.trainings, truth) for s in range(options.seeds)
            ]
            seconds = (time.perf_counter() - start) / options.seeds
            figures = ", ".join(f"{k} {v:.3f}" for k, v in scoring.summary(regrets).items())
            print(f"{percentile:2d}th percentile, {name:6s}: regret {figures}; {seconds:.1f} s a study", flush=True)


def _one(table: pd.DataFrame, budget: float, sampler: Any, seed: int, trainings: int, truth: Any) -> float:
    latency = dict(zip(table.ops, truth[0], strict=True))
    accuracy = dict(zip(table.ops, truth[1], strict=True))
    paid: list[str] = []

    def evaluate(params: Mapping[str, Any], trial: Any) -> float:
        paid.append(NasBench201.digits(params))
        return accuracy[paid[-1]]

    objective = LatencyObjective(NasBench201().suggest, evaluate, model=Measured(latency), budget=budget)
    run_study(objective, trainings=trainings, seed=seed, sampler=sampler)
    if len(set(paid)) != trainings or max(latency[cell] for cell in paid) > budget:
        raise SystemExit(f"expected {trainings} different trainings within the budget, but got {len(set(paid))}")
    return scoring.regret(([latency[c] for c in paid], [accuracy[c] for c in paid]), truth, budget=budget)


if __name__ == "__main__":
    main()
