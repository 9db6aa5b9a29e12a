"""The format `neusight`: latency of single operators on NVIDIA GPUs, as published by Lee et al., ASPLOS 2025.

PATH is one CSV file, plain or gzipped, or a folder of them. Each row is an operator of PyTorch in float32:

    add, relu, gelu, softmax, ln    [B, H], softmax and layer norm over the last axis
    bmm                             [B, M, N] @ [B, N, K]
    linear                          [B, M, N] -> [B, M, K]
    conv                            [B, Input_Channel, Input_Size, Input_Size], square window and padding

`Latency` is the mean in milliseconds. The number of runs is not stated, so the spread is unknown. That N is the inner
dimension follows from the launch grids, whose tiles divide M and K: linear with M = 236, N = 64, K = 194 runs as
2 x 8 tiles of 128 x 32. No row names a kernel that adds a bias, so linear layers and convolutions are read without.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from hwcost.graph import OpSpec, TensorSpec
from hwcost.importers.fields import positive, whole_number
from hwcost.importers.registry import FormatError, Imported, importer
from hwcost.kernel import Kernel
from hwcost.measure.types import Environment, Measurements, NetworkMeasurement, Timing, lone

Row = Mapping[str, str | None]
Cell = Callable[..., int]  # column -> number


@importer("neusight", "a CSV file of GPU operators, or a folder of them")
def read(path: Path) -> Imported:
    """The operators of a file or folder, each as a network of its own; one `Measurements` for each GPU and version.

    Raises:
        FormatError: not such a file, or a row that breaks the rules.
    """
    files = sorted(p for p in path.rglob("*") if p.name.endswith((".csv", ".csv.gz"))) if path.is_dir() else [path]
    found: dict[str, tuple[Environment, list[NetworkMeasurement]]] = {}
    for file in files:
        for place, network in _file(file):
            found.setdefault(place.digest, (place, []))[1].append(network)
    if not found:
        raise FormatError(f"{path} holds no row of a NeuSight CSV file")
    return Imported(tuple(Measurements(environment=e, networks=tuple(n)) for e, n in found.values()))


def _file(path: Path) -> Iterator[tuple[Environment, NetworkMeasurement]]:
    try:
        with _open(path) as lines:
            reader = csv.DictReader(lines)
            missing = {"OPName", "Latency", "Device"} - set(reader.fieldnames or ())
            if missing:
                raise FormatError(f"{path}:1: a NeuSight file must have the columns {sorted(missing)}")
            for row in reader:
                yield _measured(row, path, f"{path}:{reader.line_num}")
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path} cannot be read as CSV: {error}") from error


def _open(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _measured(row: Row, path: Path, where: str) -> tuple[Environment, NetworkMeasurement]:
    latency = positive(row["Latency"], "Latency", where) * 1e-3  # ms in the file
    timing = Timing(latency=latency, median=latency, p95=latency, spread=math.inf, rounds=1)
    name = f"neusight/{row['OPName']}/{where.rpartition(':')[2]}"
    network = lone(name, f"neusight/{row['OPName']}", _kernel(row, where), timing)
    versions = (row["Device"], row.get("Torch Version"), row.get("CUDA Version"), row.get("CUDNN Version"))
    return _environment(*(str(v or "") for v in versions), path.parent), network


@lru_cache(maxsize=64)
def _environment(gpu: str, torch: str, cuda: str, cudnn: str, folder: Path) -> Environment:
    versions = {"torch": torch.removeprefix("p"), "cuda": cuda.removeprefix("cu"), "cudnn": cudnn}
    return Environment(
        cpu=gpu,
        cores=_multiprocessors(gpu, folder),
        runtime="torch-eager",
        threads=1,
        versions={name: value for name, value in versions.items() if value},
        host="NeuSight",
    )


def _multiprocessors(gpu: str, folder: Path) -> int:
    """From the GPU's data sheet beside the data; 0 where there is none."""
    for above in (folder, *folder.parents[:3]):
        sheet = above / "device_configs" / f"{gpu.replace(' ', '_')}.json"
        if sheet.is_file():
            return int(json.loads(sheet.read_text(encoding="utf-8"))["Num_Sm"])
    return 0


# -- kernels ----------------------------------------------------------------------------------------


def _kernel(row: Row, where: str) -> Kernel:
    make = _OPS.get(str(row["OPName"]))
    if make is None:
        raise FormatError(f"{where}: OPName must be one of {', '.join(_OPS)}, but got {row['OPName']!r}")
    return Kernel((make(lambda column, least=1: whole_number(row.get(column), column, where, least)),))


def _tensor(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape)


def _weight(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape, weight=True)


def _elementwise(kind: str) -> Callable[[Cell], OpSpec]:
    return lambda n: OpSpec(kind, (_tensor("self", n("B"), n("H")),), (_tensor("out", n("B"), n("H")),))


def _add(n: Cell) -> OpSpec:
    shape = n("B"), n("H")
    return OpSpec("add", (_tensor("self", *shape), _tensor("other", *shape)), (_tensor("out", *shape),))


def _softmax(n: Cell) -> OpSpec:
    shape = n("B"), n("H")
    return OpSpec("softmax", (_tensor("self", *shape),), (_tensor("out", *shape),), (("dim", -1),))


def _layer_norm(n: Cell) -> OpSpec:
    b, h = n("B"), n("H")
    inputs = (_tensor("input", b, h), _weight("weight", h), _weight("bias", h))
    return OpSpec("layer_norm", inputs, (_tensor("out", b, h),), (("normalized_shape", (h,)),))


def _bmm(n: Cell) -> OpSpec:
    b, rows, inner, columns = n("B"), n("M"), n("N"), n("K")
    inputs = (_tensor("self", b, rows, inner), _tensor("mat2", b, inner, columns))
    return OpSpec("bmm", inputs, (_tensor("out", b, rows, columns),))


def _linear(n: Cell) -> OpSpec:
    b, rows, inner, columns = n("B"), n("M"), n("N"), n("K")
    inputs = (_tensor("input", b, rows, inner), _weight("weight", columns, inner))
    return OpSpec("linear", inputs, (_tensor("out", b, rows, columns),))


def _convolution(n: Cell) -> OpSpec:
    b, inner, outer = n("B"), n("Input_Channel"), n("Output_Channel")
    size, stride, padding = n("Input_Size"), n("Stride"), n("Padding", 0)
    window = n("Kernel_Szie")  # spelled so in the files
    out = (size + 2 * padding - window) // stride + 1
    params = [("padding", (padding, padding))] if padding else []
    params += [("stride", (stride, stride))] if stride != 1 else []
    inputs = (_tensor("input", b, inner, size, size), _weight("weight", outer, inner, window, window))
    return OpSpec("conv2d", inputs, (_tensor("out", b, outer, out, out),), tuple(params))


_OPS: Mapping[str, Callable[[Cell], OpSpec]] = {
    "add": _add,
    "relu": _elementwise("relu"),
    "gelu": _elementwise("gelu"),
    "softmax": _softmax,
    "ln": _layer_norm,
    "bmm": _bmm,
    "linear": _linear,
    "conv": _convolution,
}
