"""What hwcost adds to an Optuna trial, and how long 10,000 proposals take through the gate.

    python tests/bench/bench_gate.py

Bars: at most 1 ms a trial with a table, 20 ms with a traced module, each beside the Optuna trial itself (random
sampling, in memory, the same decisions); and 10,000 random proposals within 60 s. A traced module is new each time:
equal ones are estimated once, and would cost nothing. The first ones of a process teach it what each kind of layer
gives (`hwcost.tracing.answers`). Building a module is the user's part, and is timed beside.
Seconds are of CPU time: nothing here waits, and neighbours on a shared machine do not count.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import optuna
import torch

from hwcost import CostModel, Device, LatencyTable
from hwcost.search import LatencyObjective
from hwcost.search.spaces import get_space


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="nas-bench-201")
    parser.add_argument("--proposals", type=int, default=10_000)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = get_space(options.space)
    model = CostModel.analytic(Device.load("intel-i9-10980xe"))
    table = LatencyTable.build(space, model)

    def bare(trial: optuna.Trial) -> float:
        space.suggest(trial)
        return 0.5

    n = min(options.proposals, 1000)
    alone = _seconds(bare, n) / n
    for budget, what in ((1.0, "accepted"), (1e-9, "rejected")):
        gated = LatencyObjective(space.suggest, _nothing, model=table, budget=budget)
        _print(f"table, {what}", _seconds(gated, n) / n - alone, alone, 1e-3)
    traced = LatencyObjective(_modules(space), _nothing, model=model, inputs=_input, budget=1.0)
    build = _modules(space)
    built = _seconds(lambda trial: len(list(build(trial).children())), 200) / 200
    for which, of in (("the first 50 of a process", 50), ("the next 200", 200)):
        _print(f"traced module, {which}", _seconds(traced, of) / of - built, built, 20e-3)
    gated = LatencyObjective(space.suggest, _nothing, model=table, budget=_median(table, space))
    seconds = _seconds(gated, options.proposals)
    verdict = "within" if seconds <= 60 * options.proposals / 10_000 else "OVER"
    bare_s = _seconds(bare, options.proposals)
    print(
        f"{options.proposals} proposals at the median latency: {seconds:.1f} s, Optuna alone {bare_s:.1f} s; {verdict}"
    )


def _seconds(objective: Callable[[optuna.Trial], Any], n: int) -> float:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    start = time.process_time()
    study.optimize(objective, n_trials=n)
    return time.process_time() - start


def _print(what: str, added: float, alone: float, bar: float) -> None:
    verdict = "within" if added <= bar else "OVER"
    ratio = f"{added / alone:.2f} of the trial without it ({alone * 1e3:.2f} ms)"
    print(f"{what}: hwcost adds {added * 1e3:.2f} ms a trial, {ratio}; {verdict} the bar of {bar * 1e3:g} ms")


def _nothing(architecture: Any, trial: Any) -> float:
    return 0.5


def _median(table: LatencyTable, space: Any) -> float:
    import numpy as np

    rng = np.random.default_rng(0)
    return float(np.median([table.estimate(space.sample(rng)).latency for _ in range(500)]))


def _input(module: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    return (torch.empty(module.input_shape, device="meta"),)  # type: ignore[arg-type]


def _modules(space: Any) -> Callable[[Any], torch.nn.Module]:
    """Each trial's module, built on meta; a counter among the decisions keeps two from being the same."""
    counter = itertools.count()

    def build(trial: Any) -> torch.nn.Module:
        trial.suggest_int("copy", low := next(counter), low)
        with torch.device("meta"):
            module: torch.nn.Module = space.build(space.suggest(trial))
        return module

    return build


if __name__ == "__main__":
    main()
