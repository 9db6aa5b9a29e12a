"""What each part of the cost model buys: one part is taken away, the rest fitted anew, the same networks predicted.

    python tests/bench/bench_ablation.py --train designed.db --test families.db --device here.toml \
        [--runtime torch-eager] [--threads 1] [--alone 100]
    python tests/bench/bench_ablation.py --of torch-eager-1 --hold-out mbconv --hold-out tiny-cnn

A line a part, with the figures on the networks of --test, or on those families of a shipped model's data that
are held out of its fit; below, where the error of the whole model sits. Parts that there is no data for are named
and not guessed. Networks of --test that were also trained on are left out. No campaign times kernels alone, so
--alone does it here, on torch eager: so many of the training networks are built again and each of their calls runs
in a loop; the fit of the same networks as they were measured stands beside it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from typing import Any
from unittest.mock import patch

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode

from hwcost import CostModel, Device
from hwcost.graph import block_name
from hwcost.measure.store.store import Store
from hwcost.measure.types import Measurements, NetworkMeasurement
from hwcost.model import fit as fitting
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.baselines import fit_baselines, relative_fit
from hwcost.model.files import shipped_path
from hwcost.model.overhead import Overhead
from hwcost.runtimes.base import Network
from hwcost.runtimes.registry import get_runtime

Row = tuple[str, Accuracy | str]  # what was taken away, and the figures or why there are none
LOOP = 5  # times that a call runs to be timed alone


def stores(arguments: argparse.Namespace) -> tuple[Measurements, Measurements]:
    train = Store.open(arguments.train).measurements(arguments.runtime, arguments.threads)
    test = Store.open(arguments.test).measurements(train.environment.runtime, train.environment.threads)
    names = {n.name for n in train.networks}
    unseen = tuple(n for n in test.networks if n.name not in names and not n.is_lone)
    if not unseen:
        sys.exit("every network of --test was trained on; give a store of other networks")
    for key, (then, now) in train.environment.differences(test.environment).items():
        print(f"note: {key} was {then!r} in training and is {now!r} in the test")
    return train, replace(test, networks=unseen)


def shipped_data(name: str, families: list[str]) -> tuple[Measurements, Measurements, Device]:
    """A shipped model's networks outside some families, those inside, and its device; `name` is runtime-threads."""
    runtime, _, threads = name.rpartition("-")
    model = CostModel.load(shipped_path(runtime, int(threads)))
    assert model.measurements is not None
    held = [n.family in families for n in model.measurements.networks]
    train, test = (
        replace(model.measurements, networks=tuple(compress(model.measurements.networks, (h is inside for h in held))))
        for inside in (False, True)
    )
    if not test.networks:
        sys.exit(f"{name} has no family {' or '.join(families)}; --hold-out one of {', '.join(families_of(train))}")
    return train, test, model.device


def families_of(measurements: Measurements) -> list[str]:
    return sorted({n.family for n in measurements.networks})


def rows(train: Measurements, test: Measurements, device: Device, count: int = 0) -> Iterator[Row]:
    """Every part; `count` networks are measured again for kernels timed alone."""
    model = CostModel.fit(train, device=device)
    yield "nothing", model.evaluate(test)
    yield "lowering: kernels of the trace, unfused", by_trace(model, test, unfused=True)
    yield "the runtime's own graph: kernels lowered from the trace", by_trace(model, test, unfused=False)
    yield from in_context(train, test, device, count)
    with patch.object(fitting, "_as_they_ran", lambda rows, whole: rows.latency):
        yield "whole runs: kernels as long as their profiles say", CostModel.fit(train, device=device).evaluate(test)
    yield "cache levels: everything from DRAM", CostModel.fit(train, device=flat(device)).evaluate(test)
    forgetful = CostModel.fit(at_no_distance(train), device=flat(device))
    yield "cache levels, and what ran before", forgetful.evaluate(at_no_distance(test))
    yield "the residual: roofline and overhead", without_residual(model, test)
    without = CostModel(replace(model.data, fitted=replace(model.data.fitted, overhead=Overhead()), taken=train))
    yield "the overhead: sum of kernels", without.evaluate(test)
    boosted = {b.name: b for b in fit_baselines(model)}["no roofline"]
    yield "the roofline: trees on log time", of_times(boosted.predict(model.lower_measured(test)), test)


def flat(device: Device) -> Device:
    """The device with caches that hold everything and are as slow as its DRAM, so that no network outgrows them."""
    dram = [m for m in device.memory if m.level == "DRAM"]
    caches = [m.model_copy(update={"level": level, "size": 1e18}) for m in dram for level in ("L2", "L3")]
    return device.model_copy(update={"memory": (*dram, *caches)})


def at_no_distance(measurements: Measurements) -> Measurements:
    """Measurements that do not say when an activation was written."""
    networks = (
        replace(n, kernels=tuple(replace(m, distance=min(m.distance, 0)) for m in n.kernels))
        for n in measurements.networks
    )
    return replace(measurements, networks=tuple(networks))


def of_times(times: Any, test: Measurements) -> Accuracy:
    """Accuracy of predicted times (s) in the order of the networks."""
    return Accuracy(
        tuple(
            Comparison(
                target=n.name, predicted=t, low=t, high=t, measured=n.timing.latency, spread=n.timing.spread
            )
            for n, t in zip(test.networks, np.asarray(times).tolist(), strict=True)
        )
    )  # fmt: skip


def by_trace(model: CostModel, test: Measurements, *, unfused: bool) -> Accuracy | str:
    """Networks built again from their specification and traced, as for an architecture that was never run."""
    if model.runtime == "torch-eager" and unfused:
        return "torch eager fuses nothing"
    built = [(n, graph) for n in test.networks if (graph := graph_of(n)) is not None]
    if not built:
        return "no network of --test can be built again here"
    lower: Callable[[Any], Network] = get_runtime("torch-eager").lower if unfused else model.lower
    networks = [replace(lower(graph), runtime=model.runtime) for _, graph in built]
    pairs = zip((n for n, _ in built), model.estimate_many(networks), strict=True)
    return Accuracy(tuple(Comparison.of(n.name, e, n.timing) for n, e in pairs))


def graph_of(network: NetworkMeasurement) -> Any:
    """The traced graph of a measured network, or None where its specification does not lead to it."""
    from hwcost.tracing.trace import trace

    try:
        module, inputs = built(network.spec)
        return trace(module.eval(), inputs)
    except (ImportError, KeyError, ValueError, RuntimeError) as error:
        print(f"note: {network.name} is not built again: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
        return None


def built(spec: Any) -> tuple[Any, tuple[Any, ...]]:
    """The module and the inputs of a specification: of a space, of `families.py` or of a target."""
    import torch

    from hwcost.measure.items import rebuild

    if "library" in spec:
        module, inputs = real_networks()[f"{spec['library']}/{spec['name']}"].build()
        return module, inputs
    if "space" not in spec:
        return rebuild(spec)
    with torch.device("meta"):
        return rebuild(spec)


@lru_cache(maxsize=1)
def real_networks() -> dict[str, Any]:
    """The networks of `families.py` by name."""
    families = importlib.import_module("families")
    return {item.name: item for group in (families.families, families.development) for item in group()}


def in_context(train: Measurements, test: Measurements, device: Device, count: int) -> Iterator[Row]:
    """The same networks fitted twice: on kernels as they were timed in the network, and each timed in a loop."""
    what = "in-context times: fitted on kernels timed alone"
    if train.environment.runtime != "torch-eager" or train.environment.threads != 1 or not count:
        yield what, "give --alone, for torch eager on one thread"
        return
    pairs = [(n, again) for n in train.networks[:count] if not n.is_lone and (again := timed_alone(n)) is not None]
    if len(pairs) < 10:
        yield what, f"only {len(pairs)} of {count} networks can be built again here, and a fit needs 10"
        return
    together, apart = (replace(train, networks=networks) for networks in zip(*pairs, strict=True))
    yield f"(of {len(pairs)} networks: nothing)", CostModel.fit(together, device=device).evaluate(test)
    yield f"(of the same) {what}", CostModel.fit(apart, device=device).evaluate(test)


def timed_alone(network: NetworkMeasurement) -> NetworkMeasurement | None:
    """The network with the times that its kernels take in a loop; None where it cannot be built again as it was."""
    import torch

    from hwcost.measure.materialise import materialise
    from hwcost.tracing.trace import trace

    try:
        module, inputs = materialise(lambda: built(network.spec))
        session = get_runtime("torch-eager").prepare(module, inputs, threads=1)
    except (ImportError, KeyError, ValueError, RuntimeError) as error:
        print(f"note: {network.name} is not built again: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
        return None
    if [p.kernel for p in session.network.kernels] != [m.kernel for m in network.kernels]:
        print(f"note: {network.name} is not what it was", file=sys.stderr)
        return None
    with torch.inference_mode(), Loop() as loop:
        module(*inputs)
    times = [t for t, op in zip(loop.times, trace(module, inputs).ops, strict=True) if op.state != "free"]
    kernels = (replace(m, timing=replace(m.timing, latency=t)) for m, t in zip(network.kernels, times, strict=True))
    return replace(network, kernels=tuple(kernels))


class Loop(TorchDispatchMode):
    """Runs every call several times on the same arguments; `times` are those of the quickest (s of the CPU)."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Time one call."""
        best, out = float("inf"), None
        for _ in range(LOOP):
            start = time.thread_time()
            out = func(*args, **(kwargs or {}))
            best = min(best, time.thread_time() - start)
        self.times.append(best)
        return out


def without_residual(model: CostModel, test: Measurements) -> Accuracy:
    """Roofline times, a factor on them and the overhead fitted on the networks."""
    assert model.measurements is not None
    analytic = CostModel.analytic(model.device, model.runtime, model.threads)

    def design(measurements: Measurements) -> Any:
        times = [e.latency for e in analytic.estimate_many(model.lower_measured(measurements))]
        return np.column_stack([times, [n.calls for n in measurements.networks], np.ones(len(times))])

    whole = replace(model.measurements, networks=tuple(n for n in model.measurements.networks if not n.is_lone))
    total = np.array([n.timing.latency for n in whole.networks])
    coefficients = relative_fit(design(whole), total)
    return of_times(design(test) @ coefficients, test)


def by_kind(model: CostModel, test: Measurements, most: int = 10) -> Iterator[tuple[str, float, float, float]]:
    """(kind, share of the kernels' time, absolute and signed error as shares of it), the largest error first."""
    measured: dict[str, float] = {}
    error: dict[str, float] = {}
    signed: dict[str, float] = {}
    for n, estimate in zip(test.networks, model.estimate_many(model.lower_measured(test)), strict=True):
        for m, k in zip(n.kernels, estimate.kernels, strict=True):
            relative = 1 / n.timing.latency
            measured[k.kind] = measured.get(k.kind, 0.0) + m.timing.latency * relative
            error[k.kind] = error.get(k.kind, 0.0) + abs(k.latency - m.timing.latency) * relative
            signed[k.kind] = signed.get(k.kind, 0.0) + (k.latency - m.timing.latency) * relative
    total = sum(measured.values())
    for kind in sorted(error, key=lambda k: -error[k])[:most]:
        yield kind, measured[kind] / total, error[kind] / total, signed[kind] / total


def inside(model: CostModel, test: Measurements) -> Iterator[tuple[str, float, float]]:
    """(what, share inside its stated interval, the same weighed by time); measured kernels are taken as unwatched."""
    found: dict[str, list[tuple[bool, float]]] = {"kernels": [], "blocks": [], "networks": []}
    for n, estimate in zip(test.networks, model.estimate_many(model.lower_measured(test)), strict=True):
        times = model.overhead.kernels(np.array([m.timing.latency for m in n.kernels]))
        blocks: dict[str, float] = {}
        for m, k, t in zip(n.kernels, estimate.kernels, times.tolist(), strict=True):
            found["kernels"].append((k.low <= t <= k.high, t / n.timing.latency))
            name = block_name(m.module, 2)
            blocks[name] = blocks.get(name, 0.0) + t + estimate.overhead / len(n.kernels)
        for name, b in estimate.by_depth(2).items():
            found["blocks"].append((b.low <= blocks[name] <= b.high, blocks[name] / n.timing.latency))
        found["networks"].append((estimate.low <= n.timing.latency <= estimate.high, 1.0))
    for what, members in found.items():
        holds, weight = np.array(members).T
        yield what, float(holds.mean()), float(np.average(holds, weights=weight))


def report(found: Iterator[Row]) -> None:
    print(f"{'taken away':58}{'networks':>10}{'mean':>9}{'in 5 %':>9}{'in 10 %':>9}{'Spearman':>10}")
    for name, figures in found:
        if isinstance(figures, str):
            print(f"{name:58}  {figures}")
            continue
        shares = f"{figures.within(0.05):9.1%}{figures.within(0.10):9.1%}{figures.spearman:10.3f}"
        print(f"{name:58}{len(figures.networks):10}{figures.mape:9.1%}{shares}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train")
    parser.add_argument("--test")
    parser.add_argument("--device")
    parser.add_argument("--of", help="instead of stores: runtime-threads of a model that ships")
    parser.add_argument("--hold-out", action="append", default=[], help="a family of its data; repeat for more")
    parser.add_argument("--runtime")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--alone", type=int, default=0, help="networks of --train whose kernels are timed alone")
    arguments = parser.parse_args()
    if bool(arguments.of) == bool(arguments.train and arguments.test and arguments.device):
        parser.error("give --train, --test and --device, or --of and --hold-out")
    if arguments.of:
        trained, tested, place = shipped_data(arguments.of, arguments.hold_out)
    else:
        trained, tested = stores(arguments)
        place = Device.load(arguments.device)
    report(rows(trained, tested, place, arguments.alone))
    whole = CostModel.fit(trained, device=place)
    print(f"\nthe clock itself: ±{whole.evaluate(tested).clock:.1%} (median network)\n")
    print(f"{'kind':30}{'share of time':>15}{'error':>9}{'signed':>9}")
    for kind, share, error, signed in by_kind(whole, tested):
        print(f"{kind:30}{share:15.1%}{error:9.2%}{signed:+9.2%}")
    print(f"\ninside the stated {whole.confidence:.0%} interval")
    for what, share, weighed in inside(whole, tested):
        print(f"{what:30}{share:15.1%}{weighed:9.1%} of the time")
