"""Compute density: what a search finds for a CPU and for a data-centre GPU, at equal accuracy.

    python tests/bench/bench_density.py --seeds 3
    python tests/bench/bench_density.py --space nas-bench-201 --data nas-bench-201/cifar10

`tiny-cnn` is trained here on the digits; each of its stages is depthwise or ordinary, which is what a search can do
about density. NAS-Bench-201 with its published accuracies (the extra `bench`) has no such choice, but a true front.
Latencies come from the analytic model alone, on published ceilings of both devices: they are lower bounds, nobody
measured them. For each device a study of two objectives, accuracy and latency; then, at each level of accuracy that
both reached, the fastest architecture found, and its arithmetic intensity. Where the table of accuracies is
complete, beside it the same of the true fronts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from joblib import Parallel, delayed

from hwcost import CostModel, Device, LatencyTable
from hwcost.search import LatencyObjective, run_study
from hwcost.search.data import get_data
from hwcost.search.once import attribute_of, is_training
from hwcost.search.spaces import get_space

Point = tuple[float, float, float]  # accuracy, latency (s), intensity (flop/byte)
_LEVELS = 8


def main() -> None:
    """Print one line a level of accuracy, and how often the GPU's architecture is the denser one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="tiny-cnn")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--cpu", default="raspberry-pi-4")
    parser.add_argument("--gpu", default="nvidia-a100-40gb")
    parser.add_argument("--gpu-dtype", default="float16", help="float16 is what its tensor cores do; float32 has none")
    parser.add_argument("--trainings", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="studies at a time")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = get_space(options.space)
    data = get_data(options.data, space)
    tables = {}
    for name in (options.cpu, options.gpu):
        device = Device.load(name)
        dtype = options.gpu_dtype if device.kind == "gpu" else "float32"
        tables[name] = LatencyTable.build(space, CostModel.analytic(device, dtype=dtype))
        ridge = device.ridge(dtype, 1 if device.kind == "cpu" else None)
        print(f"{name}, {dtype}: ridge point {ridge:.1f} flop/byte, published ceilings, analytic model")
    if data.truth:
        truth = {name: [_point(table, *row) for row in data.truth] for name, table in tables.items()}
        _compare("the true fronts", truth, options)
    studies = [(name, seed) for seed in range(options.seeds) for name in tables]
    points = Parallel(n_jobs=options.jobs)(
        delayed(_search)(options, tables[name], options.trainings, seed) for name, seed in studies
    )
    found = dict(zip(studies, points, strict=True))
    for seed in range(options.seeds):
        _compare(f"{options.trainings} trainings, seed {seed}", {name: found[name, seed] for name in tables}, options)
    every = {name: [p for seed in range(options.seeds) for p in found[name, seed]] for name in tables}
    _compare(f"{options.seeds * options.trainings} trainings, all seeds", every, options)


def _point(table: LatencyTable, params: Any, accuracy: float) -> Point:
    estimate = table.estimate(params)
    return accuracy, estimate.latency, estimate.intensity


def _search(options: argparse.Namespace, table: LatencyTable, trainings: int, seed: int) -> list[Point]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = get_space(options.space)
    data = get_data(options.data, space)
    objective = LatencyObjective(space.suggest, data.evaluate, model=table, form="pareto")
    trials = [attribute_of(t) for t in run_study(objective, trainings, seed).trials if is_training(t)]
    return [(a["metric"], a["latency"], a["intensity"]) for a in trials]


def _compare(title: str, found: dict[str, Sequence[Point]], options: argparse.Namespace) -> None:
    """Intensity of the fastest architecture of each device that reaches a level of accuracy."""
    best = min(max(p[0] for p in points) for points in found.values())
    levels = np.linspace(0.80, best, _LEVELS)
    cpu, gpu = (np.array([_fastest(found[name], level)[2] for level in levels]) for name in (options.cpu, options.gpu))
    print(f"{title}: the GPU's architecture is denser at {np.mean(gpu > cpu):.0%} of {_LEVELS} levels, less dense at")
    print(f"  {np.mean(gpu < cpu):.0%}; ratio of intensities, geometric mean {np.exp(np.log(gpu / cpu).mean()):.2f}")
    for level, c, g in zip(levels, cpu, gpu, strict=True):
        print(f"  accuracy {level:.1%} and more: {options.cpu} {c:5.1f}, {options.gpu} {g:5.1f} flop/byte")


def _fastest(points: Sequence[Point], level: float) -> Point:
    return min((p for p in points if p[0] >= level), key=lambda p: p[1])


if __name__ == "__main__":
    main()
