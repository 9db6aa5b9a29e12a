"""`hwcost devices`: the catalogue of devices, and what is known of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.errors import UsageError
from hwcost.cli.options import JsonFlag, PlotOption, examples
from hwcost.cli.output import console, print_json, say, writable

if TYPE_CHECKING:
    from hwcost.device.device import Device


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=examples("hwcost devices", "hwcost devices intel-i9-10980xe --plot ceilings.html"))(devices)


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
        device = Device.load(name)
        if plot is not None:
            from hwcost.report.ceilings import save_ceilings

            save_ceilings(device, writable(plot))
            say(f"wrote {plot}")
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
        "name": device.name,
        "kind": device.kind,
        "description": device.description,
        "cores": device.cores,
        "peak_flop_per_s": device.peak(),
        "bandwidth_byte_per_s": device.bandwidth(),
        "ridge_flop_per_byte": device.ridge(),
    }


def _ceilings(device: Device) -> dict[str, Any]:
    """Every ceiling as JSON, in SI units."""
    return {
        "compute": [c.model_dump() for c in device.compute],
        "memory": [m.model_dump() for m in device.memory],
        "kinds": [k.model_dump() for k in device.kinds],
        "host": dict(device.host),
    }
