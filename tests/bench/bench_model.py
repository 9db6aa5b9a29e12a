"""How long the cost model takes, as ratios to its bars: below 1 the bar is held.

    python tests/bench/bench_model.py [--store designed.db --device here.toml] [--kernels 20000]

Without a store the fit is of random networks of the simulated machine of tests/conftest.py. The ratio is of wall
time, the best of some runs; CPU seconds stand beside it: more of them where threads share the work (a fit's folds,
large trees), fewer where the machine was busy with something else. The fit runs once. Then, in fresh processes, how
long it takes to import hwcost and to a first estimate of each shipped model. At last, how good a bound the roofline of
the shipped models' device is, on the networks that they were fitted on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.ensemble  # noqa: F401 - the bars count from where it is imported
import torch

import hwcost
from hwcost import CostModel, Device
from hwcost.measure.types import Measurements
from hwcost.model.catalogue import Catalogue
from hwcost.paths import shipped
from hwcost.search.spaces import get_space

Line = tuple[str, float, Callable[[], Any], int]  # what, bar (s), work, runs
ARCHITECTURES = 10_000
SPACES = ("tiny-cnn", "mbconv", "vit", "nas-bench-201")


def simulated(kernels: int) -> tuple[Measurements, Device]:
    """Random networks with `kernels` kernels in all, most of them distinct."""
    place = Path(__file__).parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("simulated_machine", place)
    assert spec is not None
    assert spec.loader is not None
    machine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(machine)
    made = machine.simulate(kernels // 9, 0, widths=tuple(range(16, 1024, 4)))
    return made, Device.from_toml(machine.DEVICE)


def measured(store: str, device: str, kernels: int) -> tuple[Measurements, Device]:
    """The first networks of a store that hold `kernels` kernels together."""
    from hwcost.measure.store.store import Store

    found = Store.open(store).measurements()
    counts = np.cumsum([len(n.kernels) for n in found.networks])
    return replace(found, networks=found.networks[: int(np.searchsorted(counts, kernels)) + 1]), Device.load(device)


def lines(measurements: Measurements, device: Device, folder: Path) -> Iterator[Line]:
    models: dict[str, CostModel] = {}

    def fit() -> None:
        models["fitted"] = CostModel.fit(measurements, device=device)

    kernels = sum(len(n.kernels) for n in measurements.networks)
    yield f"fit of {kernels} kernels, {len(measurements)} networks", 10.0 * kernels / 20_000, fit, 1
    model = models["fitted"]
    path = folder / "m.hwcost"
    model.save(path)
    yield "load", 0.3, lambda: CostModel.load(path), 3
    module, inputs = network()
    graph = hwcost.trace(module, inputs)

    def forgetful() -> None:
        model._catalogue = Catalogue()
        model.estimate(graph)

    yield "estimate, traced, kernels never seen", 5e-3, forgetful, 5
    yield "estimate, traced", 5e-3, lambda: model.estimate(graph), 20
    yield "estimate, traced, with its blocks", 5e-3, lambda: model.estimate(graph).blocks, 20
    yield "estimate, untraced", 0.1, lambda: model.estimate(module, inputs), 5
    for name in SPACES:
        space, rng = get_space(name), np.random.default_rng(0)
        params = [space.sample(rng) for _ in range(ARCHITECTURES)]
        many = lambda params=params, space=space: model.estimate_many(params, space=space)  # noqa: E731
        yield f"estimate {ARCHITECTURES} of {name}, blocks never seen", 5.0, many, 1
        yield f"estimate {ARCHITECTURES} of {name}", 5.0, many, 2


IMPORT = """
import time
start = time.perf_counter()
import hwcost
print(time.perf_counter() - start)
"""
FIRST = """
import sys, time, torch
from torch import nn
net, inputs = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3)), torch.empty(1, 3, 64, 64)
start = time.perf_counter()
import hwcost, hwcost.model.cost_model, hwcost.tracing.trace
imported = time.perf_counter()
model = hwcost.CostModel.load(sys.argv[1])
latency = model.estimate(net, inputs).latency
print(time.perf_counter() - imported, imported - start, latency.hex())
"""


def fresh(script: str, *words: str, processes: int = 1) -> list[list[str]]:
    """What a script prints in fresh processes that start together, each with a home folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder) / str(number) for number in range(processes)]
        for home in homes:
            home.mkdir()
        running = [
            subprocess.Popen(
                [sys.executable, "-c", script, *words],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "OMP_NUM_THREADS": "1"},
            )
            for home in homes
        ]
        return [process.communicate()[0].split() for process in running]


def fresh_processes() -> None:
    """Print how long a new process takes to import hwcost, and to load a shipped model and estimate a first network.

    Imports, which come once for all models, stand apart; torch was imported before. The best of five tries; the eight
    processes at once share the machine's cores, and the slowest counts.
    """
    print(f"{'in a fresh process, wall s':40}{'imports':>9}{'load+first':>12}{'bar':>7}{'8 at once':>11}{'answers':>9}")
    seconds = min(float(fresh(IMPORT)[0][0]) for _ in range(5))
    print(f"{'import hwcost (bar 0.1 s)':40}{seconds:9.4f}")
    for path in sorted(Path(str(shipped("models"))).glob("*.hwcost")):
        tries = [fresh(FIRST, str(path))[0] for _ in range(5)]
        many = fresh(FIRST, str(path), processes=8)
        first, imports = (min(float(words[i]) for words in tries) for i in (0, 1))
        slowest, answers = max(float(words[0]) for words in many), {words[2] for words in [*tries, *many]}
        print(f"{path.stem:40}{imports:9.3f}{first:12.3f}{0.3:7.1f}{slowest:11.3f}{len(answers):9}")


def network() -> tuple[Any, tuple[torch.Tensor, ...]]:
    """resnet50 where torchvision is installed, or else the largest network of `mbconv`."""
    if importlib.util.find_spec("torchvision"):
        models: Any = importlib.import_module("torchvision.models")
        return models.resnet50(weights=None).eval(), (torch.empty(1, 3, 224, 224, device="meta"),)
    print("torchvision is not installed: the network is of mbconv")
    space = get_space("mbconv")
    params = space.params([len(d.choices) - 1 for d in space.decisions])
    with torch.device("meta"):
        return space.build(params).eval(), space.inputs(params)


def below_bound(path: Path) -> str:
    """How many of the networks that a shipped model was fitted on ran faster than their roofline says they can."""
    model = CostModel.load(path)
    assert model.measurements is not None
    bound = CostModel.analytic(model.device, model.runtime, model.threads)
    estimates = bound.estimate_many(bound.lower_measured(model.measurements))
    ratios = np.array(
        [e.latency / n.timing.latency for e, n in zip(estimates, model.measurements.networks, strict=True)]
    )
    shares = ", ".join(f"by more than {by:.0%}: {np.mean(ratios > 1 + by):.1%}" for by in (0.0, 0.1, 0.5))
    return f"{path.stem}, faster than the roofline ({len(ratios)} networks): {shares}"


def clocked(work: Callable[[], Any], runs: int) -> tuple[float, float]:
    """(CPU seconds, wall seconds), each the best of `runs`."""
    best = (float("inf"), float("inf"))
    for _ in range(runs):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        best = (min(best[0], time.process_time() - cpu), min(best[1], time.perf_counter() - wall))
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store")
    parser.add_argument("--device")
    parser.add_argument("--kernels", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        if arguments.store:
            data = measured(arguments.store, arguments.device, arguments.kernels)
        else:
            data = simulated(arguments.kernels)
        print(f"{'':52}{'CPU s':>10}{'wall s':>10}{'bar s':>9}{'wall / bar':>11}")
        for what, bar, work, runs in lines(*data, Path(place)):
            cpu, wall = clocked(work, runs)
            print(f"{what:52}{cpu:10.4f}{wall:10.4f}{bar:9.3f}{wall / bar:11.2f}", flush=True)
    fresh_processes()
    for each in sorted(Path(str(shipped("models"))).glob("*-1.hwcost")):
        print(below_bound(each))
