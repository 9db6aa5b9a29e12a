"""Tables and sentences for the terminal. Numbers go in as SI values and are printed with their unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hwcost import units
from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.measure.statistics import DRIFT
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.estimate import Estimate
from hwcost.report.columns import column, percent

if TYPE_CHECKING:
    from hwcost.advise.advise import Advice

_SEVERAL = 10  # networks, at least, for their median error to be taken as an error that all of them share


def device_table(devices: Iterable[Device]) -> Table:
    """One line a device: its ceilings in float32 with all threads, and whether they were measured."""
    table = _table("device<", "kind<", "cores>", "float32>", "DRAM>", "ridge>", "ceilings")
    for device in devices:
        rate = [c for c in device.compute if c.dtype == "float32"]
        measured = any(c.is_measured for c in (*rate, *device.memory))
        table.add_row(
            device.name,
            device.kind,
            str(device.cores),
            units.format(device.peak(), "flop/s"),
            units.format(device.bandwidth(), "byte/s"),
            units.format(device.ridge(), "flop/byte"),
            "measured" if measured else "paper",
        )
    return table


def ceiling_table(device: Device) -> Table:
    """One line a ceiling: its measured value, its data sheet's, their ratio and the source of each."""
    table = _table("ceiling", "threads>", "measured>", "paper>", "ratio>", "source")
    for c in device.compute:
        _add_ceiling(table, f"compute {c.dtype}", c, "flop/s")
    for k in device.kinds:
        _add_ceiling(table, f"{k.kind} in {k.runtime}", k, "flop/s")
    for m in device.memory:
        size = f" ({units.format(m.size, 'byte')})" if m.size else ""
        _add_ceiling(table, f"memory {m.level}{size}", m, "byte/s")
    return table


def _add_ceiling(table: Table, name: str, c: ComputeCeiling | MemoryCeiling, unit: units.Dimension) -> None:
    table.add_row(
        name,
        str(c.threads or "all"),
        "-" if c.measured is None else units.format(c.measured, unit),
        "-" if c.paper is None else units.format(c.paper, unit),
        percent(c.measured / c.paper, 0) if c.measured and c.paper else "-",
        "; ".join(source for source in (c.measured_source, c.paper_source) if source),
    )


def block_table(estimate: Estimate, depth: int = 2) -> Table:
    """One line a block of a network, in the order they run: latency, share, bound, macs, traffic and intensity."""
    blocks = list(estimate.by_depth(depth).values())
    time, times = column("latency", [b.latency for b in blocks], "second")
    macs, counts = column("macs", [b.cost.macs for b in blocks], "mac")
    traffic, amounts = column("traffic", [b.cost.bytes for b in blocks], "byte")
    intensity, ratios = column("intensity", [b.cost.intensity for b in blocks], "flop/byte")
    table = _table("block", f"{time}>", "share>", "bound<", f"{macs}>", f"{traffic}>", f"{intensity}>")
    for b, t, c, a, r in zip(blocks, times, counts, amounts, ratios, strict=True):
        table.add_row(b.name or "(root)", t, percent(b.share), b.bound, c, a, r)
    return table


def comparison_table(rows: Sequence[Comparison]) -> Table:
    """One line a network, predicted beside measured; the error is bold where the interval misses the measured time."""
    times = [t for r in rows for t in (r.predicted, r.low, r.high, r.measured)]
    head, texts = column("predicted", times, "second")
    table = _table("network", f"{head}>", "low>", "high>", "measured>", "error>", "clock>", "inside")
    for i, row in enumerate(rows):
        inside = row.low <= row.measured <= row.high
        error = Text(f"{100 * row.error:+.1f} %", style="" if inside else "bold yellow")
        times_of_row = texts[4 * i : 4 * i + 4]
        table.add_row(row.target, *times_of_row, error, f"±{percent(row.spread)}", "yes" if inside else "no")
    return table


def baseline_table(found: Mapping[str, Accuracy]) -> Table:
    """One line a predictor with its accuracy; all predict the same networks."""
    table = _table("predictor<", "mean error>", "within 5 %>", "within 10 %>", "Spearman>")
    for name, accuracy in found.items():
        spearman = "-" if accuracy.spearman != accuracy.spearman else f"{accuracy.spearman:.3f}"
        shares = (percent(accuracy.within(bound), 0) for bound in (0.05, 0.10))
        table.add_row(name, percent(accuracy.mape), *shares, spearman)
    return table


def accuracy_lines(accuracy: Accuracy, what: str) -> str:
    """The accuracy on some networks in a first line, and in a second how well their measurements repeat.

    A third line warns where measured times differ from the predicted ones by a common factor. `what` names the networks
    in the first line, as in "networks held out of the fit".
    """
    repeats = f"repeats to ±{percent(accuracy.clock)} (median network)"
    clock = repeats if math.isfinite(accuracy.clock) else "does not say how well it repeats"
    spearman = "" if accuracy.spearman != accuracy.spearman else f"Spearman {accuracy.spearman:.3f}, "
    return (
        f"{len(accuracy.networks)} {what}: mean error {percent(accuracy.mape)}, "
        f"within 5 % {percent(accuracy.within(0.05), 0)}, within 10 % {percent(accuracy.within(0.10), 0)}, "
        f"{spearman}inside the interval {percent(accuracy.coverage_of_interval, 0)}.\n"
        f"The clock itself {clock}.{_shifted(accuracy)}"
    )


def _shifted(accuracy: Accuracy) -> str:
    """A warning where the median network took longer or less than predicted by more than campaigns drift, else "".

    An error that all networks share comes from the machine, or from how busy it was, and not from a network.
    """
    if len(accuracy.networks) < _SEVERAL or abs(accuracy.shift) <= DRIFT:
        return ""
    more = accuracy.shift > 0
    why = "others used a shared cache or the machine" if more else "the fit's own hours were busier"
    return (
        f"\nThey took {percent(abs(accuracy.shift))} {'more' if more else 'less'} than predicted (median), "
        f"where campaigns drift by {percent(DRIFT)}: {why}, or it is another machine. "
        "Intervals do not hold that; measure again at another hour."
    )


def advice_table(found: Sequence[Advice]) -> Table:
    """One line a change, in the order given.

    In the column without a title "=" marks a change that leaves what the network computes as it is, and "?" one that
    brings kernels outside the measured range.
    """
    times = [t for a in found for t in (a.after, a.low, a.high)]
    head, texts = column("then", times, "second")
    table = _table("change", "gain>", f"{head}>", "low>", "high>", "macs>", "<", "where")
    for i, a in enumerate(found):
        work = f"{100 * (a.macs_after / a.macs_before - 1):+.0f} %" if a.macs_before else "-"
        mark = "=" * a.same + "?" * (not a.measured)
        more = f" and {len(a.where) - 1} more" if len(a.where) > 1 else ""
        table.add_row(
            a.change, percent(a.gain), *texts[3 * i : 3 * i + 3], work, mark, f"{a.where[0]}{more}" if a.where else ""
        )
    return table


def describe_path(path: Path) -> str:
    """The path of a file with its size."""
    return f"{path} ({units.format(path.stat().st_size, 'byte')})"


def _table(*columns: str) -> Table:
    """A table without lines. A column whose name ends in ">" is aligned right, in "<" left; both never break cells."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        mark = name[-1] if name[-1] in "<>" else ""
        table.add_column(
            name.removesuffix(mark),
            justify="right" if mark == ">" else "left",
            no_wrap=bool(mark),
            overflow="fold",
        )
    return table
