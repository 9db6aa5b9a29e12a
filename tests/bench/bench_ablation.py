"""What each part of the cost model buys: one part is taken away, the rest fitted anew, the same networks predicted.

    python tests/bench/bench_ablation.py --train designed.db --test families.db --device here.toml \
        [--runtime torch-eager] [--threads 1]

A line a part, with the figures on the networks of --test; below, where the error of the whole model sits.
Parts that the stores hold no data for are named and not guessed. Networks of --test that were also trained
on are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from hwcost import CostModel, Device
from hwcost.accuracy import Accuracy, Comparison
from hwcost.baselines import fit_baselines, relative_fit
from hwcost.fitting import Overhead
from hwcost.measure import Measurements, NetworkMeasurement
from hwcost.measure.store import Store
from hwcost.runtimes import Network, get_runtime

Row = tuple[str, Accuracy | str]  # what was taken away, and the figures or why there are none


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


def rows(train: Measurements, test: Measurements, device: Device) -> Iterator[Row]:
    model = CostModel.fit(train, device=device)
    yield "nothing", model.evaluate(test)
    yield "lowering: kernels of the trace, unfused", by_trace(model, test, unfused=True)
    yield "the runtime's own graph: kernels lowered from the trace", by_trace(model, test, unfused=False)
    yield "in-context times: fitted on kernels timed alone", alone(train, test, device)
    flat = device.model_copy(update={"memory": tuple(m for m in device.memory if m.level == "DRAM")})
    yield "cache levels: everything from DRAM", CostModel.fit(train, device=flat).evaluate(test)
    yield "the residual: roofline and overhead", without_residual(model, test)
    without = CostModel(model.target, model.runtime, replace(model.fitted, overhead=Overhead()), train)
    yield "the overhead: sum of kernels", without.evaluate(test)
    boosted = {b.name: b for b in fit_baselines(model)}["no roofline"]
    yield "the roofline: trees on log time", of_times(boosted.predict(model.lower_measured(test)), test)


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
    import torch

    from hwcost.cli.targets import build_target, parse_inputs
    from hwcost.search.spaces import get_space
    from hwcost.tracing import trace

    spec = network.spec
    try:
        with torch.device("meta"):
            if "space" in spec and spec["space"] != "designed":
                space = get_space(spec["space"])
                return trace(space.build(spec["params"]).eval(), space.inputs(spec["params"]))
        if "space" in spec:
            from hwcost.measure.designed import DesignedSpace

            module, inputs = DesignedSpace().network(spec["params"])
            return trace(module.eval(), inputs)
        return trace(
            build_target(spec["target"], spec["kwargs"]), tuple(s.tensor() for s in parse_inputs(spec["input"]))
        )
    except (ImportError, KeyError, ValueError, RuntimeError) as error:
        print(f"note: {network.name} is not built again: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
        return None


def alone(train: Measurements, test: Measurements, device: Device) -> Accuracy | str:
    lone = tuple(n for n in train.networks if n.is_lone)
    if len(lone) < 10:
        return "no kernels timed alone in --train"
    return CostModel.fit(replace(train, networks=lone), device=device).evaluate(test)


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
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--runtime")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    trained, tested = stores(arguments)
    place = Device.load(arguments.device)
    report(rows(trained, tested, place))
    whole = CostModel.fit(trained, device=place)
    print(f"\nthe clock itself: ±{whole.evaluate(tested).clock:.1%} (median network)\n")
    print(f"{'kind':30}{'share of time':>15}{'error':>9}{'signed':>9}")
    for kind, share, error, signed in by_kind(whole, tested):
        print(f"{kind:30}{share:15.1%}{error:9.2%}{signed:+9.2%}")
