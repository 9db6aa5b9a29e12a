"""Options and arguments that several verbs have, and the examples in their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwcost.cli.output import reserve_output


def examples(*lines: str) -> str:
    """The example lines at the end of a verb's help."""
    title = "Examples" if len(lines) > 1 else "Example"
    return "\n".join([f"[bold]{title}[/bold]", *("[dim]$[/dim] " + line.replace("[", r"\[") for line in lines)])


JsonFlag = Annotated[
    bool, typer.Option("--json", callback=reserve_output, is_eager=True, help="Print one JSON document.")
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", show_default=False, help="package.module:callable or path/file.py:callable.")
]
TargetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="TARGET...", show_default=False, help="package.module:callable or path/file.py:callable."),
]
NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", show_default=False, help="package.module:callable, path/file.py:callable or file.onnx."
    ),
]
NetworkInputOption = Annotated[  # not needed for an ONNX file, which states the shapes of its inputs
    list[str] | None,
    typer.Option("--input", "-i", metavar="SHAPE", help="1x3x224x224, or 1x16:int64; repeat for more inputs."),
]
KwargsOption = Annotated[
    str, typer.Option("--kwargs", metavar="JSON", help="Keyword arguments of the callable, a JSON object.")
]
InputOption = Annotated[
    list[str],
    typer.Option(
        "--input", "-i", metavar="SHAPE", help="1x3x224x224, or 1x16:int64 with a dtype; repeat for more inputs."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", "-d", metavar="NAME", help="A name of the catalogue, or a device file.")
]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="FILE", help="A cost model, or `default` for the shipped one.")
]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", metavar="NAME", help="torch-eager, torch-compile, onnxruntime or openvino.")
]
RuntimeOfModelOption = Annotated[
    str | None, typer.Option("--runtime", metavar="NAME", help="Must be the model's; chooses a shipped one.")
]
ThreadsOfModelOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Must be the model's; chooses a shipped one.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads the network runs on.")]
EnvironmentOption = Annotated[
    str,
    typer.Option("--environment", metavar="DIGITS", help="Which one, where several of the store fit."),
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="Dtype whose compute ceiling counts.")]
QuantileOption = Annotated[
    str,
    typer.Option("--quantile", metavar="NAME", help="Latency meant: low (unloaded), typical (0.5) or tail (0.95)."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw achieved against paper into an HTML file.")
]
StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", help="Where measurements are kept: a file, or a database URL.")
]
