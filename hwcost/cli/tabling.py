"""The verb that makes latency tables: table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hwcost.cli.common import (
    JsonFlag,
    ModelOption,
    RuntimeOfModelOption,
    ThreadsOfModelOption,
    console,
    examples,
    load_model,
    print_json,
    progress,
    writable,
)


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command(epilog=examples("hwcost table --space tiny-cnn --model here.hwcost -o tiny-cnn.parquet"))(table)


def table(
    space: Annotated[str, typer.Option("--space", metavar="NAME", help="A search space.")],
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The Parquet file to write.")],
    runtime: RuntimeOfModelOption = None,
    threads: ThreadsOfModelOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the offline latency table of a search space: every block with its latency and interval."""
    from hwcost.search.spaces import get_space

    chosen = get_space(space)
    writable(output)
    loaded = load_model(model, runtime=runtime, threads=threads)

    from hwcost.table import LatencyTable

    start = time.monotonic()
    with progress(f"pricing the blocks of {space}") as bar:
        made = LatencyTable.build(chosen, loaded, progress=bar)
    made.save(output)
    seconds = time.monotonic() - start
    if as_json:
        return print_json({"rows": len(made), "seconds": seconds, "path": str(output)})
    from hwcost.report.text import describe_path

    console().print(f"{len(made)} blocks of {space} in {seconds:.1f} s: wrote {describe_path(output)}")
