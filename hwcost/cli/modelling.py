"""Verbs that make and check cost models: fit, evaluate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.common import (
    DeviceOption,
    EnvironmentOption,
    JsonFlag,
    KwargsOption,
    QuantileOption,
    RuntimeOfModelOption,
    StoreOption,
    ThreadsOfModelOption,
    UsageError,
    console,
    examples,
    load_device,
    load_model,
    print_json,
    progress,
    say,
    writable,
)

if TYPE_CHECKING:
    from hwcost.device.device import Device
    from hwcost.measure.types import Item, Measurements
    from hwcost.model.accuracy import Accuracy
    from hwcost.model.cost_model import CostModel
    from hwcost.runtimes.base import Network


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command(
        epilog=examples(
            "hwcost fit --store here.db --device here.toml -o here.hwcost",
            "hwcost fit --store more.db --device here.toml --prior here.hwcost -o better.hwcost",
        )
    )(fit)
    app.command(
        epilog=examples(
            "hwcost evaluate here.hwcost nets.py:small nets.py:large --input 1x3x224x224",
            "hwcost evaluate here.hwcost --store other-networks.db --baselines --plot evaluation.html",
        )
    )(evaluate)


# -- fit ----------------------------------------------------------------------------------------

_TELLING = 0.25  # spread above which a network teaches more of the machine's mood than of itself
_ENOUGH = 100  # networks


def fit(
    store: StoreOption,
    device: DeviceOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL", help="The model file to write.")],
    runtime: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the measurements; not needed where there is one.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the measurements; not needed where there is one.")
    ] = None,
    environment: EnvironmentOption = "",
    prior: Annotated[str, typer.Option(metavar="MODEL", help="A model on top of whose data to fit.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Fit a cost model on measurements, and print its accuracy on networks held out of the fit.

    Networks that the clock knows to worse than 25 % are left out where at least a hundred others are there.
    """
    from hwcost.measure.store.store import Store
    from hwcost.model.cost_model import CostModel

    here = load_device(device)
    writable(output)
    stored = Store.open(store).measurements(runtime, threads, environment=environment)
    _check_cpu(here, stored)
    measurements = _telling(stored)
    earlier = _prior(prior, measurements) if prior else None
    start = time.monotonic()
    with progress(f"fitting on {len(measurements)} networks") as bar:
        model = CostModel.fit(measurements, device=here, prior=earlier)
        bar(1, 1)
    seconds = time.monotonic() - start
    model.save(output)
    if as_json:
        left_out = {"left_out": len(stored) - len(measurements)}
        return print_json(_fitted(model, measurements, output, seconds) | left_out)
    _show_fit(model, measurements, output)


def _check_cpu(device: Device, measurements: Measurements) -> None:
    """Ceilings of another machine still normalise kernels, but whoever gives them should know."""
    stated, measured = device.host.get("cpu", ""), measurements.environment.cpu
    if stated and stated != measured:
        say(f"the measurements were taken on {measured}, but the ceilings are those of {stated}")


def _telling(measurements: Measurements) -> Measurements:
    """Without what was slowed throughout, where that leaves enough: of a network that takes between a third of
    its time and all of it, the trees would learn that it takes all."""
    telling = measurements.known_to(_TELLING)
    left_out = len(measurements) - len(telling)
    if not left_out or len(telling) < _ENOUGH:
        return measurements
    say(f"left out {left_out} of {len(measurements)} networks, which the clock knows to worse than {_TELLING:.0%}")
    return telling


def _prior(name: str, measurements: Measurements) -> CostModel:
    """Any fitted model will do; `default` is the shipped one of the measurements' own runtime and threads."""
    if name != "default":
        return load_model(name)
    return load_model(name, runtime=measurements.environment.runtime, threads=measurements.environment.threads)


def _fitted(model: CostModel, measurements: Measurements, path: Path, seconds: float) -> dict[str, Any]:
    held_out = model.held_out
    return {
        "path": str(path), "device": model.device.name, "runtime": model.runtime, "threads": model.threads,
        "networks": len(measurements), "kernels": sum(len(n.kernels) for n in measurements.networks),
        "seconds": seconds, "held_out": _figures(held_out) if held_out is not None else None,
    }  # fmt: skip


def _show_fit(model: CostModel, measurements: Measurements, path: Path) -> None:
    from hwcost.report.text import accuracy_lines, describe_path

    out = console()
    kernels = sum(len(n.kernels) for n in measurements.networks)
    out.print(
        f"[bold]{model.device.name}[/bold], {model.runtime}, {model.threads} thread(s): {kernels} kernels measured"
    )
    if model.held_out is not None:
        out.print(accuracy_lines(model.held_out, "networks held out of the fit"), soft_wrap=True)
    out.print(f"wrote {describe_path(path)}")


def _figures(accuracy: Accuracy) -> dict[str, Any]:
    return _errors(accuracy) | {
        "within_5_or_clock": accuracy.within_clock(0.05), "within_10_or_clock": accuracy.within_clock(0.10),
        "clock_above_5": accuracy.wider_clock(0.05), "clock": accuracy.clock,
        "coverage_of_interval": accuracy.coverage_of_interval, "width": accuracy.width,
        "shift": accuracy.shift,
    }  # fmt: skip


def _errors(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "within_5": accuracy.within(0.05), "within_10": accuracy.within(0.10), "mape": accuracy.mape,
        "spearman": accuracy.spearman,
    }  # fmt: skip


# -- evaluate -----------------------------------------------------------------------------------


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", show_default=False, help="A model file, `default`, or a table.")
    ],
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="package.module:callable or path/file.py:callable."),
    ] = None,
    input: Annotated[  # noqa: A002 - the option's name
        list[str] | None, typer.Option("--input", "-i", metavar="SHAPE", help="1x3x224x224; repeat for more inputs.")
    ] = None,
    kwargs: KwargsOption = "",
    store: Annotated[str, typer.Option(metavar="URL", help="Networks that were measured before.")] = "",
    environment: EnvironmentOption = "",
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also six simple predictors, fitted on the model's measurements.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write predicted against measured as HTML.")] = None,
    quantile: QuantileOption = "low",
    runtime: RuntimeOfModelOption = None,
    threads: ThreadsOfModelOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare predicted with measured latency: of TARGETs, measured now, or of a store's networks."""
    if bool(targets) == bool(store):
        raise UsageError("evaluate takes either TARGETs with --input, or --store")
    if plot is not None:
        writable(plot)
    if quantile != "low" and baselines:
        raise UsageError("baselines say the unloaded latency; leave --baselines or --quantile out")
    if Path(model).suffix in (".parquet", ".csv", ".yaml", ".yml"):
        if not store or baselines or plot is not None or quantile != "low":
            raise UsageError(
                "a latency table is evaluated on networks of its space, measured by `hwcost measure --space S "
                "--samples 20 --store URL`: give --store alone"
            )
        from hwcost.cli.tabling import table_accuracy

        accuracy = table_accuracy(model, store, environment)
    elif store:
        loaded = load_model(model, runtime=runtime, threads=threads, quantile=quantile)
        networks, accuracy = _of_store(loaded, store, environment)
    else:
        loaded = load_model(model, runtime=runtime, threads=threads, quantile=quantile)
        if baselines and not loaded.is_fitted:  # before anything is measured
            raise UsageError(f"{model} is the roofline alone, and baselines are fitted on a model's measurements")
        networks, accuracy = _of_targets(loaded, targets or [], input or [], kwargs)
    others = _beside(loaded, networks, accuracy) if baselines else {}
    if plot is not None:
        _draw(plot, loaded, accuracy, others)
    if as_json:
        rows = [{"name": name} | _errors(other) for name, other in others.items()]
        document = {"networks": [_row(n) for n in accuracy.networks]} | _figures(accuracy)
        return print_json(document | ({"baselines": rows} if baselines else {}))
    _show_evaluation(accuracy, others)


def _show_evaluation(accuracy: Accuracy, others: Mapping[str, Accuracy]) -> None:
    from hwcost.report.text import accuracy_lines, baseline_table, comparison_table

    out = console()
    out.print(comparison_table(accuracy.networks))
    out.print(accuracy_lines(accuracy, "networks" if len(accuracy.networks) > 1 else "network"), soft_wrap=True)
    if others:
        out.print(baseline_table({"this model": accuracy} | dict(others)))


def _of_store(model: CostModel, url: str, environment: str) -> tuple[list[Network], Accuracy]:
    from hwcost.measure.store.store import Store

    measurements = Store.open(url).measurements(model.runtime, model.threads, environment=environment)
    if model.measurements is not None:
        known = {n.name for n in model.measurements.networks}
        seen = sum(n.name in known for n in measurements.networks)
        if seen:
            say(f"{seen} of {len(measurements)} networks were in the fit of this model: their figures flatter it")
        _warn_of_differences(model.measurements, measurements)
    return model.lower_measured(measurements), model.evaluate(measurements)


def _of_targets(model: CostModel, targets: list[str], inputs: list[str], kwargs: str) -> tuple[list[Network], Accuracy]:
    """Predicted from the trace alone, before anything runs; then measured, interleaved."""
    from hwcost.cli.targets import build_target, parse_inputs, parse_kwargs, target_item
    from hwcost.model.accuracy import Accuracy, Comparison
    from hwcost.tracing.trace import TraceError

    specs, arguments = parse_inputs(inputs), parse_kwargs(kwargs)
    lowered: dict[str, Network] = {}
    for target in dict.fromkeys(targets):
        try:
            lowered[target] = model.lower(build_target(target, arguments), tuple(s.tensor() for s in specs))
        except TraceError as error:
            if len(targets) == 1:
                raise
            say(f"{target} is left out: {error}")
    items, networks = [target_item(target, inputs, kwargs) for target in lowered], list(lowered.values())
    predicted = model.estimate_many(networks)
    found = _measured_now(model, items)
    if model.measurements is not None:
        _warn_of_differences(model.measurements, found)
    timings = {n.name: n.timing for n in found.networks}
    for item in items:
        if item.name not in timings:
            say(f"{item.family} could not be measured and is left out")
    kept = [i for i, item in enumerate(items) if item.name in timings]
    rows = tuple(Comparison.of(items[i].family, predicted[i], timings[items[i].name], model.quantile) for i in kept)
    return [networks[i] for i in kept], Accuracy(rows)


def _measured_now(model: CostModel, items: list[Item]) -> Measurements:
    """The networks, round by round, into a store that is not kept."""
    from tempfile import TemporaryDirectory

    from hwcost.measure.campaign import measure
    from hwcost.measure.store.store import Store

    with TemporaryDirectory() as folder, progress("measuring") as bar:
        store = Store.open(Path(folder) / "evaluate.db", create=True)
        try:
            return measure(items, runtime=model.runtime, threads=model.threads, store=store, progress=bar)
        finally:
            store.close()


def _beside(model: CostModel, networks: list[Network], accuracy: Accuracy) -> dict[str, Accuracy]:
    """What each baseline says of the same networks; a baseline states no interval."""
    from hwcost.model.accuracy import Accuracy
    from hwcost.model.baselines import fit_baselines

    found = {}
    with progress("fitting the baselines") as bar:
        for baseline in fit_baselines(model):
            times = baseline.predict(networks).tolist()
            pairs = zip(accuracy.networks, times, strict=True)
            found[baseline.name] = Accuracy(tuple(replace(n, predicted=t, low=t, high=t) for n, t in pairs))
        bar(1, 1)
    return found


def _draw(path: Path, model: CostModel, accuracy: Accuracy, others: Mapping[str, Accuracy]) -> None:
    from hwcost.report.html import save_figure
    from hwcost.report.plots import evaluation_figure
    from hwcost.report.text import accuracy_lines

    title = f"Predicted and measured: {model.device.name}, {model.runtime}, {model.threads} thread(s)"
    notes = [accuracy_lines(accuracy, "networks"), f"The model was {model.provenance}."]
    save_figure(evaluation_figure(accuracy, others), path, title, notes)
    say(f"wrote {path}")


def _warn_of_differences(fitted: Measurements, now: Measurements) -> None:
    differences = fitted.environment.differences(now.environment)
    if differences:
        said = "; ".join(f"{key} was {then!r}, is {here!r}" for key, (then, here) in differences.items())
        say(f"the model was measured in another environment: {said}")


def _row(row: Any) -> dict[str, Any]:
    return {
        "target": row.target, "predicted_s": row.predicted, "low_s": row.low, "high_s": row.high,
        "measured_s": row.measured, "spread": row.spread,
    }  # fmt: skip
