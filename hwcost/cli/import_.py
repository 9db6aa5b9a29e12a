"""`hwcost import`: measurements made elsewhere, into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from hwcost.cli.options import JsonFlag, StoreOption, examples
from hwcost.cli.output import console, print_json


class _ListingFormats(TyperCommand):
    """The verb, whose help describes every format. They are looked up when that help is asked for, and not before."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        from hwcost.importers.registry import formats

        known = formats()
        names = [form.name for form in known]
        described = " ".join(f"{form.name} is {form.description}." for form in known)
        self.help = f"{self.help}\n\n{described}"
        self.params[0].help = f"{', '.join(names[:-1])} or {names[-1]}; or path/file.py."  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        "import",
        cls=_ListingFormats,
        epilog=examples(
            "hwcost import hwcost measured --store here.db",
            "hwcost import neusight train/conv/Tesla_V100-PCIE-32GB.csv.gz --store v100.db",
        ),
    )(import_)


def import_(
    format: Annotated[  # noqa: A002 - the argument's name
        str, typer.Argument(metavar="FORMAT", show_default=False, help="Name of a format, or path/file.py.")
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False, help="The file or folder to read.")],
    store: StoreOption = "measurements.db",
    as_json: JsonFlag = False,
) -> None:
    """Read measurements from elsewhere into a store: an export of this program's, or a foreign format."""
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
            "cpu": m.environment.cpu,
            "runtime": m.environment.runtime,
            "threads": m.environment.threads,
            "read": len(m),
            "new": added,
        }
        for m, added in zip(found.measurements, new, strict=True)
    ]
    if as_json:
        return print_json({"store": store, "environments": rows})
    for row in rows:
        here = f", {row['read'] - row['new']} were there already" if row["new"] < row["read"] else ""
        console().print(
            f"{row['cpu']}, {row['runtime']}, {row['threads']} thread(s): {row['new']} measurements into {store}{here}"
        )
