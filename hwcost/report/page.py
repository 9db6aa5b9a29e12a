"""The page of a quickstart: one HTML file that opens offline. Each section is a function from the result to HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwcost import units
from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.model.accuracy import Accuracy
from hwcost.model.estimate import BlockEstimate
from hwcost.report.accuracy_plots import error_figure, predicted_figure
from hwcost.report.columns import column, percent
from hwcost.report.findings import findings
from hwcost.report.html import Column, definitions_html, document, escape, figure_html, table_html
from hwcost.report.result import QuickstartResult, Winner
from hwcost.report.rooflines import roofline_figure, without_arithmetic
from hwcost.report.search_plots import front_figure, kinds_figure
from hwcost.units import format as quantity

_BLOCKS = 30  # rows of the table of blocks; the smaller blocks are summed up below it
_DEPTH = 3  # parts of a module path that name a block


def save_page(result: QuickstartResult, path: Path) -> None:
    """Write the page of a result to `path`."""
    path.write_text(document(f"hwcost: {result.space} on {result.device.name}", body(result)), encoding="utf-8")


def body(result: QuickstartResult) -> str:
    """Everything between <main> and </main>."""
    sections = (_header, _tiles, _findings, _front, _verified, _accuracy, _roofline, _blocks, _how)
    return "\n".join(section(result) for section in sections)


def _header(r: QuickstartResult) -> str:
    threads = f"{r.threads} thread{'s' if r.threads > 1 else ''}"
    return (
        "<header><h1>Accurate and fast on this machine</h1>"
        f"<p>Search space {escape(r.space)}, trained on {escape(r.task)}.</p>"
        f"<p>Target: {escape(r.device.name)}, {escape(r.runtime)}, {threads}, {escape(r.dtype)}.</p></header>"
    )


def _tiles(r: QuickstartResult) -> str:
    best, row = r.best, r.best.comparison
    inside = "inside" if row.low <= row.measured <= row.high else "outside"
    tiles = (
        ("Best accuracy found", percent(best.accuracy), f"{best.name}, budget {quantity(r.budget, 'second')}"),
        (
            "Its latency, measured",
            quantity(best.measured, "second"),
            f"{quantity(row.predicted, 'second')} predicted, {inside} its interval",
        ),
        (
            "Mean prediction error",
            percent(r.held_out.mape),
            f"{len(r.held_out.networks)} unseen networks, clock ±{percent(r.held_out.clock)}",
        ),
        (
            "Rejected before training",
            f"{r.count('rejected')} of {len(r.candidates)}",
            f"{r.count('trained')} trained, {r.count('duplicate')} repeats",
        ),
    )
    cells = (f"<span>{escape(a)}</span><b>{escape(b)}</b><span>{escape(c)}</span>" for a, b, c in tiles)
    return f'<div class="tiles">{"".join(f"<div class=tile>{cell}</div>" for cell in cells)}</div>'


def _findings(r: QuickstartResult) -> str:
    items = "".join(f"<li><b>{escape(f.claim)}</b><span>{escape(f.support)}</span></li>" for f in findings(r))
    return f'<h2>What this means</h2><ul class="findings">{items}</ul>'


def _front(r: QuickstartResult) -> str:
    return (
        "<h2>Accuracy against latency</h2><p>Every point is an architecture; its bar is the interval of its predicted "
        "latency. The strip below holds the proposals that were over the budget by prediction, and so cost no "
        f"training.</p>{figure_html(front_figure(r))}"
    )


# -- predicted against measured -------------------------------------------------------------------------


def _verified(r: QuickstartResult) -> str:
    ordered = sorted(r.winners, key=lambda w: w.estimate.latency)
    confidence = percent(r.best.estimate.confidence, 0)
    return (
        "<h2>Checked on the machine</h2><p>The front, measured after the search. The interval is stated to hold "
        f"{confidence} of the time; the clock's figure is how well the measurement repeats itself.</p>"
        f"{_verification(ordered, ordered.index(r.best))}"
        f'<p class="note">{escape(_choices(r.best))}</p>'
        f"<p>Where their time goes, by kind of kernel:</p>{figure_html(kinds_figure(ordered))}"
    )


def _verification(winners: Sequence[Winner], best: int) -> str:
    rows = [w.comparison for w in winners]
    predicted = [r.predicted for r in rows]
    columns: list[Column] = [
        ("architecture", [escape(w.name) for w in winners]),
        ("accuracy>", [percent(w.accuracy) for w in winners]),
        _column("predicted", predicted, "second"),
        _column("low", [r.low for r in rows], "second", predicted),
        _column("high", [r.high for r in rows], "second", predicted),
        _column("measured", [r.measured for r in rows], "second", predicted),
        ("clock>", [f"±{percent(r.spread)}" for r in rows]),
        ("error>", [f"{100 * r.error:+.1f} %" for r in rows]),
        ("inside", [_verdict(r.low <= r.measured <= r.high) for r in rows]),
        _column("macs", [w.estimate.cost.macs for w in winners], "mac"),
        _column("traffic", [w.estimate.cost.bytes for w in winners], "byte"),
    ]
    return table_html(columns, best=best)


def _column(
    title: str, values: Sequence[float | None], dimension: units.Dimension, like: Sequence[float | None] = ()
) -> Column:
    head, cells = column(title, values, dimension, like)
    return f"{head}>", [escape(cell) for cell in cells]


def _verdict(inside: bool) -> str:
    return '<span class="good">yes</span>' if inside else '<span class="bad">no</span>'


def _choices(w: Winner) -> str:
    return f"{w.name}: " + ", ".join(f"{name} = {value}" for name, value in w.params.items()) + "."


def _accuracy(r: QuickstartResult) -> str:
    held_out, found = r.held_out.networks, r.verification.networks
    pair = figure_html(predicted_figure(held_out, found)) + figure_html(error_figure(held_out, found))
    rows = (r.held_out, r.verification)
    columns: list[Column] = [
        ("networks", ["held out of the fit", "found by the search"]),
        ("number>", [str(len(a.networks)) for a in rows]),
        ("mean error>", [percent(a.mape) for a in rows]),
        ("within 5 %>", [percent(a.within(0.05), 0) for a in rows]),
        ("within 10 %>", [percent(a.within(0.10), 0) for a in rows]),
        ("Spearman>", [_correlation(a) for a in rows]),
        ("interval>", [f"±{percent(a.width, 0)}" for a in rows]),
        ("inside it>", [percent(a.coverage_of_interval, 0) for a in rows]),
        ("clock>", [f"±{percent(a.clock)}" for a in rows]),
    ]
    return (
        "<h2>Can the prediction be trusted?</h2><p>Bands mark 5 and 10 %. The last column is the clock's own "
        "repeatability: a prediction cannot be shown to be better than the clock that checks it.</p>"
        f'<div class="pair">{pair}</div>{table_html(columns)}'
    )


def _correlation(a: Accuracy) -> str:
    return "-" if a.spearman != a.spearman else f"{a.spearman:.3f}"


# -- the machine ----------------------------------------------------------------------------------------


def _roofline(r: QuickstartResult) -> str:
    ridge = quantity(r.device.ridge(r.dtype, r.threads), "flop/byte")
    figure = roofline_figure(
        r.device, {r.best.name: r.best.estimate}, threads=r.threads, dtype=r.dtype, runtime=r.runtime
    )
    return (
        f"<h2>The roofline of this machine</h2><p>Left of the ridge point ({escape(ridge)}) a kernel waits for "
        f"memory, right of it for arithmetic. Points are the kernels of {escape(r.best.name)}, their area is their "
        "share of its time. How far a point lies under the line is time lost against that ceiling; a kernel whose data "
        f"is still in a cache may stand above the DRAM line.{_left_out(r.best)}</p>{figure_html(figure)}{_ceilings(r)}"
    )


def _left_out(w: Winner) -> str:
    """A sentence on the kernels that the roofline figure cannot show; "" where there are none."""
    bare, share = without_arithmetic(w.estimate)
    if not bare:
        return ""
    kernels, have = ("kernels", "have") if bare > 1 else ("kernel", "has")
    return escape(f" {bare} {kernels} without arithmetic ({percent(share)} of the time) {have} no place on it.")


def _ceilings(r: QuickstartResult) -> str:
    compute, memory = r.device.compute, r.device.memory
    both: list[ComputeCeiling | MemoryCeiling] = [*compute, *memory]
    columns: list[Column] = [
        ("ceiling", [f"compute, {c.dtype}" for c in compute] + [f"memory, {m.level}" for m in memory]),
        ("threads>", [str(c.threads or "all") for c in both]),
        ("measured>", [escape(_rate(c.measured, c)) for c in both]),
        ("paper>", [escape(_rate(c.paper, c)) for c in both]),
        ("clock>", ["-" if c.spread is None else f"±{percent(c.spread)}" for c in both]),
        ("source", [escape("; ".join(s for s in (c.measured_source, c.paper_source) if s)) for c in both]),
    ]
    return table_html(columns)


def _rate(value: float | None, of: ComputeCeiling | MemoryCeiling) -> str:
    dimension: units.Dimension = "flop/s" if isinstance(of, ComputeCeiling) else "byte/s"
    return "-" if value is None else quantity(value, dimension)


# -- the best architecture ------------------------------------------------------------------------------


def _blocks(r: QuickstartResult) -> str:
    every = list(r.best.estimate.by_depth(_DEPTH).values())
    blocks = _largest(every)
    columns: list[Column] = [
        ("block", [escape(b.name or "(root)") for b in blocks]),
        _column("time", [b.latency for b in blocks], "second"),
        ("share>", [percent(b.share) for b in blocks]),
        ("", _bars(blocks)),
        ("bound", [b.bound for b in blocks]),
        _column("macs", [b.cost.macs for b in blocks], "mac"),
        _column("traffic", [b.cost.bytes for b in blocks], "byte"),
        _column("intensity", [b.cost.intensity for b in blocks], "flop/byte"),
        _column("attained", [b.cost.flops / b.latency if b.latency else 0.0 for b in blocks], "flop/s"),
    ]
    return (
        f"<h2>Where the time of {escape(r.best.name)} goes</h2>"
        '<p><i class="key"></i>compute-bound<i class="key memory"></i>memory-bound. Blocks stand in the order they '
        f"run, each with its part of the runtime's overhead.</p>{table_html(columns)}{_rest(every, blocks)}"
    )


def _largest(blocks: Sequence[BlockEstimate]) -> list[BlockEstimate]:
    """The `_BLOCKS` blocks that take most time, in the order they run."""
    shares = sorted((b.share for b in blocks), reverse=True)[:_BLOCKS]
    return [b for b in blocks if b.share >= shares[-1]]


def _rest(every: Sequence[BlockEstimate], shown: Sequence[BlockEstimate]) -> str:
    """A note with the share of the blocks that are not shown; "" where all are."""
    if len(shown) == len(every):
        return ""
    share = percent(sum(b.share for b in every) - sum(b.share for b in shown))
    return f'<p class="note">{escape(f"{len(every) - len(shown)} smaller blocks take {share} together.")}</p>'


def _bars(blocks: Sequence[BlockEstimate]) -> list[str]:
    """A bar for the share of each block, as long as its cell for the largest."""
    longest = max((b.share for b in blocks), default=1.0) or 1.0
    widths = [100 * b.share / longest for b in blocks]
    return [
        f'<div class="share"><i class="{b.bound}" style="width:{w:.1f}%"></i></div>'
        for b, w in zip(blocks, widths, strict=True)
    ]


def _how(r: QuickstartResult) -> str:
    steps = [(name, quantity(seconds, "second")) for name, seconds in r.stages.items()]
    timing = f"<h3>Time of each step</h3>{definitions_html(steps)}" if steps else ""
    commands = f"<h3>Commands</h3><pre>{escape(chr(10).join(r.commands))}</pre>" if r.commands else ""
    confidence = percent(r.best.estimate.confidence, 0)
    return (
        f"<h2>How this was made</h2>{definitions_html(r.environment.items())}{commands}{timing}"
        "<footer>Made by hwcost. A multiply-add is one mac and two flop; traffic is compulsory traffic, every tensor "
        f"once; the interval of a prediction is stated for {escape(confidence)}, the clock's ± for 90&nbsp;%.</footer>"
    )
