"""Latency of NAS-Bench-201 cells on this machine: predicted before they run, then measured.

    python tests/bench/bench_nb201_latency.py --model here.hwcost --cells 30

Random connected cells are built as real networks and priced by the model from their trace alone; then they are
measured, interleaved, on the model's runtime and threads. Needs a quiet machine; cells that the model was fitted on
are left out. Exits with 1 where fewer than 90 % of cells are within 10 % of the prediction.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from hwcost.measure.campaign import measure
from hwcost.measure.items import space_item
from hwcost.measure.store.store import Store
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.cost_model import CostModel
from hwcost.search.spaces import Params
from hwcost.spaces.nas_bench_201 import NasBench201

WANTED = 0.9  # share of cells within 10 %


def main() -> int:
    """Print a line a cell, and the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model file of this machine")
    parser.add_argument("--cells", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = CostModel.load(options.model)
    space = NasBench201()
    seen = {n.name for n in model.measurements.networks} if model.measurements is not None else set()
    cells = _draw(space, options.cells, options.seed, seen)
    accuracy = _verify(model, space, cells)
    for row in sorted(accuracy.networks, key=lambda r: r.measured):
        inside = "" if row.low <= row.measured <= row.high else "  outside the interval"
        print(
            f"{row.target}  predicted {row.predicted * 1e3:7.3f} ms [{row.low * 1e3:.3f}, {row.high * 1e3:.3f}]  "
            f"measured {row.measured * 1e3:7.3f} ms +- {row.spread:.1%}  {row.error:+.1%}{inside}"
        )
    print(
        f"{len(cells)} cells: within 5 % {accuracy.within(0.05):.0%}, within 10 % {accuracy.within(0.10):.0%}, "
        f"mean error {accuracy.mape:.1%}, rank correlation {accuracy.spearman:.3f}, "
        f"inside the {model.confidence:.0%} interval {accuracy.coverage_of_interval:.0%}"
    )
    return 0 if accuracy.within(0.10) >= WANTED else 1


def _draw(space: NasBench201, count: int, seed: int, seen: set[str]) -> list[Params]:
    """Different random cells whose output depends on their input, and that the model was not fitted on."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        params = space.sample(rng)
        connected = space.features(params)["paths"] > 0
        if connected and space_item(space, params).name not in seen:
            found[space.digits(params)] = params
    return list(found.values())


def _verify(model: CostModel, space: NasBench201, cells: list[Params]) -> Accuracy:
    with torch.device("meta"):
        networks = [(space.build(p), space.inputs(p)) for p in cells]
    predicted = model.estimate_many(networks)
    items = [space_item(space, p) for p in cells]
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "cells.db", create=True)
        found = measure(items, runtime=model.runtime, threads=model.threads, store=store)
        store.close()
    timings = {n.name: n.timing for n in found.networks}
    pairs = zip(cells, items, predicted, strict=True)
    return Accuracy(tuple(Comparison.of(space.digits(p), e, timings[i.name]) for p, i, e in pairs))


if __name__ == "__main__":
    sys.exit(main())
