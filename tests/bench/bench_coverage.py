"""Whether intervals hold for kernels that nobody measured: of a kind, a size or a dtype that was left out of the fit.

    python tests/bench/bench_coverage.py
    python tests/bench/bench_coverage.py --model onnxruntime-1 --networks 100

Kernels are taken out of measured networks, a network then taking as much less time as its profile says. A model is
fitted on what is left and asked for the networks as they were measured. Three lines a model and two of simulated
machines:

    kinds       each kind of kernel in turn; a line is the mean over kinds, each counting alike
    sizes       of each kind, the tenth of its kernels with the longest roofline time, all at once
    networks    the tenth of the networks that take longest, left out whole
    dtypes      machines that compute float32 as `tests/conftest.py` says and another dtype at a rate of their own,
                from a quarter to four times that of float32, fitted on float32 alone
    kinds       the same machines, fitted on their fully connected layers, asked for additions too

"parts" are the kernels that were left out, as one block of each network; "networks" are whole networks in which they
take a tenth of the time or more. "inside" is the share that was measured inside the stated 90 % interval, "half width"
the median factor from the middle to its end.

The widths (`hwcost.model.residual`) were chosen on every second kind of torch-eager-1, the first in the alphabet among
them, and on the sizes of these kinds; that training half is left out here. `--training` shows it instead.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hwcost import CostModel
from hwcost.device.device import Device
from hwcost.graph import OpSpec, TensorSpec
from hwcost.kernel import Kernel, label
from hwcost.measure.arrays import Flat
from hwcost.measure.types import Environment, Measurement, Measurements, NetworkMeasurement, Timing
from hwcost.model.data import ModelData
from hwcost.model.features import Target, columns
from hwcost.model.fit import fit
from hwcost.model.intervals import Errors
from hwcost.model.trees import Settings
from hwcost.runtimes.base import Network, Placed

MODELS = Path(__file__).parents[2] / "datasets" / "models"
Chosen = Callable[[Measurement], bool]
_ENOUGH = 10  # measured kernels of a kind that is left out, and networks that hold them
_MUCH = 0.1  # share of a network's time in what was left out, from which on the network counts


class Held(NamedTuple):
    """What was predicted without having been measured: log of measured / predicted, and of high / predicted."""

    error: float
    half: float
    is_part: bool

    @property
    def inside(self) -> bool:
        """Whether it was measured inside the interval."""
        return abs(self.error) <= self.half


# -- leaving out -----------------------------------------------------------------------------------


def without(measurements: Measurements, chosen: Chosen) -> Measurements:
    """The networks without the chosen kernels, whose times are taken off; networks of nothing else are left out."""
    networks = []
    for network in measurements.networks:
        left = tuple(m for m in network.kernels if not chosen(m))
        if left:
            rest = 1 - share_of(network, chosen)
            timing = replace(network.timing, latency=network.timing.latency * rest)
            calls = max(round(network.calls * len(left) / len(network.kernels)), 1)
            networks.append(replace(network, kernels=left, timing=timing, calls=calls))
    return replace(measurements, networks=tuple(networks))


def share_of(network: NetworkMeasurement, chosen: Chosen) -> float:
    """Share of the chosen kernels in the time of a network's kernels."""
    times = [m.timing.latency for m in network.kernels]
    return sum(m.timing.latency for m in network.kernels if chosen(m)) / sum(times)


def fitted(measurements: Measurements, device: Device, errors: Errors, kinds: Sequence[str] = ()) -> CostModel:
    """A model with the errors of an earlier cross-validation, without what that says of `kinds`."""
    place = measurements.environment
    target = Target(device, place.threads, place.dtype, place.runtime)
    known = {name: s for name, s in errors.sigma.items() if name.partition(",")[0] not in kinds}
    found = fit(Flat.of(measurements), target, Settings(iterations=100), None, (replace(errors, sigma=known), None))
    return CostModel(ModelData(target=target, fitted=found, provenance="", taken=measurements))


def held(model: CostModel, networks: Sequence[NetworkMeasurement], chosen: Chosen) -> list[Held]:
    """How the model does on networks, and on the chosen kernels of each as one block."""
    found = []
    for network in networks:
        share = share_of(network, chosen)
        if not share:
            continue
        placed = [Placed(m.kernel, "part" if chosen(m) else "rest", m.distance) for m in network.kernels]
        whole = model.estimate(Network(tuple(placed), network.calls, model.runtime))
        measured = network.timing.latency
        for value, at, is_part in ((whole, measured, False), (whole.by_depth(1)["part"], share * measured, True)):
            if is_part or share >= _MUCH:
                found.append(Held(np.log(at / value.latency), np.log(value.high / value.latency), is_part))
    return found


# -- what is left out ------------------------------------------------------------------------------


def kinds_left_out(measurements: Measurements, device: Device, errors: Errors, half: int | None) -> list[list[Held]]:
    """For each kind, what a fit without it says of networks that hold it; `half` of the kinds, 0 or 1, or all."""
    count = Counter(label(m.kernel) for n in measurements.networks for m in n.kernels)
    kinds = sorted(kind for kind, n in count.items() if n >= _ENOUGH)
    found = []
    for kind in kinds if half is None else kinds[half::2]:

        def chosen(m: Measurement, kind: str = kind) -> bool:
            return label(m.kernel) == kind

        model = fitted(without(measurements, chosen), device, errors, [kind])
        found.append(held(model, measurements.networks, chosen))
    return found


def sizes_left_out(measurements: Measurements, device: Device, errors: Errors, half: int | None) -> list[Held]:
    """What a fit without the largest tenth of the kernels of each kind says of networks that hold them."""
    kernels = list(dict.fromkeys(m.kernel for n in measurements.networks for m in n.kernels))
    data = columns([(kernel, 0) for kernel in kernels], Target(device, measurements.environment.threads))
    names, large = np.array(data.kinds), set()
    kinds = sorted(kind for kind, n in Counter(data.kinds).items() if n >= 2 * _ENOUGH)
    for kind in kinds if half is None else kinds[half::2]:
        rows = np.flatnonzero(names == kind)
        edge = np.quantile(data.roofline[rows], 0.9)
        large |= {kernels[row] for row in rows if data.roofline[row] > edge}
    model = fitted(without(measurements, lambda m: m.kernel in large), device, errors)
    return held(model, measurements.networks, lambda m: m.kernel in large)


def networks_left_out(measurements: Measurements, device: Device, errors: Errors) -> list[Held]:
    """What a fit without the longest tenth of the networks says of these."""
    edge = float(np.quantile([n.timing.latency for n in measurements.networks], 0.9))
    short = tuple(n for n in measurements.networks if n.timing.latency <= edge)
    model = fitted(replace(measurements, networks=short), device, errors)
    found = held(model, [n for n in measurements.networks if n.timing.latency > edge], lambda _: True)
    return [each for each in found if not each.is_part]


# -- simulated machines ----------------------------------------------------------------------------

_PEAK, _BANDWIDTH, _CLOCK = 100e9, 20e9, 0.01
_FAST = Settings(iterations=40)
_DEVICE = """
name = "simulated"
[[compute]]
dtype = "float32"
measured = "100 GFLOP/s"
measured_source = "simulation"
[[memory]]
level = "DRAM"
measured = "20 GB/s"
measured_source = "simulation"
"""


def simulated(seed: int, dtype: str = "float32", networks: int = 40) -> Measurements:
    """Networks of fully connected layers and additions on the machine of that seed: its law is that of
    `tests/conftest.py`, and dtypes other than float32 run at a rate of their own."""
    machine, rng = np.random.default_rng(seed), np.random.default_rng([seed, len(dtype)])
    rate = 1.0 if dtype == "float32" else float(np.exp(machine.uniform(-np.log(4), np.log(4))))
    slow = float(np.exp(machine.uniform(0, 1.5)))  # how much longer additions take than the bandwidth promises
    found = []
    for number in range(networks):
        rows, widths = int(rng.choice([64, 128, 256])), [int(w) for w in rng.choice([48, 64, 100, 128, 256], size=6)]
        kernels = [_linear(rows, k, n, dtype) for k, n in pairwise(widths)]
        kernels += [_add(rows, n, dtype) for n in widths[:3]]
        true = np.array([_time(kernel, slow) / rate for kernel in kernels])
        noisy = true * np.exp(rng.normal(0, _CLOCK, len(true)))
        total = (true.sum() + 4e-6 * len(true) + 30e-6) * float(np.exp(rng.normal(0, _CLOCK)))
        measured = zip(kernels, noisy.tolist(), strict=True)
        found.append(
            NetworkMeasurement(
                name=f"net{number}", family="simulated", spec={}, timing=_timing(total), calls=len(kernels),
                kernels=tuple(Measurement(kernel=k, timing=_timing(t), module="", distance=0) for k, t in measured),
            )
        )  # fmt: skip
    place = Environment(cpu="simulated", cores=1, runtime="torch-eager", threads=1)
    return Measurements(environment=place, networks=tuple(found))


def _linear(rows: int, k: int, n: int, dtype: str) -> Kernel:
    inputs = (TensorSpec("input", (rows, k), dtype), TensorSpec("weight", (n, k), dtype, weight=True))
    return Kernel((OpSpec("linear", inputs, (TensorSpec("out", (rows, n), dtype),)),))


def _add(rows: int, n: int, dtype: str) -> Kernel:
    inputs = (TensorSpec("self", (rows, n), dtype), TensorSpec("other", (rows, n), dtype))
    return Kernel((OpSpec("add", inputs, (TensorSpec("out", (rows, n), dtype),)),))


def _time(kernel: Kernel, slow: float) -> float:
    """Time (s) of a kernel in float32."""
    rows, n = kernel.ops[0].outputs[0].shape
    if kernel.kind == "add":
        return 1e-6 + slow * 12 * rows * n / _BANDWIDTH
    return 1e-6 + 2 * kernel.cost.macs / (_PEAK * (0.8 if n % 16 == 0 else 0.4))


def _timing(seconds: float) -> Timing:
    return Timing(latency=seconds, median=seconds * 1.02, p95=seconds * 1.1, spread=2 * _CLOCK, rounds=5)


def simulated_dtypes(machines: int, dtypes: Sequence[str] = ("bfloat16", "float64")) -> list[list[Held]]:
    """For each machine, what a fit on float32 says of networks of other dtypes."""
    device, found = Device.from_toml(_DEVICE), []
    for seed in range(machines):
        model = CostModel.fit(simulated(seed), device=device, settings=_FAST)
        networks = [n for dtype in dtypes for n in simulated(seed, dtype, networks=10).networks]
        found.append([each for each in held(model, networks, lambda _: True) if not each.is_part])
    return found


def simulated_kinds(machines: int) -> list[list[Held]]:
    """For each machine, what a fit on fully connected layers says of networks that add as well."""
    device, found = Device.from_toml(_DEVICE), []
    for seed in range(machines):
        every = simulated(seed)
        model = CostModel.fit(without(every, lambda m: m.kernel.kind == "add"), device=device, settings=_FAST)
        found.append(held(model, every.networks, lambda m: m.kernel.kind == "add"))
    return found


# -- the table -------------------------------------------------------------------------------------


def coverage(groups: Sequence[Sequence[Held]], *, parts: bool) -> tuple[int, float, float]:
    """(things, share of them inside, median factor to an end of the interval) of parts or of networks, the share being
    the mean over groups that have any."""
    chosen = [[each for each in group if each.is_part == parts] for group in groups]
    chosen = [group for group in chosen if group]
    if not chosen:
        return 0, float("nan"), float("nan")
    inside = float(np.mean([np.mean([each.inside for each in group]) for group in chosen]))
    return sum(map(len, chosen)), inside, float(np.exp(np.median([each.half for group in chosen for each in group])))


def _line(what: str, groups: Sequence[Sequence[Held]]) -> None:
    told = []
    for name, parts in (("parts", True), ("networks", False)):
        number, inside, width = coverage(groups, parts=parts)
        told.append(f"{number:6d} {name} {inside:6.1%} inside, half width x{width:.2f}" if number else " " * 45)
    print(f"{what:32} {told[0]}   {told[1]}", flush=True)


def main() -> None:
    """Print one line for each thing that is left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="torch-eager-1 and onnxruntime-1 where not given")
    parser.add_argument("--networks", type=int, default=120, help="measured networks of a model to work with")
    parser.add_argument("--machines", type=int, default=20, help="simulated ones")
    parser.add_argument("--training", action="store_true", help="the half on which the widths were chosen, alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ["torch-eager-1"] if options.training else options.model or ["torch-eager-1", "onnxruntime-1"]:
        whole = CostModel.load(MODELS / f"{name}.hwcost")
        assert whole.measurements is not None
        networks = whole.measurements.networks
        some = replace(whole.measurements, networks=networks[:: max(len(networks) // options.networks, 1)])
        errors = CostModel.fit(some, device=whole.device, settings=Settings(iterations=100)).fitted.errors
        half = None if name != "torch-eager-1" else 0 if options.training else 1
        _line(f"{name}, kinds", kinds_left_out(some, whole.device, errors, half))
        _line(f"{name}, sizes", [sizes_left_out(some, whole.device, errors, half)])
        _line(f"{name}, networks", [networks_left_out(some, whole.device, errors)])
    if not options.training:
        _line("simulated machines, dtypes", simulated_dtypes(options.machines))
        _line("simulated machines, kinds", simulated_kinds(options.machines))


if __name__ == "__main__":
    sys.exit(main())
