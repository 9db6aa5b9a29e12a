"""Which activation should a kernel's reuse distance be of: the first that it reads, or the largest?

    python tests/bench/bench_reuse.py [--model datasets/models/onnxruntime-1.hwcost] [--seeds 3]

The networks of a model file that can be built again are lowered with either choice, which must give the kernels that
were measured, in their order. Then a model is fitted with the distances of either choice, five times, each time
without a fifth of the networks, which it predicts.

Printed: how many distances differ; the mean absolute log error of kernels, all and those whose distance differs; that
of networks; and the share of networks within 5 %. For mbconv in the shipped model of ONNX Runtime on one thread the two
choices differ for one kernel in twenty, mostly x * sigmoid(x), where both inputs are of one size, and the errors of
networks are the same to a hundredth of a per cent. `hwcost.runtimes.reuse` takes the largest, as stored measurements of
the other runtimes do.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from hwcost import trace
from hwcost.measure.arrays import Flat
from hwcost.measure.items import rebuild
from hwcost.measure.types import MeasurementError, Measurements, NetworkMeasurement
from hwcost.model.data import ModelData
from hwcost.model.files import load
from hwcost.model.fit import _fit_on, _networks
from hwcost.model.rows import FOLDS, folds_of, rows_of
from hwcost.runtimes.registry import get_runtime
from hwcost.runtimes.reuse import Reuse

Array = NDArray[np.float64]
CHOICES = ("first", "largest")


def of_the_first(self: Reuse[int], reads: Iterable[tuple[int, int]]) -> int:
    """The reuse distance of the first activation that a kernel reads, -1 where it reads none."""
    value = next((value for value, _ in reads), None)
    return self._moved - self._written[value] if value in self._written else -1


def lowered(network: NetworkMeasurement, data: ModelData, choice: str) -> NetworkMeasurement | None:
    """The network with the distances of a choice; None where the lowering gives other kernels than were measured."""
    distance = of_the_first if choice == "first" else Reuse._distance
    with mock.patch.object(Reuse, "_distance", distance):
        graph = trace(*rebuild(network.spec))
        found = get_runtime(data.target.runtime).lower(graph, lanes=data.target.device.lanes).kernels
    if [p.kernel for p in found] != [m.kernel for m in network.kernels]:
        return None
    kernels = tuple(replace(m, distance=p.distance) for m, p in zip(network.kernels, found, strict=True))
    return replace(network, kernels=kernels)


def relabelled(data: ModelData) -> dict[str, Measurements]:
    """By choice: the measurements of the networks that can be built again."""
    assert data.measurements is not None
    kept: dict[str, list[NetworkMeasurement]] = {choice: [] for choice in CHOICES}
    missing = other = 0
    for network in data.measurements.networks:
        try:
            both = [lowered(network, data, choice) for choice in CHOICES]
        except MeasurementError:
            missing += 1
            continue
        other += None in both
        for choice, found in zip(CHOICES, both, strict=True):
            if found is not None:
                kept[choice].append(found)
    print(f"{len(kept['first'])} networks; {missing} cannot be built again, {other} are lowered to other kernels")
    return {choice: replace(data.measurements, networks=tuple(networks)) for choice, networks in kept.items()}


def errors(flat: Flat, data: ModelData, seed: int) -> tuple[Array, Array]:
    """Log errors of kernels [rows] and of networks [networks], each predicted by a fit without its network."""
    rows, folds = rows_of(flat, data.target), folds_of(flat.names, seed)
    kernels, networks = np.zeros_like(rows.latency), np.zeros_like(rows.total)
    for fold in range(FOLDS):
        train = folds != fold
        residual, overhead = _fit_on(rows, train, replace(data.settings, seed=seed), None)
        times = residual.predict(rows.data).latency[rows.kernel]
        tested = ~train[rows.network]
        kernels[tested] = times[tested]
        networks[~train] = _networks(times, rows, overhead)[~train]
    return np.abs(np.log(kernels / rows.latency)), np.abs(np.log(networks / rows.total))


def compare(title: str, networks: dict[str, Measurements], data: ModelData, seeds: Sequence[int]) -> None:
    """Print the errors of both choices."""
    flats = {choice: Flat.of(found) for choice, found in networks.items()}
    differs = flats["first"].distance != flats["largest"].distance
    print(f"{title}: {len(networks['first'])} networks, {differs.sum()} of {len(differs)} distances differ")
    for choice, flat in flats.items():
        found = [errors(flat, data, seed) for seed in seeds]
        kernels, whole = np.mean([k for k, _ in found], axis=0), np.concatenate([n for _, n in found])
        changed = f"{kernels[differs].mean():.2%}" if differs.any() else "none"
        print(
            f"  {choice:8} kernels {kernels.mean():.2%}, those that differ {changed}; "
            f"networks {whole.mean():.2%}, within 5 %: {np.mean(whole < 0.05):.1%}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the choices on a model file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("datasets/models/onnxruntime-1.hwcost"))
    parser.add_argument("--seeds", type=int, default=3)
    options: Any = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    data = load(options.model)
    networks, seeds = relabelled(data), range(options.seeds)
    families = sorted({n.family for n in networks["first"].networks})
    for family in families:
        own = {
            choice: replace(found, networks=tuple(n for n in found.networks if n.family == family))
            for choice, found in networks.items()
        }
        if len(own["first"]) >= 10 * FOLDS:
            compare(family, own, data, seeds)
    compare("all", networks, data, seeds)


if __name__ == "__main__":
    main()
