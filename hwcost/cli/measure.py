"""`hwcost measure`: networks and their kernels, measured on this machine into a store."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli import fresh_processes
from hwcost.cli.errors import UsageError
from hwcost.cli.options import (
    JsonFlag,
    KwargsOption,
    QuantileOption,
    RuntimeOption,
    StoreOption,
    ThreadsOption,
    examples,
)
from hwcost.cli.output import console, print_json, progress, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hwcost.measure.campaign import Outcome
    from hwcost.measure.types import Item, Measurements, NetworkMeasurement


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "hwcost measure nets.py:small nets.py:large --input 1x3x224x224 --store here.db",
            "hwcost measure --space tiny-cnn --samples 100 --store here.db",
            'hwcost measure --space designed --time "10 min" --runtime onnxruntime --store here.db',
        )
    )(measure)


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
    from hwcost.measure.quantiles import quantile_name
    from hwcost.runtimes.registry import get_runtime

    quantile_name(quantile)  # refused before anything is measured
    if fresh_processes.is_one():
        fresh_processes.end_with_parent()
    items = _items(targets or [], input or [], kwargs, space, samples, seed, limited=bool(time))
    visits = disturbed = 0
    if space and get_runtime(runtime).keeps_heap and not fresh_processes.is_one():
        options = {"space": space, "seed": seed, "runtime": runtime, "threads": threads, "store": store}
        options |= {"rounds": rounds} | ({"spread": spread} if spread else {})
        with _kept(store):
            time, visits, disturbed = fresh_processes.measure_all_but_the_last(options, samples, time)
    found, outcome = _campaign(
        items,
        time=time,
        runtime=runtime,
        threads=threads,
        store=store,
        rounds=rounds,
        spread=spread,
        skip_known=bool(space),
    )
    outcome.visits += visits
    outcome.disturbed += disturbed
    names = None if space else {item.name for item in items}
    networks = [n for n in found.networks if (n.family == space if names is None else n.name in names)]
    if as_json:
        document: dict[str, Any] = {
            "store": store,
            "passed_over": len(outcome.known),
            "elsewhere": len(outcome.elsewhere),
            "visits": outcome.visits,
            "disturbed": outcome.disturbed,
            "networks": [_row(n, quantile) for n in networks],
        }
        return print_json(document)
    if networks or not outcome.elsewhere:
        _show(networks, store, quantile)
    _tell(outcome)


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
    """The networks to measure: those of TARGETs, or random ones of a space, without end where only time limits them.

    Raises:
        UsageError: options that do not go together.
    """
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

    from hwcost.measure.items import sampled_items, sampled_space
    from hwcost.spaces.base import SpaceError

    try:
        chosen = sampled_space(name)
    except SpaceError as error:
        raise UsageError(f"{error}; or `designed`, the sample that covers the shapes") from error
    drawn = sampled_items(chosen, seed=seed)
    return drawn if samples is None else list(islice(drawn, samples))


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
    """The measurements that the store holds after the campaign, and how it went."""
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
                insist=not fresh_processes.is_one(),  # such a process shares its time with those after it
                skip_known=skip_known,
                progress=fresh_processes.progress_of_all(bar, rounds, budget) if fresh_processes.is_one() else bar,
                on_end=ends.append,
            )
    finally:
        opened.close()
    return found, ends[0]


@contextmanager
def _kept(store: str) -> Iterator[None]:
    """Say, where Ctrl-C ends the campaign, that what was measured is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if not fresh_processes.is_one():  # the process that started this one says it
            say(f"interrupted: every round that was finished is in {store}; the same command goes on from there")
        raise typer.Exit(130) from None


def _tell(outcome: Outcome) -> None:
    """Print what a campaign left out, and how much the machine was disturbed."""
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
    """One network as JSON; times in seconds."""
    from hwcost.measure.quantiles import time_of

    timing, spec = network.timing, network.spec
    named = {"target": spec["target"], "input": spec["input"]} if "target" in spec else dict(spec)
    return (
        {"name": network.name}
        | named
        | {
            "latency_s": time_of(timing, quantile),
            "median_s": timing.median,
            "p95_s": timing.p95,
            "spread": timing.spread,
            "rounds": timing.rounds,
            "flags": list(timing.flags),
            "kernels": len(network.kernels),
        }
    )


def _show(networks: list[NetworkMeasurement], store: str, quantile: str) -> None:
    from statistics import median

    from rich.table import Table

    from hwcost import units
    from hwcost.measure.quantiles import time_of

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
        latency = units.format(time_of(n.timing, quantile), "second")
        spread = f"± {n.timing.spread:.1%}"
        flags = ", ".join(n.timing.flags)
        table.add_row(n.name, latency, spread, str(n.timing.rounds), str(len(n.kernels)), flags)
    console().print(table)
    rest = f", {len(networks) - 30} not shown" if len(networks) > 30 else ""
    typical = median(n.timing.spread for n in networks)
    console().print(f"{len(networks)} networks in {store}{rest}; median spread ± {typical:.1%}")
