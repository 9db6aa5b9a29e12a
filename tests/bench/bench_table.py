"""Latency tables against their bars. Prints a table; asserts nothing.

    python tests/bench/bench_table.py rows            # mbconv, 21 widths, 4 resolutions: s, byte, rows/s
    python tests/bench/bench_table.py million         # a million rows, the basis of the plan for 10^9
    python tests/bench/bench_table.py lookup          # look-ups of 20 decisions, many and one
    python tests/bench/bench_table.py load            # a fresh process that reads a table and asks it
    python tests/bench/bench_table.py sums            # blocks of tables against 1,000 built networks of each space
    python tests/bench/bench_table.py cells           # 15,625 cells of NAS-Bench-201 as whole networks

`--model FILE` prices with a fitted model; the default is the shipped one. `--jobs N` uses N processes. CPU
time is of this command and all its processes; the memory is that of the largest of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hwcost import LatencyTable
from hwcost.cli.models import load_model
from hwcost.model.cost_model import CostModel
from hwcost.search.spaces import Space, get_space, space_names
from hwcost.table.lookup import Lookup, Term
from hwcost.table.schema import TableError

SCALED = ("--widths", "0.5:1.5:0.05", "--resolutions", "128,160,192,224")
RUNTIMES = ("torch-eager", "onnxruntime")
MILLION = ("--widths", "0.25:4:0.01", "--resolutions", "96:336:16")


def _row(what: str, value: str, bar: str) -> None:
    print(f"{what:52} {value:>28}   bar {bar}", flush=True)


def _written(what: str, options: tuple[str, ...], bar: str, model: str, jobs: int) -> None:
    """`hwcost table` as a user runs it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        verb = [sys.executable, "-m", "hwcost", "table", "--space", "mbconv", *options, "--model", model]
        start, before = time.monotonic(), _cpu_of_children()
        argv = [*verb, "--jobs", str(jobs), "-o", str(path), "--json"]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        seconds, cpu = time.monotonic() - start, _cpu_of_children() - before
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        rows = json.loads(done.stdout)["rows"]
        _row(f"{what}: {rows} rows", f"{seconds:.1f} s, {memory / 1e6:.2f} GB", bar)
        _row("  CPU time", f"{cpu:.1f} s, {rows / seconds:.0f} rows/s", "-")
        _row("  file", f"{path.stat().st_size / rows:.1f} byte a row", "-")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows(model: str, jobs: int) -> None:
    _written("mbconv, 21 widths, 4 resolutions", SCALED, "60 s, 1 GB, >= 10,000 rows", model, jobs)


def million(model: str, jobs: int) -> None:
    _written("mbconv, 376 widths, 16 resolutions", MILLION, "600 s, 2 GB, 10^6 rows", model, jobs)


def lookup(model: str, jobs: int) -> None:
    """20 decisions of 4 choices; each of 20 places depends on three of them."""
    rng = np.random.default_rng(0)
    sizes = [4] * 20
    terms = [Term((i, i + 1, i + 2), rng.random((4, 4, 4))) for i in range(18)]
    table = Lookup(terms, sizes, 1e-3)
    choices = rng.integers(0, 4, (10_000_000, 20), dtype=np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = min(_timed(lambda: table.many(choices)) for _ in range(3))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    _row("look-ups of 20 decisions in one call", f"{1e1 / seconds:.1f} million/s", ">= 10 million/s")
    _row("  memory besides choices and answers", f"{grown - 80:.0f} MB", "bounded")
    tiny = get_space("tiny-cnn")
    own = LatencyTable.build(tiny, CostModel.analytic("nvidia-v100"))
    one = tiny.choices(tiny.sample(rng))
    seconds = min(_timed(lambda: [own.latency(one) for _ in range(1000)]) for _ in range(5)) / 1000
    _row("one look-up, tiny-cnn", f"{seconds * 1e6:.1f} µs", "<= 20 µs")


LOAD = """
import sys
import hwcost
table = hwcost.LatencyTable.load(sys.argv[1])
choices = [0] * len(table.choices)
table.latency(choices)
table.estimate(choices)
print(*sys.modules)
"""


def load(model: str, jobs: int) -> None:
    """Import, load and look up in a fresh process: the best of five."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "t.parquet")
        LatencyTable.build(get_space("tiny-cnn"), CostModel.analytic("nvidia-v100")).save(path)
        argv = [sys.executable, "-c", LOAD, path]
        seconds = min(_timed(lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)) for _ in range(5))
        loaded = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    _row("import hwcost, load a table, two look-ups", f"{seconds:.2f} s", "<= 0.6 s")
    heavy = [name for name in ("torch", "sklearn", "scipy", "joblib", "pandas") if name in loaded]
    _row("  libraries besides numpy and pyarrow", ", ".join(heavy) or "none", "none")


def _timed(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def sums(model: str, jobs: int) -> None:
    """Every space on every runtime that has a model: the given one's, or those of the shipped ones."""
    for loaded in [load_model(model)] if model != "default" else [load_model(model, runtime=r) for r in RUNTIMES]:
        for name in space_names():
            what = f"{name}, {loaded.runtime}: sums of blocks, 1,000 networks"
            try:
                table = LatencyTable.build(get_space(name), loaded, jobs=jobs)
            except TableError as refused:
                print(f"{what:52} refused: {refused}", flush=True)
                continue
            errors = np.abs(_against_built(table, get_space(name), loaded))
            _row(what, f"{errors.max():.2%} at most", "<= 1 %")


def _against_built(table: LatencyTable, space: Space, model: CostModel, networks: int = 1000) -> NDArray[np.float64]:
    """Relative errors of the table against the estimate of random networks, built and traced."""
    rng, errors = np.random.default_rng(0), []
    for params in (space.sample(rng) for _ in range(networks)):
        with torch.device("meta"):
            built = model.estimate(space.build(params).eval(), space.inputs(params))
        errors.append(table.estimate(params).latency / built.latency - 1)
    return np.array(errors)


def cells(model: str, jobs: int) -> None:
    loaded, space = load_model(model), get_space("nas-bench-201")
    start = time.monotonic()
    table = LatencyTable.build(space, loaded, jobs=jobs)
    choices = np.stack(np.meshgrid(*(np.arange(n) for n in table.choices), indexing="ij"), -1).reshape(-1, 6)
    latency = table.latency(choices)
    _row(f"{len(latency)} cells as whole networks", f"{time.monotonic() - start:.1f} s", "<= 10 s")


BENCHES = {f.__name__: f for f in (rows, million, lookup, load, sums, cells)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="+", choices=list(BENCHES))
    parser.add_argument("--model", default="default")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    for name in asked.bench:
        BENCHES[name](asked.model, asked.jobs)
