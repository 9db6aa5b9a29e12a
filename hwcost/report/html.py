"""HTML files that open offline: style, data and plotly.js are inside, and a Content-Security-Policy forbids requests.

Each figure is written as JSON and drawn by plotly.js, which stands in the file once. Colours of text and grid follow
the reader's light or dark colour scheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape as escape_html
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs


def save_figure(figure: go.Figure, path: Path, title: str, notes: Sequence[str] = ()) -> None:
    """Write one figure with a title and notes as one HTML file."""
    lines = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    body = f"<header><h1>{escape(title)}</h1></header>{figure_html(figure)}{lines}"
    path.write_text(document(title, body), encoding="utf-8")


Column = tuple[str, Sequence[str]]  # head and cells

# The space between a number and its unit.
_UNIT = re.compile(r"(?<=\d) (?=(?:%|min|[nµm]?s|[kMGTPE]?(?:B|FLOP|MAC)(?:/[sB])?)(?![\w/]))")


def escape(text: str) -> str:
    """Text as HTML; a number and its unit stay on one line."""
    return _UNIT.sub("&nbsp;", escape_html(text))


def document(title: str, body: str) -> str:
    """The whole HTML file: the head, the given body and plotly.js."""
    shell = (files("hwcost") / "report" / "page.html").read_text(encoding="utf-8")
    slots = {"title": escape(title), "body": body, "plotly": get_plotlyjs()}
    return re.sub(r"\{\{(title|body|plotly)\}\}", lambda slot: slots[slot[1]], shell)


def figure_html(figure: go.Figure) -> str:
    """The element in which a figure is drawn, with the figure's data; it has the figure's height before it is drawn."""
    data = figure.to_json().replace("</", "<\\/")
    height = figure.layout.height
    return (
        f'<div class="figure"><div style="min-height:{height}px"></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def table_html(columns: Sequence[Column], *, best: int | None = None) -> str:
    """A table of columns, each its head and its cells, which are HTML; a head that ends in ">" aligns them right.

    `best` is the index, from 0, of the row that is highlighted.
    """
    classes = ["n" if head.endswith(">") else "name" if i == 0 else "" for i, (head, _) in enumerate(columns)]
    heads = "".join(
        f'<th class="{c}">{escape(head.removesuffix(">"))}</th>' for (head, _), c in zip(columns, classes, strict=True)
    )
    lines = []
    for i, row in enumerate(zip(*(cells for _, cells in columns), strict=True)):
        cells = "".join(f'<td class="{c}">{cell}</td>' for cell, c in zip(row, classes, strict=True))
        lines.append(f"<tr{' class=best' if i == best else ''}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def definitions_html(items: Iterable[tuple[str, str]]) -> str:
    """A list of names with their values."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in items)}</dl>"
