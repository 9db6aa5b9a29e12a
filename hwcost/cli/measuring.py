"""Verbs that run things on this machine, and what comes of it: calibrate, measure."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time as clock
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.common import (
    JsonFlag,
    KwargsOption,
    PlotOption,
    Progress,
    QuantileOption,
    RuntimeOption,
    StoreOption,
    ThreadsOption,
    UsageError,
    console,
    examples,
    print_json,
    progress,
    save_ceilings,
    say,
    writable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hwcost.device.device import Device
    from hwcost.measure.campaign import Outcome
    from hwcost.measure.types import Item, Measurements, NetworkMeasurement


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command(epilog=examples("hwcost calibrate", "hwcost calibrate --runtime onnxruntime -o here.toml"))(calibrate)
    app.command(
        epilog=examples(
            "hwcost measure nets.py:small nets.py:large --input 1x3x224x224 --store here.db",
            "hwcost measure --space tiny-cnn --samples 100 --store here.db",
            'hwcost measure --space designed --time "10 min" --runtime onnxruntime --store here.db',
        )
    )(measure)


# -- calibrate ------------------------------------------------------------------------------------


def calibrate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The device file to write.")] = Path(
        "device.toml"
    ),
    runtime: RuntimeOption = "torch-eager",
    threads: ThreadsOption = 1,
    plot: PlotOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure this machine's ceilings, compute and memory, and write a device file.

    What kinds of kernel compute at best, such as depthwise convolutions, is measured in one runtime. A device file of
    this machine that is there already keeps the ceilings that it has of other thread counts and runtimes.
    """
    writable(output)
    if plot is not None:
        writable(plot)
    from hwcost.calibration.run import calibrate as run
    from hwcost.calibration.run import joined
    from hwcost.device.device import Device

    older = Device.load(output) if output.exists() else None  # refused, if it is no device, before anything is measured
    with progress("calibrating") as bar:
        device = run(threads, runtime=runtime, progress=bar)
    device = joined(device, older) if older else device
    device.save(output)
    save_ceilings(device, plot)
    quiet = device.host["quiet"]
    if quiet != "yes":
        say(f"the machine was not quiet, {quiet.removeprefix('no: ')}: calibrate again when it is")
    if "left_out" in device.host:
        say(f"caches without a ceiling: {device.host['left_out']}")
    if as_json:
        return print_json(device.model_dump() | {"path": str(output)})
    _show_device(device, runtime, threads, output)


def _show_device(device: Device, runtime: str, threads: int, output: Path) -> None:
    from hwcost import units
    from hwcost.report.ceilings import reached

    out = console()
    out.print(f"[bold]{device.name}[/bold] on {threads} thread{'s' if threads > 1 else ''}: {output}")
    for c in (c for c in device.compute if c.threads == threads):
        out.print(f"  {c.dtype:10} {reached(c)}  ± {c.spread or 0.0:.1%}")
    for m in (m for m in device.memory if m.threads == threads):
        out.print(f"  {m.level:10} {reached(m)}  ± {m.spread or 0.0:.1%}")
        out.print(f"  [dim]{m.level}: {m.measured_source}[/dim]")
    _show_kinds(device, runtime, threads)
    dispatch = units.format(device.dispatch, "second") if device.dispatch else "unknown"
    joined = f", fork-join {device.host['fork_join']}" if "fork_join" in device.host else ""
    out.print(f"  ridge point {units.format(device.ridge(threads=threads), 'flop/byte')}, dispatch {dispatch}{joined}")


def _show_kinds(device: Device, runtime: str, threads: int) -> None:
    """Share of the peak that each kind reaches, the least first."""
    from hwcost.report.columns import percent

    kinds = sorted((k for k in device.kinds if (k.runtime, k.threads) == (runtime, threads)), key=lambda k: k.value)
    shares = [f"{k.kind} {percent(k.value / device.peak(k.dtype, threads))}" for k in kinds]
    if shares:
        console().print(f"  {runtime} computes at best, of that: {', '.join(shares)}")


# -- measure --------------------------------------------------------------------------------------

_AGEING = ("torch-eager", "torch-compile")  # runtimes that take their activations from the process's heap
_FRESH = 40  # networks that a process measures before another one takes over
_PART = "HWCOST_PART"  # set in the environment of such a process: networks that are wanted in all, or 0


def measure(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="package.module:callable or path/file.py:callable."),
    ] = None,
    input: Annotated[  # noqa: A002 - the option's name
        list[str] | None, typer.Option("--input", "-i", metavar="SHAPE", help="1x3x224x224; repeat for more inputs.")
    ] = None,
    kwargs: KwargsOption = "",
    space: Annotated[str, typer.Option("--space", metavar="NAME", help="A search space, or `designed`.")] = "",
    samples: Annotated[int | None, typer.Option(min=1, help="Networks to draw from the space.")] = None,
    time: Annotated[str, typer.Option(metavar="TIME", help='Wall time to spend, as in "10 min".')] = "",
    runtime: RuntimeOption = "torch-eager",
    threads: ThreadsOption = 1,
    store: StoreOption = "measurements.db",
    rounds: Annotated[
        int,
        typer.Option(min=2, help="Undisturbed rounds of each network, at least; ask for more later, to add to them."),
    ] = 8,
    spread: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Go on, up to twice the rounds or the --time, until the spread is this."),
    ] = None,
    quantile: QuantileOption = "low",
    seed: Annotated[int, typer.Option(min=0, help="Of the networks drawn from the space.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure networks and their kernels on this machine; goes on where it stopped."""
    from hwcost.measure.machine import end_with_parent
    from hwcost.measure.quantiles import named

    named(quantile)  # refused before anything is measured
    if _PART in os.environ:
        end_with_parent()
    items = _items(targets or [], input or [], kwargs, space, samples, seed, limited=bool(time))
    visits = disturbed = 0
    if space and runtime in _AGEING and _PART not in os.environ:
        options = {"space": space, "seed": seed, "runtime": runtime, "threads": threads, "store": store}
        options |= {"rounds": rounds} | ({"spread": spread} if spread else {})
        with _kept(store):
            time, visits, disturbed = _first_parts(options, samples, time)
    found, outcome = _campaign(
        items, time=time, runtime=runtime, threads=threads, store=store, rounds=rounds, spread=spread,
        skip_known=bool(space),
    )  # fmt: skip
    outcome.visits, outcome.disturbed = outcome.visits + visits, outcome.disturbed + disturbed
    names = None if space else {item.name for item in items}
    networks = [n for n in found.networks if (n.family == space if names is None else n.name in names)]
    if as_json:
        about = {"passed_over": len(outcome.known), "elsewhere": len(outcome.elsewhere)}
        about |= {"visits": outcome.visits, "disturbed": outcome.disturbed}
        return print_json({"store": store} | about | {"networks": [_row(n, quantile) for n in networks]})
    if networks or not outcome.elsewhere:
        _show(networks, store, quantile)
    _tell(outcome)


def _first_parts(options: Mapping[str, Any], samples: int | None, time: str) -> tuple[str, int, int]:
    """Have fresh processes measure all networks of a space but the last few.

    Returns the time that is left, how many visits they made, and how many of these were disturbed.

    The heap of a process that has held many networks is in pieces: activations that a process of one network
    would find in its caches lie somewhere else each time, and the same network takes up to a fifth longer.
    """
    from hwcost import units

    end = clock.monotonic() + units.parse(time, "second") if time else math.inf
    visits = disturbed = 0
    for number in count(_FRESH, _FRESH) if samples is None else range(_FRESH, samples, _FRESH):
        if clock.monotonic() >= end:
            break
        limit = {"time": f"{end - clock.monotonic():.1f} s"} if time else {}
        told = chain.from_iterable((f"--{k}", str(v)) for k, v in {**options, **limit, "samples": number}.items())
        command = [sys.executable, "-m", "hwcost", "measure", *told, "--json"]
        part = subprocess.run(
            command, stdout=subprocess.PIPE, env={**os.environ, _PART: str(samples or 0)}, check=False
        )
        if part.returncode:
            raise typer.Exit(part.returncode)
        said = json.loads(part.stdout)
        visits, disturbed = visits + said["visits"], disturbed + said["disturbed"]
    return f"{max(end - clock.monotonic(), 0.1):.1f} s" if time else "", visits, disturbed


def _items(
    targets: list[str],
    inputs: list[str],
    kwargs: str,
    space: str,
    samples: int | None,
    seed: int,
    *,
    limited: bool,
) -> Iterable[Item]:
    if bool(targets) == bool(space):
        raise UsageError("measure takes either TARGETs with --input, or --space")
    if targets and samples:
        raise UsageError("--samples is for a --space; a TARGET is measured once")
    if space and (inputs or kwargs):
        raise UsageError("--input and --kwargs are for TARGETs; a --space has its own inputs")
    if targets:
        from hwcost.cli.targets import target_item

        return [target_item(target, inputs, kwargs) for target in targets]
    if samples is None and not limited:
        raise UsageError('a space needs --samples N or --time, as in --time "10 min"')
    return _drawn(space, samples, seed)


def _drawn(name: str, samples: int | None, seed: int) -> Iterable[Item]:
    from itertools import islice

    from hwcost.measure.items import sampled_items
    from hwcost.spaces.base import SpaceError
    from hwcost.spaces.registry import get_space

    try:
        chosen = _designed() if name == "designed" else get_space(name)
    except SpaceError as error:
        raise UsageError(f"{error}; or `designed`, the sample that covers the shapes") from error
    drawn = sampled_items(chosen, seed=seed)
    return drawn if samples is None else list(islice(drawn, samples))


def _designed() -> Any:
    from hwcost.spaces.designed.space import DesignedSpace

    return DesignedSpace()


def _campaign(
    items: Iterable[Item],
    *,
    time: str,
    runtime: str,
    threads: int,
    store: str,
    rounds: int,
    spread: float | None,
    skip_known: bool,
) -> tuple[Measurements, Outcome]:
    """What the store has after the campaign, and how it went."""
    from hwcost import units
    from hwcost.measure.campaign import Outcome
    from hwcost.measure.campaign import measure as run
    from hwcost.measure.store.store import Store

    budget = units.parse(time, "second") if time else math.inf
    opened, ends = Store.open(store, create=True), list[Outcome]()
    try:
        with _kept(store), progress("measuring") as bar:
            found = run(
                items,
                runtime=runtime,
                threads=threads,
                store=opened,
                rounds=rounds,
                spread=math.inf if spread is None else spread,
                budget=budget,
                insist=_PART not in os.environ,  # the time of a part is that of all
                skip_known=skip_known,
                progress=_of_all(bar, rounds, budget) if _PART in os.environ else bar,
                on_end=ends.append,
            )
    finally:
        opened.close()
    return found, ends[0]


@contextmanager
def _kept(store: str) -> Iterator[None]:
    """Say what an interrupted campaign has."""
    try:
        yield
    except KeyboardInterrupt:
        if _PART not in os.environ:  # whoever started this process says it
            say(f"interrupted: every round that was finished is in {store}; the same command goes on from there")
        raise typer.Exit(130) from None


def _of_all(bar: Progress, rounds: int, budget: float) -> Progress:
    """A part's progress as that of all parts: of the rounds wanted in all, or of the time that is left to them."""
    wanted, begun, first = int(os.environ[_PART]) * rounds or math.inf, clock.monotonic(), -1.0

    def told(done: float, total: float, note: str = "") -> None:
        nonlocal first
        first = done if first < 0 else first
        share = (clock.monotonic() - begun) / budget  # 0 of an endless one
        expected = first + (done - first) / share if share > 0 else math.inf
        least = min(wanted, expected)
        bar(done, max(done, least if math.isfinite(least) else total), note)

    return told


def _tell(outcome: Outcome) -> None:
    if outcome.elsewhere:
        console().print(f"networks left to another process, which measures them now: {len(outcome.elsewhere)}")
    known = len(outcome.known)
    if known:
        console().print(f"{known} drawn networks were passed over: each of their kernels is in three networks there")
    if outcome.disturbed:
        share = outcome.disturbed / outcome.visits
        told = f"{share:.0%} of {outcome.visits} visits found the machine slowed by others"
        console().print(f"{told}; such visits are made again, up to twice the rounds")


def _row(network: NetworkMeasurement, quantile: str) -> dict[str, Any]:
    from hwcost.measure.quantiles import of

    timing, spec = network.timing, network.spec
    named = {"target": spec["target"], "input": spec["input"]} if "target" in spec else dict(spec)
    return {"name": network.name} | named | {
        "latency_s": of(timing, quantile), "median_s": timing.median, "p95_s": timing.p95,
        "spread": timing.spread, "rounds": timing.rounds, "flags": list(timing.flags),
        "kernels": len(network.kernels),
    }  # fmt: skip


def _show(networks: list[NetworkMeasurement], store: str, quantile: str) -> None:
    from statistics import median

    from rich.table import Table

    from hwcost import units
    from hwcost.measure.quantiles import of

    if not networks:
        raise UsageError(f"the time was too short to measure one network into {store}; give more with --time")
    table = Table(
        "network",
        "latency" if quantile == "low" else f"{quantile} latency",
        "spread",
        "rounds",
        "kernels",
        "flags",
        box=None,
    )
    for n in networks[:30]:
        latency = units.format(of(n.timing, quantile), "second")
        spread = f"± {n.timing.spread:.1%}"
        flags = ", ".join(n.timing.flags)
        table.add_row(n.name, latency, spread, str(n.timing.rounds), str(len(n.kernels)), flags)
    console().print(table)
    rest = f", {len(networks) - 30} not shown" if len(networks) > 30 else ""
    typical = median(n.timing.spread for n in networks)
    console().print(f"{len(networks)} networks in {store}{rest}; median spread ± {typical:.1%}")
