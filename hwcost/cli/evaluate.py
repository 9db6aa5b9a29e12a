"""`hwcost evaluate`: predicted against measured latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.errors import UsageError
from hwcost.cli.models import accuracy_document, errors_document, load_model, warnings_said
from hwcost.cli.options import (
    EnvironmentOption,
    JsonFlag,
    KwargsOption,
    QuantileOption,
    RuntimeOfModelOption,
    ThreadsOfModelOption,
    examples,
)
from hwcost.cli.output import console, print_json, progress, say, writable
from hwcost.cli.targets import module_of, target_item

if TYPE_CHECKING:
    from hwcost.measure.types import Item, Measurements
    from hwcost.model.accuracy import Accuracy, Comparison
    from hwcost.model.cost_model import CostModel
    from hwcost.runtimes.base import Network


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "hwcost evaluate here.hwcost nets.py:small nets.py:large --input 1x3x224x224",
            "hwcost evaluate here.hwcost --store other-networks.db --baselines --plot evaluation.html",
        )
    )(evaluate)


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
        accuracy = _of_table(model, store, environment)
    elif store:
        loaded = load_model(model, runtime=runtime, threads=threads, quantile=quantile)
        networks, accuracy = _of_store(loaded, store, environment)
    else:
        loaded = load_model(model, runtime=runtime, threads=threads, quantile=quantile)
        if baselines and not loaded.is_fitted:  # before anything is measured
            raise UsageError(f"{model} is the roofline alone, and baselines are fitted on a model's measurements")
        networks, accuracy = _of_targets(loaded, targets or [], input or [], kwargs)
    others = _baselines(loaded, networks, accuracy) if baselines else {}
    if plot is not None:
        _draw(plot, loaded, accuracy, others)
    if as_json:
        rows = [{"name": name} | errors_document(other) for name, other in others.items()]
        document = {"networks": [_row(n) for n in accuracy.networks]} | accuracy_document(accuracy)
        return print_json(document | ({"baselines": rows} if baselines else {}))
    _show_evaluation(accuracy, others)


def _of_table(path: str, store: str, environment: str) -> Accuracy:
    """The sums of a latency table against the networks of its space that a store holds."""
    from hwcost.measure.store.store import Store
    from hwcost.table.table import LatencyTable

    table = LatencyTable.load(path)
    return table.evaluate(Store.open(store).measurements(table.runtime, table.threads, environment=environment))


def _show_evaluation(accuracy: Accuracy, others: Mapping[str, Accuracy]) -> None:
    from hwcost.report.text import accuracy_lines, baseline_table, comparison_table

    out = console()
    out.print(comparison_table(accuracy.networks))
    out.print(accuracy_lines(accuracy, "networks" if len(accuracy.networks) > 1 else "network"), soft_wrap=True)
    if others:
        out.print(baseline_table({"this model": accuracy} | dict(others)))


def _of_store(model: CostModel, url: str, environment: str) -> tuple[list[Network], Accuracy]:
    """The networks of a store, lowered, and the model's accuracy on them."""
    from hwcost.measure.store.store import Store
    from hwcost.model.data import UnmeasuredFusedAttention

    measurements = Store.open(url).measurements(model.runtime, model.threads, environment=environment)
    if model.measurements is not None:
        known = {n.name for n in model.measurements.networks}
        seen = sum(n.name in known for n in measurements.networks)
        if seen:
            say(f"{seen} of {len(measurements)} networks were in the fit of this model: their figures flatter it")
        _warn_of_differences(model.measurements, measurements)
    with warnings_said(UnmeasuredFusedAttention):
        return model.lower_measured(measurements), model.evaluate(measurements)


def _of_targets(model: CostModel, targets: list[str], inputs: list[str], kwargs: str) -> tuple[list[Network], Accuracy]:
    """Predict each network from its trace alone, then measure all of them, their rounds interleaved.

    Returns the networks that were measured, lowered, and their accuracy. Those that cannot be traced or measured are
    left out with a message.
    """
    from hwcost.model.accuracy import Accuracy, Comparison
    from hwcost.tracing.trace import TraceError

    lowered: dict[str, Network] = {}
    for target in dict.fromkeys(targets):
        try:
            lowered[target] = model.lower(*module_of(target, inputs, kwargs))
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
    """The networks, measured into a store that is deleted afterwards."""
    from tempfile import TemporaryDirectory

    from hwcost.measure.campaign import measure
    from hwcost.measure.store.store import Store

    with TemporaryDirectory() as folder, progress("measuring") as bar:
        store = Store.open(Path(folder) / "evaluate.db", create=True)
        try:
            return measure(items, runtime=model.runtime, threads=model.threads, store=store, progress=bar)
        finally:
            store.close()


def _baselines(model: CostModel, networks: list[Network], accuracy: Accuracy) -> dict[str, Accuracy]:
    """The accuracy of each baseline on the same networks; a baseline has no interval, so low and high are its time."""
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
    from hwcost.report.accuracy_plots import evaluation_figure
    from hwcost.report.html import save_figure
    from hwcost.report.text import accuracy_lines

    title = f"Predicted and measured: {model.device.name}, {model.runtime}, {model.threads} thread(s)"
    notes = [accuracy_lines(accuracy, "networks"), f"The model was {model.provenance}."]
    save_figure(evaluation_figure(accuracy, others), path, title, notes)
    say(f"wrote {path}")


def _warn_of_differences(fitted: Measurements, now: Measurements) -> None:
    """Say how the environment of the model's measurements differs from that of the others."""
    differences = fitted.environment.differences(now.environment)
    if differences:
        said = "; ".join(f"{key} was {then!r}, is {here!r}" for key, (then, here) in differences.items())
        say(f"the model was measured in another environment: {said}")


def _row(row: Comparison) -> dict[str, Any]:
    """One network as JSON; times in seconds."""
    return {
        "target": row.target,
        "predicted_s": row.predicted,
        "low_s": row.low,
        "high_s": row.high,
        "measured_s": row.measured,
        "spread": row.spread,
    }
