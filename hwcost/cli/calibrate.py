"""`hwcost calibrate`: this machine's ceilings, measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwcost.cli.options import JsonFlag, PlotOption, RuntimeOption, ThreadsOption, examples
from hwcost.cli.output import console, print_json, progress, say, writable

if TYPE_CHECKING:
    from hwcost.device.device import Device


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=examples("hwcost calibrate", "hwcost calibrate --runtime onnxruntime -o here.toml"))(calibrate)


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
    if plot is not None:
        from hwcost.report.ceilings import save_ceilings

        save_ceilings(device, plot)
        say(f"wrote {plot}")
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
    for c in device.compute:
        if c.threads == threads:
            out.print(f"  {c.dtype:10} {reached(c)}  ± {c.spread or 0.0:.1%}")
    for m in device.memory:
        if m.threads != threads:
            continue
        out.print(f"  {m.level:10} {reached(m)}  ± {m.spread or 0.0:.1%}")
        out.print(f"  [dim]{m.level}: {m.measured_source}[/dim]")
    _show_kinds(device, runtime, threads)
    dispatch = units.format(device.dispatch, "second") if device.dispatch else "unknown"
    joined = f", fork-join {device.host['fork_join']}" if "fork_join" in device.host else ""
    out.print(f"  ridge point {units.format(device.ridge(threads=threads), 'flop/byte')}, dispatch {dispatch}{joined}")


def _show_kinds(device: Device, runtime: str, threads: int) -> None:
    """Print the share of the peak that each kind of kernel reaches, the least first."""
    from hwcost.report.columns import percent

    kinds = sorted((k for k in device.kinds if (k.runtime, k.threads) == (runtime, threads)), key=lambda k: k.value)
    shares = [f"{k.kind} {percent(k.value / device.peak(k.dtype, threads))}" for k in kinds]
    if shares:
        console().print(f"  {runtime} computes at best, of that: {', '.join(shares)}")
