"""`hwcost export`: a store's measurements as files that can be shared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwcost.cli.options import EnvironmentOption, JsonFlag, RuntimeOption, StoreOption, ThreadsOption, examples
from hwcost.cli.output import console, print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=examples("hwcost export --store here.db --runtime onnxruntime -o measured"))(export)


def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write.")],
    store: StoreOption = "measurements.db",
    runtime: RuntimeOption = "torch-eager",
    threads: ThreadsOption = 1,
    environment: EnvironmentOption = "",
    made_by: Annotated[
        str, typer.Option("--made-by", metavar="COMMAND", help="The command that made them, for the card.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Write a store's measurements of one environment as Parquet files with a card that says what they are."""
    from hwcost.measure.exchange import export as run
    from hwcost.measure.store.store import Store

    opened = Store.open(store)
    try:
        found = opened.measurements(runtime, threads, environment=environment)
        period = opened.period(runtime, threads, environment)
    finally:
        opened.close()
    folder = run(found, output, command=made_by, period=period)
    kernels = sum(len(n.kernels) for n in found.networks)
    size = sum(file.stat().st_size for file in folder.glob("*.parquet"))
    if as_json:
        return print_json({"path": str(folder), "networks": len(found), "kernels": kernels, "bytes": size})
    from hwcost import units

    console().print(f"{len(found)} networks with {kernels} kernels in {folder}, {units.format(size, 'byte')}")
