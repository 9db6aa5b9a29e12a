"""What hwcost adds to an Optuna trial, and how long 10,000 proposals take through the gate.

    python tests/bench/bench_gate.py

Bars: at most 1 ms a trial with a table, 20 ms with a traced module, each beside the Optuna trial itself (random
sampling, in memory, the same decisions); and 10,000 random proposals within 60 s. A traced module is new each time:
equal ones are estimated once, and would cost nothing. The first ones of a process teach it what each kind of layer
gives (`hwcost.tracing.signatures`). Building a module is the user's part, and is timed beside.
Seconds are of CPU time, but a neighbour on the same physical core slows them as well, by half for minutes. So, as in
hwcost's own clock, the same trials are made again and again with hwcost and without it, in turn; a trial's time is the
tenth percentile of its rounds (undisturbed; the bar is for this), and the median is stated beside it. Python's full
garbage collections, which walk everything that torch imported (0.2 s) once in twenty modules or so, whoever builds
them, are made between the rounds: they would fall on one of the two by chance.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

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

    for budget, what in ((1.0, "accepted"), (1e-9, "rejected")):
        gated = partial(LatencyObjective, space.suggest, _nothing, model=table, budget=budget)
        _print(f"table, {what}", _in_turn(gated, bare, 100, 15), 1e-3)
    traced = partial(LatencyObjective, _modules(space), _nothing, model=model, inputs=_input, budget=1.0)
    build = _modules(space)

    def built(trial: optuna.Trial) -> float:
        return float(len(list(build(trial).children())))

    _print("traced module, the first 20 of a process", _in_turn(traced, built, 20, 1), 20e-3)
    _print("traced module, later", _in_turn(traced, built, 20, 20), 20e-3)
    gated = LatencyObjective(space.suggest, _nothing, model=table, budget=_median(table, space))
    seconds = _seconds(gated, options.proposals)
    verdict = "within" if seconds <= 60 * options.proposals / 10_000 else "OVER"
    bare_s = _seconds(bare, options.proposals)
    print(
        f"{options.proposals} proposals at the median latency: {seconds:.1f} s, Optuna alone {bare_s:.1f} s; {verdict}"
    )


def _seconds(objective: Callable[[optuna.Trial], Any], n: int) -> float:
    return float(_each(objective, n).sum())


def _each(objective: Callable[[optuna.Trial], Any], n: int) -> NDArray[np.float64]:
    """Seconds of each of the same n trials, in a new study."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    gc.collect()
    ends = [time.process_time()]
    study.optimize(objective, n_trials=n, callbacks=[lambda study, trial: ends.append(time.process_time())])
    return np.diff(ends)


def _in_turn(make: Callable[[], Any], bare: Callable[..., Any], n: int, rounds: int) -> NDArray[np.float64]:
    """Seconds of the same n trials with a new objective and without it, in turn; [rounds, 2, n]."""
    return np.array([[_each(f, n) for f in (make(), bare)] for _ in range(rounds)])


def _print(what: str, seconds: NDArray[np.float64], bar: float) -> None:
    (whole, alone), (median, median_alone) = np.quantile(seconds, (0.1, 0.5), axis=0).mean(axis=2)
    added = whole - alone
    verdict = "within" if added <= bar else "OVER"
    ratio = f"{added / alone:.2f} of the trial without it ({alone * 1e3:.2f} ms)"
    print(
        f"{what}: hwcost adds {added * 1e3:.2f} ms a trial undisturbed, {(median - median_alone) * 1e3:.2f} ms in the "
        f"median, {ratio}; {verdict} the bar of {bar * 1e3:g} ms"
    )


def _nothing(architecture: Any, trial: Any) -> float:
    return 0.5


def _median(table: LatencyTable, space: Any) -> float:
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
