"""Tests of hwcost.report.screen: what others wrote reaches the terminal as text."""

from __future__ import annotations

import io

from rich.table import Table

from hwcost.report.screen import Screen

EVIL = "[red]x[/] \x1b[2J\u202e :smile:"
TEXT = r"[red]x[/] \x1b[2J\u202e :smile:"


def test_names_are_text_in_lines_and_tables() -> None:
    out = io.StringIO()
    screen = Screen(file=out, width=200, force_terminal=True, color_system="truecolor")
    screen.print(EVIL)
    table = Table(EVIL, box=None, header_style="")
    table.add_row(EVIL)
    screen.print(table)
    screen.print("[/unbalanced]", style="dim")
    lines = out.getvalue().splitlines()
    assert [line.strip() for line in lines[:3]] == [TEXT] * 3
    assert "[/unbalanced]" in lines[3]
    assert "\x1b[2J" not in out.getvalue()
