"""`hwcost fit`: a cost model from measurements, with its accuracy on networks held out of the fit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.models import accuracy_document, load_model
from hwcost.cli.options import DeviceOption, EnvironmentOption, JsonFlag, StoreOption, examples
from hwcost.cli.output import console, print_json, progress, say, writable

if TYPE_CHECKING:
    from hwcost.device.device import Device
    from hwcost.measure.types import Measurements
    from hwcost.model.cost_model import CostModel

_WIDEST = 0.25  # spread of a measurement above which it says more of the machine's other load than of the network
_ENOUGH = 100  # networks that must remain for others to be left out


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "hwcost fit --store here.db --device here.toml -o here.hwcost",
            "hwcost fit --store more.db --device here.toml --prior here.hwcost -o better.hwcost",
        )
    )(fit)


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

    Networks whose measured time has a spread above 25 % are left out where at least a hundred others remain.
    """
    from hwcost.device.device import Device
    from hwcost.measure.store.store import Store
    from hwcost.model.cost_model import CostModel

    here = Device.load(device)
    writable(output)
    stored = Store.open(store).measurements(runtime, threads, environment=environment)
    _check_cpu(here, stored)
    measurements = _without_the_unsure(stored)
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
    """Say where the ceilings are those of another CPU: they still normalise kernels, but may be given by mistake."""
    stated, measured = device.host.get("cpu", ""), measurements.environment.cpu
    if stated and stated != measured:
        say(f"the measurements were taken on {measured}, but the ceilings are those of {stated}")


def _without_the_unsure(measurements: Measurements) -> Measurements:
    """The measurements whose spread is small enough, where enough of them remain; else all of them.

    A network that was slowed throughout its measurement would teach the trees that it is slow.
    """
    kept = measurements.within_spread(_WIDEST)
    left_out = len(measurements) - len(kept)
    if not left_out or len(kept) < _ENOUGH:
        return measurements
    say(f"left out {left_out} of {len(measurements)} networks, which the clock knows to worse than {_WIDEST:.0%}")
    return kept


def _prior(name: str, measurements: Measurements) -> CostModel:
    """The model that --prior names; `default` is the shipped one of the measurements' runtime and thread count."""
    if name != "default":
        return load_model(name)
    return load_model(name, runtime=measurements.environment.runtime, threads=measurements.environment.threads)


def _fitted(model: CostModel, measurements: Measurements, path: Path, seconds: float) -> dict[str, Any]:
    held_out = model.held_out
    return {
        "path": str(path),
        "device": model.device.name,
        "runtime": model.runtime,
        "threads": model.threads,
        "networks": len(measurements),
        "kernels": sum(len(n.kernels) for n in measurements.networks),
        "seconds": seconds,
        "held_out": accuracy_document(held_out) if held_out is not None else None,
    }


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
