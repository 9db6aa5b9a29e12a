"""Tests of hwcost.cli.options."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from hwcost.cli.options import examples


def test_examples_are_printed_as_they_are_written():
    app = typer.Typer()
    app.command(epilog=examples("hwcost x [0:1]", "hwcost y"))(lambda: None)
    assert "$ hwcost x [0:1]" in CliRunner().invoke(app, ["--help"]).output
