"""`hwcost roofline`: the kernels of networks under a device's ceilings, as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.options import (
    DeviceOption,
    DtypeOption,
    InputOption,
    JsonFlag,
    KwargsOption,
    RuntimeOption,
    TargetsArgument,
    ThreadsOption,
    examples,
)
from hwcost.cli.output import console, print_json, writable
from hwcost.cli.targets import module_of

if TYPE_CHECKING:
    from hwcost.device.device import Device
    from hwcost.model.estimate import Estimate


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "hwcost roofline nets.py:small nets.py:large --input 1x3x224x224 --device here.toml -o plot.html",
        )
    )(roofline)


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
    from hwcost.device.device import Device

    writable(output)
    here = Device.load(device)
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
    from hwcost.model.cost_model import CostModel

    model = CostModel.analytic(device, runtime=runtime, threads=threads, dtype=dtype)
    return model.estimate(*module_of(target, inputs, kwargs))


def _notes(estimates: dict[str, Estimate], runtime: str, threads: int) -> list[str]:
    """Sentences below the figure: what its points are, and what is not shown."""
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
