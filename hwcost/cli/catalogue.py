"""Verbs that show what a device can do: devices, roofline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.common import (
    DeviceOption,
    DtypeOption,
    InputOption,
    JsonFlag,
    KwargsOption,
    PlotOption,
    RuntimeOption,
    TargetsArgument,
    ThreadsOption,
    UsageError,
    console,
    examples,
    load_device,
    print_json,
    save_ceilings,
    writable,
)

if TYPE_CHECKING:
    from hwcost.device.device import Device
    from hwcost.model.estimate import Estimate


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command(epilog=examples("hwcost devices", "hwcost devices intel-i9-10980xe --plot ceilings.html"))(devices)
    app.command(
        epilog=examples(
            "hwcost roofline nets.py:small nets.py:large --input 1x3x224x224 --device here.toml -o plot.html",
        )
    )(roofline)


# -- devices ------------------------------------------------------------------------------------


def devices(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A device of the catalogue, or a device file.")] = "",
    plot: PlotOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The catalogue of devices, or one device with every ceiling and its source."""
    from hwcost.device.device import Device

    if plot is not None and not name:
        raise UsageError("a plot needs a device: `hwcost devices NAME --plot FILE`")
    if name:
        device = load_device(name)
        save_ceilings(device, plot)
        return _show_device(device, as_json)
    known = [Device.load(each) for each in Device.names()]
    if as_json:
        return print_json({"devices": [_summary(device) for device in known]})
    from hwcost.report.text import device_table

    console().print(device_table(known))


def _show_device(device: Device, as_json: bool) -> None:
    from hwcost import units
    from hwcost.report.text import ceiling_table

    if as_json:
        return print_json(_summary(device) | _ceilings(device))
    out = console()
    out.print(f"[bold]{device.name}[/bold]  {device.kind}, {device.cores} cores  {device.description}")
    out.print(ceiling_table(device))
    out.print(f"ridge point {units.format(device.ridge(), 'flop/byte')} (float32, DRAM, all threads)")
    for key, value in device.host.items():
        out.print(f"[dim]{key}: {value}[/dim]")


def _summary(device: Device) -> dict[str, Any]:
    return {
        "name": device.name, "kind": device.kind, "description": device.description, "cores": device.cores,
        "peak_flop_per_s": device.peak(), "bandwidth_byte_per_s": device.bandwidth(),
        "ridge_flop_per_byte": device.ridge(),
    }  # fmt: skip


def _ceilings(device: Device) -> dict[str, Any]:
    """Every ceiling, in SI numbers."""
    return {
        "compute": [c.model_dump() for c in device.compute],
        "memory": [m.model_dump() for m in device.memory],
        "kinds": [k.model_dump() for k in device.kinds],
        "host": dict(device.host),
    }


# -- roofline -----------------------------------------------------------------------------------


def roofline(
    targets: TargetsArgument,
    device: DeviceOption,
    input: InputOption,  # noqa: A002 - the option's name
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")],
    kwargs: KwargsOption = "",
    runtime: RuntimeOption = "torch-eager",
    threads: ThreadsOption = 1,
    dtype: DtypeOption = "float32",
    as_json: JsonFlag = False,
) -> None:
    """Draw the kernels of networks under a device's ceilings, in one HTML file that opens offline."""
    writable(output)
    here = load_device(device)
    estimates = {t: _bounded(t, input, kwargs, here, runtime, threads, dtype) for t in targets}

    from hwcost.report.html import save_figure
    from hwcost.report.rooflines import roofline_figure

    figure = roofline_figure(here, estimates, threads=threads, dtype=dtype, runtime=runtime)
    save_figure(figure, output, f"Roofline of {here.name}", _notes(estimates, runtime, threads))
    if as_json:
        return print_json({"path": str(output), "device": here.name, "networks": _placed(estimates)})
    from hwcost.report.text import describe_path

    console().print(f"wrote {describe_path(output)}")


def _bounded(
    target: str, inputs: list[str], kwargs: str, device: Device, runtime: str, threads: int, dtype: str
) -> Estimate:
    """A network's kernels with their roofline times."""
    from hwcost.cli.targets import build_target, parse_inputs, parse_kwargs
    from hwcost.model.cost_model import CostModel

    specs, arguments = parse_inputs(inputs), parse_kwargs(kwargs)
    model = CostModel.analytic(device, runtime=runtime, threads=threads, dtype=dtype)
    return model.estimate(build_target(target, arguments), tuple(spec.tensor() for spec in specs))


def _notes(estimates: dict[str, Estimate], runtime: str, threads: int) -> list[str]:
    """What the reader must know to read the figure."""
    from hwcost.report.columns import percent
    from hwcost.report.rooflines import without_arithmetic

    notes = [
        f"Kernels as {runtime} runs them, on {threads} thread{'s' if threads > 1 else ''}. "
        "Times are the roofline's, a lower bound: every point stands on the ceiling that binds it, "
        "and its area is its share of its network's time."
    ]
    for name, estimate in estimates.items():
        kernels, share = without_arithmetic(estimate)
        if kernels:
            notes.append(f"{name}: {kernels} kernels without arithmetic ({percent(share)} of the time) are not shown.")
    return notes


def _placed(estimates: dict[str, Estimate]) -> list[dict[str, Any]]:
    return [
        {"target": name, "kernels": len(e.kernels), "intensity": e.cost.intensity, "memory_share": e.memory_share}
        for name, e in estimates.items()
    ]
