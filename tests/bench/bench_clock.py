"""How far the clock can be trusted, on the machine it runs on. Prints a table; asserts nothing.

    python tests/bench/bench_clock.py repeatability --of onnxruntime:1 torch-eager:1 [--pause 600] [--burn]
    python tests/bench/bench_clock.py additivity --runtime torch-eager [--store kept.db --rounds 24]
    python tests/bench/bench_clock.py throughput --runtime torch-eager
    python tests/bench/bench_clock.py processes --store postgresql://user@host/name --processes 4
    python tests/bench/bench_clock.py calibration
    HWCOST_TEST_KILLS=100 python -m pytest tests/measure/test_campaign.py -k kill --timeout 3600

Run them on a quiet machine: a session of each takes a few minutes beside the pause.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hwcost import calibrate
from hwcost.measure.campaign import Outcome, measure
from hwcost.measure.items import sampled_items
from hwcost.measure.store.store import Store
from hwcost.measure.types import Item, Measurements
from hwcost.model.overhead import fit_overhead
from hwcost.spaces.designed.attention import Attention
from hwcost.spaces.designed.modules import Residual
from hwcost.spaces.designed.space import DesignedSpace

# -- networks ---------------------------------------------------------------------------------------


def convolutional(width: int) -> nn.Module:
    body = [
        layer for _ in range(6) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
    ]
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), *body)


def depthwise(width: int) -> nn.Module:
    body = [
        layer
        for _ in range(6)
        for layer in (nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Hardswish(), nn.Conv2d(width, width, 1))
    ]
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), *body)


def tokens(width: int) -> nn.Module:
    attend = [Residual(nn.Sequential(nn.LayerNorm(width), Attention(width, width // 32, fused=True))) for _ in range(4)]
    mix = [
        Residual(nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))) for _ in range(4)
    ]
    return nn.Sequential(*(layer for pair in zip(attend, mix, strict=True) for layer in pair))


def thirty() -> Iterator[Item]:
    """Ten sizes of three families, about 1 to 100 ms on one thread."""
    image, many = (1, 3, 112, 112), 196
    sizes = {
        convolutional: ((8, 12, 16, 24, 32, 40, 56, 64, 80, 96), image),
        depthwise: ((16, 24, 32, 48, 64, 96, 128, 160, 192, 256), image),
        tokens: ((32, 64, 96, 128, 160, 192, 256, 320, 448, 576), None),
    }
    for make, (widths, shape) in sizes.items():
        for width in widths:
            size = shape or (1, many, width)
            yield Item(
                name=f"{make.__name__}/{width}",
                family=make.__name__,
                spec={"width": width},
                build=lambda make=make, width=width, size=size: (make(width), (torch.empty(size, device="meta"),)),
            )


# -- benches ----------------------------------------------------------------------------------------


def repeatability(options: argparse.Namespace) -> None:
    """Two campaigns over the same networks for each target, at least a pause apart, each in a process of its own as on
    different hours; with --burn a third one, beside a process that takes its core for half of the time."""
    first = {}
    for target in options.of:
        first[target] = _of(options, target), time.monotonic()
    for target, (before, ended) in first.items():
        time.sleep(max(0.0, ended + options.pause - time.monotonic()))
        waited = time.monotonic() - ended
        second = _of(options, target)
        _compare(before, second, f"{target}, {waited / 60:.0f} minutes apart")
        if options.burn:
            burner = _burner()
            third = _of(options, target)
            burner.terminate()
            _compare(second, third, f"{target}, beside a process that burns a core for half of the time")


def _of(options: argparse.Namespace, target: str) -> Measurements:
    """The thirty networks on "runtime:threads"."""
    runtime, _, threads = target.partition(":")
    place = {"runtime": runtime, "threads": int(threads or 1)}
    return _in_process(argparse.Namespace(**{**vars(options), **place}))


def _compare(first: Measurements, second: Measurements, what: str) -> None:
    rows = []
    for a, b in zip(first.networks, second.networks, strict=True):
        apart = abs(a.timing.latency - b.timing.latency) / min(a.timing.latency, b.timing.latency)
        stated = float(np.hypot(a.timing.spread, b.timing.spread))
        rows.append((apart, stated))
        print(
            f"{a.name:20} {a.timing.latency * 1e3:8.3f} ms {b.timing.latency * 1e3:8.3f} ms  apart {apart:6.2%}  "
            f"spreads {a.timing.spread:5.1%} {b.timing.spread:5.1%}  {','.join(b.timing.flags)}"
        )
    apart, stated = np.array(rows).T
    print(
        f"{what}: apart {np.median(apart):.2%} median, {np.quantile(apart, 0.9):.2%} 90th percentile; "
        f"covered {int((apart <= stated).sum())} of {len(apart)}",
        flush=True,
    )


def additivity(options: argparse.Namespace) -> None:
    """Kernels in context and the overhead fitted on other networks (`hwcost.model.fit`) against the whole network. A
    store that is named is kept: the same command with a higher number of rounds adds those of another hour."""
    items = list(islice(sampled_items(DesignedSpace(), seed=11), options.count))
    found = _campaign(options, items, options.store).networks
    whole = np.array([n.timing.latency for n in found])
    times = np.array([m.timing.latency for n in found for m in n.kernels])
    network = np.repeat(np.arange(len(found)), [len(n.kernels) for n in found])
    calls = np.array([n.calls for n in found], float)
    spread = np.array([n.timing.spread for n in found])
    error = np.empty(len(found))
    for part in range(5):
        held = np.arange(len(found)) % 5 == part
        overhead = fit_overhead(times, network, calls, whole, ~held, spread)
        composed = np.bincount(network, overhead.kernels(times)) + overhead.beside(calls)
        error[held] = (composed / whole - 1)[held]
        print(f"  {overhead}")
    for i in np.argsort(-np.abs(error))[:5]:
        print(f"  {found[i].name}: {whole[i] * 1e3:.3f} ms, {len(found[i].kernels)} kernels, {error[i]:+.1%}")
    print(
        f"{options.runtime}: mean error {np.abs(error).mean():.2%}, within 5 %: {(np.abs(error) < 0.05).mean():.0%} "
        f"of {len(whole)}, within 10 %: {(np.abs(error) < 0.1).mean():.0%}"
    )


def throughput(options: argparse.Namespace) -> None:
    """Share of a campaign's wall time that goes into timed and warm-up runs."""
    items = list(islice(sampled_items(DesignedSpace(), seed=12), options.count))
    with tempfile.TemporaryDirectory() as folder:
        store, ended = Store.open(Path(folder) / "m.db", create=True), list[Outcome]()
        place = {"runtime": options.runtime, "threads": options.threads}
        measure(items, store=store, rounds=options.rounds, on_end=ended.append, **place)
    (outcome,) = ended
    print(
        f"{len(outcome.done)} networks, {len(outcome.failed)} failed, {outcome.wall:.0f} s, "
        f"{outcome.timed / outcome.wall:.0%} in visits and warm-ups, "
        f"{outcome.running / outcome.wall:.0%} in their runs alone"
    )
    for name, why in outcome.failed.items():
        print(f"  {name}: {why}")


def processes(options: argparse.Namespace) -> None:
    """Several processes on one campaign: every network exactly once."""
    workers = [mp.get_context("spawn").Process(target=_join, args=(vars(options),)) for _ in range(options.processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store = Store.open(options.store)
    found = store.measurements(options.runtime, options.threads)
    rounds = [n.timing.rounds for n in found.networks]
    names = [n.name for n in found.networks]
    print(f"{len(names)} networks, {len(set(names))} names, rounds {min(rounds)} to {max(rounds)}")
    print(f"exit codes {[w.exitcode for w in workers]}")


def _join(options: dict[str, Any]) -> None:
    store = Store.open(options["store"], create=True)
    items = list(islice(sampled_items(DesignedSpace(), seed=13), options["count"]))
    measure(items, store=store, runtime=options["runtime"], threads=options["threads"], rounds=options["rounds"])


def calibration(options: argparse.Namespace) -> None:
    """Two calibrations: how far apart each ceiling is, and how long one takes."""
    start = time.monotonic()
    first = calibrate(options.threads)
    print(f"{options.threads} thread(s): {time.monotonic() - start:.1f} s")
    second = calibrate(options.threads)
    again = {_named(c): c for c in (*second.compute, *second.memory)}
    for a in (*first.compute, *first.memory):
        name, b = _named(a), again.get(_named(a))
        if b is None:
            print(f"{name:8} {a.value:.4g}, left out of the second: {second.host.get('left_out')}")
            continue
        print(f"{name:8} {a.value:.4g} {b.value:.4g}  apart {abs(a.value / b.value - 1):.1%}, stated {a.spread:.1%}")
    print(json.dumps({"quiet": [first.host["quiet"], second.host["quiet"]]}))


def _named(ceiling: Any) -> str:
    return str(getattr(ceiling, "dtype", None) or ceiling.level)


def _in_process(options: argparse.Namespace) -> Measurements:
    with mp.get_context("spawn").Pool(1) as pool:
        found: Measurements = pool.apply(_campaign, (options,))
    return found


def _campaign(options: argparse.Namespace, items: list[Item] | None = None, kept: str = "") -> Measurements:
    with tempfile.TemporaryDirectory() as folder:
        store, ended = Store.open(kept or Path(folder) / "m.db", create=True), list[Outcome]()
        chosen = list(thirty()) if items is None else items
        found = measure(
            chosen, store=store, runtime=options.runtime, threads=options.threads, rounds=options.rounds,
            spread=options.spread, on_end=ended.append,
        )  # fmt: skip
    for name, why in ended[0].failed.items():
        print(f"  {name} failed: {why}")
    return found


def _burner() -> Any:
    process = mp.get_context("spawn").Process(target=_burn, daemon=True)
    process.start()
    return process


def _burn() -> None:
    """One core, half of the time."""
    while True:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        time.sleep(0.5)


def main() -> None:
    """Read the command line and run one bench."""
    benches = {f.__name__: f for f in (repeatability, additivity, throughput, processes, calibration)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=benches)
    parser.add_argument("--runtime", default="torch-eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--of", nargs="+", default=["torch-eager:1"], help="of repeatability: runtime:threads")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--spread", type=float, default=0.02)
    parser.add_argument("--pause", type=float, default=600.0)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--store", default="", help="of additivity: kept; of processes: shared")
    parser.add_argument("--burn", action="store_true")
    options = parser.parse_args()
    if options.bench == "processes" and not options.store:
        parser.error("processes share a store: name it with --store")
    benches[options.bench](options)


if __name__ == "__main__":
    main()
