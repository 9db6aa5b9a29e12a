"""`hwcost table`: the offline latency table of a search space."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.errors import UsageError
from hwcost.cli.models import load_model
from hwcost.cli.options import (
    EnvironmentOption,
    JsonFlag,
    QuantileOption,
    RuntimeOfModelOption,
    ThreadsOfModelOption,
    examples,
)
from hwcost.cli.output import console, print_json, progress, writable

if TYPE_CHECKING:
    from hwcost.model.cost_model import CostModel
    from hwcost.spaces.base import Space

_WORTH_PROCESSES = 20_000  # combinations of choices; for fewer, starting processes takes longer than the work


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "hwcost table --space tiny-cnn --model here.hwcost -o tiny-cnn.parquet",
            "hwcost table --space mbconv --widths 0.5:1.5:0.05 --resolutions 128,160,192,224 -m default -o t.parquet",
            "hwcost table --space tiny-cnn --store here.db -o measured.parquet",
        )
    )(table)


def table(
    space: Annotated[
        str, typer.Option("--space", metavar="NAME", help="A search space, or path/file.py:name of one or of blocks.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Ends in .parquet; or .csv, .yaml for others.")
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="FILE", help="A cost model, or `default` for the shipped one.")
    ] = "",
    store: Annotated[
        str, typer.Option(metavar="URL", help="Without a model: the blocks that were measured, as measured.")
    ] = "",
    environment: EnvironmentOption = "",
    widths: Annotated[
        str, typer.Option(metavar="LIST", help="Width multipliers, 0.5,1 or start:stop:step; mbconv only.")
    ] = "",
    resolutions: Annotated[str, typer.Option(metavar="LIST", help="128,160 or start:stop:step; mbconv only.")] = "",
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: the cores, for large spaces.")] = None,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="Price on a Dask cluster, tcp://host:8786.")] = "",
    quantile: QuantileOption = "low",
    runtime: RuntimeOfModelOption = None,
    threads: ThreadsOfModelOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the offline latency table of a search space: every block with its latency and interval.

    A run that ended early goes on where it stopped when the same command is given again.
    """
    from hwcost.spaces.registry import get_space
    from hwcost.table.file import checked

    settings = {"widths": widths, "resolutions": resolutions}
    query = "&".join(f"{name}={value}" for name, value in settings.items() if value)
    chosen = get_space(f"{space}?{query}" if query else space)
    checked(writable(output))
    if bool(model) == bool(store):
        raise UsageError("table takes either --model or, for a table of what was measured, --store")
    if store and quantile != "low":
        raise UsageError("a table of what was measured holds the unloaded latency; give --quantile with --model")
    start = time.monotonic()
    if store:
        rows = _measured(chosen, store, output, runtime, threads, environment)
    else:
        loaded = load_model(model, runtime=runtime, threads=threads, quantile=quantile)
        with _workers(dask):
            rows = _priced(chosen, loaded, output, None if dask else jobs or _jobs(chosen))
    seconds = time.monotonic() - start
    if as_json:
        return print_json({"rows": rows, "seconds": seconds, "path": str(output)})
    from hwcost.report.text import describe_path

    console().print(f"{rows} blocks of {chosen.name} in {seconds:.1f} s: wrote {describe_path(output)}")


def _priced(space: Space, model: CostModel, output: Path, jobs: int | None) -> int:
    """Write the table of what a model predicts; returns its number of rows."""
    from hwcost.table.table import LatencyTable

    with progress(f"pricing the blocks of {space.name}") as bar:
        return LatencyTable.write(space, model, output, jobs=jobs, progress=bar)


def _measured(
    space: Space, store: str, output: Path, runtime: str | None, threads: int | None, environment: str
) -> int:
    """Write the table of what a store holds; returns its number of rows."""
    from hwcost.measure.store.store import Store
    from hwcost.table.table import LatencyTable

    made = LatencyTable.measured(space, Store.open(store).measurements(runtime, threads, environment=environment))
    made.save(output)
    return len(made)


def _jobs(space: Space) -> int:
    """Processes to use: as many as this process has cores for a large space, else one."""
    from hwcost.table.build import Walk

    return len(os.sched_getaffinity(0)) if Walk(space).total >= _WORTH_PROCESSES else 1


@contextmanager
def _workers(dask: str) -> Iterator[Any]:
    """Have joblib run on a Dask cluster, where an address is given."""
    if not dask:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--dask needs the extra `dask`: pip install 'hwcost[dask]'") from error
    import joblib

    try:
        client: Any = Client(dask, timeout="10s")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler at {dask} ({type(error).__name__}); start one with `dask scheduler`"
        ) from error
    with client, joblib.parallel_config("dask"):
        yield client
