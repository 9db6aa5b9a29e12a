"""Tables for the terminal (rich). SI numbers in, printed with their unit; nothing is computed here but shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from hwcost import units
from hwcost.accuracy import Accuracy, Comparison
from hwcost.device import ComputeCeiling, Device, MemoryCeiling
from hwcost.estimate import Estimate
from hwcost.units import Dimension

_NONE = "-"


def device_table(devices: Iterable[Device]) -> Table:
    """One line a device, whole device, float32: what it can do at best."""
    table = _table("device", "kind", "cores>", "float32>", "DRAM>", "ridge>", "source", "description")
    for device in devices:
        rate = [c for c in device.compute if c.dtype == "float32"]
        measured = any(c.is_measured for c in (*rate, *device.memory))
        table.add_row(
            device.name, device.kind, str(device.cores), units.format(device.peak(), "flop/s"),
            units.format(device.bandwidth(), "byte/s"), units.format(device.ridge(), "flop/byte"),
            "measured" if measured else "data sheet", device.description,
        )  # fmt: skip
    return table


def ceiling_table(device: Device) -> Table:
    """Every ceiling of a device with both of its values and where they come from."""
    table = _table("ceiling", "threads>", "measured>", "paper>", "measured/paper>", "source")
    for c in device.compute:
        _add_ceiling(table, f"compute {c.dtype}", c, "flop/s")
    for m in device.memory:
        size = f" ({units.format(m.size, 'byte')})" if m.size else ""
        _add_ceiling(table, f"memory {m.level}{size}", m, "byte/s")
    return table


def _add_ceiling(table: Table, name: str, c: ComputeCeiling | MemoryCeiling, unit: Dimension) -> None:
    both = c.measured is not None and c.paper is not None
    table.add_row(
        name,
        str(c.threads or "all"),
        _value(c.measured, unit),
        _value(c.paper, unit),
        percent(c.measured / c.paper, 0) if both and c.measured and c.paper else _NONE,
        "; ".join(source for source in (c.measured_source, c.paper_source) if source),
    )


def block_table(estimate: Estimate, depth: int = 2) -> Table:
    """The blocks of a network in the order they run: time, what binds it, and what it costs."""
    table = _table("block", "latency>", "share>", "bound", "macs>", "traffic>", "intensity>")
    for block in estimate.by_depth(depth).values():
        table.add_row(
            block.name or "(root)", units.format(block.latency, "second"), percent(block.share), block.bound,
            units.format(block.cost.macs, "mac"), units.format(block.cost.bytes, "byte"),
            units.format(block.cost.intensity, "flop/byte"),
        )  # fmt: skip
    return table


def interval(value: float, low: float, high: float) -> str:
    """ "5.1 ms (4.6 ms to 5.7 ms)", from seconds."""
    return f"{units.format(value, 'second')} ({units.format(low, 'second')} to {units.format(high, 'second')})"


def comparison_table(rows: Sequence[Comparison]) -> Table:
    """Predicted against measured, one line a network; errors beyond the interval stand out."""
    table = _table("network", "predicted>", "interval>", "measured>", "error>", "clock>", "inside")
    for row in rows:
        inside = row.low <= row.measured <= row.high
        table.add_row(
            row.target,
            units.format(row.predicted, "second"),
            f"{units.format(row.low, 'second')} to {units.format(row.high, 'second')}",
            units.format(row.measured, "second"),
            Text(f"{100 * row.error:+.1f} %", style="" if inside else "bold yellow"),
            f"±{percent(row.spread)}",
            "yes" if inside else "no",
        )
    return table


def accuracy_lines(accuracy: Accuracy, what: str) -> str:
    """The figures of a comparison in two sentences."""
    return (
        f"{len(accuracy.networks)} {what}: mean error {percent(accuracy.mape)}, "
        f"within 5 % {percent(accuracy.within(0.05), 0)}, within 10 % {percent(accuracy.within(0.10), 0)}, Spearman {accuracy.spearman:.3f}, "
        f"inside the interval {percent(accuracy.coverage_of_interval, 0)}.\n"
        f"The clock itself repeats to ±{percent(accuracy.clock)} (median network)."
    )


def percent(fraction: float, digits: int = 1) -> str:
    """ "4.9 %", from 0.049; "-" for what is not known."""
    return _NONE if fraction != fraction else f"{100 * fraction:.{digits}f} %"


def describe_path(path: Path) -> str:
    """A file that was written, with its size."""
    return f"{path} ({units.format(path.stat().st_size, 'byte')})"


def _value(value: float | None, unit: Dimension) -> str:
    return _NONE if value is None else units.format(value, unit)


def _table(*columns: str) -> Table:
    """A plain table; a column that ends in ">" is aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.rstrip(">"), justify="right" if right else "left", no_wrap=right)
    return table
