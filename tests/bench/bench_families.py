"""How well a model predicts networks that nobody measured for it. Prints a table; asserts nothing.

    python tests/bench/bench_families.py families --runtime onnxruntime --store families.db
    python tests/bench/bench_families.py known --runtime torch-eager --store known.db --samples 200
    python tests/bench/bench_families.py families --runtime onnxruntime --store batch8.db --batch 8

`families` and `development` are real networks of `families.py`; `known` are random networks of the spaces `mbconv` and
`tiny-cnn`. What the store has not yet is measured first, on a machine that should be quiet; predictions
come from tracing and lowering by rules, not from what the runtime said it runs. `--model` names a model
file, or the shipped one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from families import development, families
from torch import Tensor, nn

from hwcost import CostModel
from hwcost.measure.campaign import measure
from hwcost.measure.items import sampled_items
from hwcost.measure.store.store import Store
from hwcost.measure.types import Item
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.search.spaces import get_space

SPACES = ("mbconv", "tiny-cnn")
SEED = 77
_TOLD = 0.1  # spread of the clock above which nobody can say whether a prediction is within 10 %
GROUPS = {"families": families, "development": development}
FRESH = 8  # networks that one process measures: the heap of one that has held many makes torch slower


def known(samples: int) -> Iterator[Item]:
    """Random networks of two spaces, none of which was measured for a shipped model."""
    for name in SPACES:
        yield from islice(sampled_items(get_space(name), seed=SEED), samples)


def predicted(
    model: CostModel, items: list[Item], store: Store, runtime: str, threads: int
) -> list[tuple[str, Comparison]]:
    """(family, comparison) of every item that the store has."""
    measured = {n.name: n for n in store.measurements(runtime, threads).networks}
    rows = []
    for item in items:
        if item.name not in measured:
            print(f"not measured: {item.name}")
            continue
        try:
            estimate = model.estimate(*item.build())
        except Exception as error:  # it counts as not predicted, and says so
            print(f"not predicted: {item.name}: {str(error).splitlines()[0]}")
            continue
        rows.append((item.family, Comparison.of(item.name, estimate, measured[item.name].timing)))
    return rows


def batched(item: Item, batch: int) -> Item:
    """The same network on several inputs at once."""

    def build() -> tuple[nn.Module, tuple[Tensor, ...]]:
        module, inputs = item.build()
        return module, tuple(torch.empty((batch, *x.shape[1:]), dtype=x.dtype, device="meta") for x in inputs)

    return Item(name=f"{item.name}/batch {batch}", family=item.family, spec={**item.spec, "batch": batch}, build=build)


def report(label: str, rows: list[Comparison]) -> None:
    """The figures of one group of networks."""
    a = Accuracy(tuple(rows))
    width = np.median([(r.high - r.low) / r.predicted for r in rows])
    print(f"{label}, {len(rows)} networks: mean error {a.mape:.1%}, Spearman {a.spearman:.3f}")
    for bound in (0.05, 0.1):
        print(f"  within {bound:.0%}: {a.within(bound):.1%}; or the clock's spread: {a.within_clock(bound):.1%}")
    print(f"  inside the interval {a.coverage_of_interval:.0%}, its median width {width:.0%}")
    print(f"  measured {a.shift:+.1%} off predicted (median)")
    print(f"  median spread of the clock {np.median([r.spread for r in rows]):.1%}")
    told = Accuracy(tuple(r for r in rows if r.spread <= _TOLD))
    if 0 < len(told.networks) < len(rows):
        share = f"mean error {told.mape:.1%}, within 10%: {told.within(0.1):.1%}"
        print(f"  of the {len(told.networks)} that the clock knows to {_TOLD:.0%}: {share}")


def in_fresh_processes(count: int) -> None:
    """Measure all networks, a few in each process."""
    for first in range(0, count, FRESH):
        part = ("--part", str(first), str(first + FRESH))
        subprocess.run([sys.executable, *sys.argv, *part], check=False)  # one that does not run is told of below


def main() -> None:
    """Read the command line, measure what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=("families", "development", "known"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--runtime", default="torch-eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=200, help="of each space")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--spread", type=float, default=float("inf"), help="up to twice the rounds, until it is so small"
    )
    parser.add_argument("--store", default="families.db")
    parser.add_argument("--part", type=int, nargs=2, metavar=("FIRST", "END"), help="measure only these, of all")
    parser.add_argument("--measured", action="store_true", help="only what the store has already")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    items = list(known(options.samples) if options.group == "known" else GROUPS[options.group]())
    items = items if options.batch == 1 else [batched(item, options.batch) for item in items]
    store = Store.open(options.store, create=True)
    if options.part:
        part = items[slice(*options.part)]
        plan = {"rounds": options.rounds, "spread": options.spread}
        measure(part, runtime=options.runtime, threads=options.threads, store=store, **plan)
        return
    if not options.measured:
        in_fresh_processes(len(items))
    model = CostModel.load(options.model, runtime=options.runtime, threads=options.threads)
    rows = predicted(model, items, store, options.runtime, options.threads)
    for family, row in sorted(rows, key=lambda r: r[1].error):
        times = f"{row.predicted * 1e3:8.2f} ms, measured {row.measured * 1e3:8.2f} ms"
        print(f"{family:18} {row.target:40} {times}  {row.error:+.1%}")
    for family in SPACES if options.group == "known" else ():
        report(family, [row for f, row in rows if f == family])
    report("all", [row for _, row in rows])


if __name__ == "__main__":
    main()
