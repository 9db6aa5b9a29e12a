"""Verbs that carry measurements in and out of stores: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwcost.cli.common import (
    EnvironmentOption,
    JsonFlag,
    RuntimeOption,
    StoreOption,
    ThreadsOption,
    console,
    examples,
    print_json,
)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command(epilog=examples("hwcost export --store here.db --runtime onnxruntime -o measured"))(export)
    app.command(
        "import",
        epilog=examples(
            "hwcost import hwcost measured --store here.db",
            "hwcost import neusight train/conv/Tesla_V100-PCIE-32GB.csv.gz --store v100.db",
        ),
    )(import_)


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


def import_(
    format: Annotated[  # noqa: A002 - the argument's name
        str, typer.Argument(metavar="FORMAT", show_default=False, help="hwcost, kernels or neusight.")
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False, help="The file or folder to read.")],
    store: StoreOption = "measurements.db",
    as_json: JsonFlag = False,
) -> None:
    """Read measurements from elsewhere into a store: an export of this program's, or a foreign format.

    hwcost is a folder that `hwcost export` wrote, or a model file: what it was fitted on. kernels is a JSON document
    a line: the environment, then each kernel with its latency_s. neusight is a CSV file of GPU operators, or a folder
    of them.
    """
    from hwcost.importers.registry import read
    from hwcost.measure.store.store import Store

    found = read(format, path)
    opened = Store.open(store, create=True)
    try:
        new = [opened.add_measurements(m, taken=found.taken) for m in found.measurements]
    finally:
        opened.close()
    rows: list[dict[str, Any]] = [
        {
            "cpu": m.environment.cpu, "runtime": m.environment.runtime, "threads": m.environment.threads,
            "read": len(m), "new": added,
        }
        for m, added in zip(found.measurements, new, strict=True)
    ]  # fmt: skip
    if as_json:
        return print_json({"store": store, "environments": rows})
    for row in rows:
        here = f", {row['read'] - row['new']} were there already" if row["new"] < row["read"] else ""
        console().print(
            f"{row['cpu']}, {row['runtime']}, {row['threads']} thread(s): {row['new']} measurements into {store}{here}"
        )
