"""`hwcost estimate`: counts of a network, and its latency by a roofline or a cost model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.errors import UsageError
from hwcost.cli.models import model_or_roofline
from hwcost.cli.options import (
    DtypeOption,
    JsonFlag,
    KwargsOption,
    NetworkArgument,
    NetworkInputOption,
    QuantileOption,
    RuntimeOfModelOption,
    ThreadsOfModelOption,
    examples,
)
from hwcost.cli.output import console, print_json
from hwcost.cli.targets import graph_of

if TYPE_CHECKING:
    from hwcost.graph import Graph
    from hwcost.model.estimate import Estimate


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "hwcost estimate torchvision.models:resnet18 --input 1x3x224x224 --device intel-i9-10980xe",
            "hwcost estimate nets.py:small --input 1x3x32x32 --model default --depth 1 --json",
            "hwcost estimate model.onnx --device here.toml",
        )
    )(estimate)


def estimate(
    target: NetworkArgument,
    input: NetworkInputOption = None,  # noqa: A002 - the option's name
    device: Annotated[
        str, typer.Option("--device", "-d", metavar="NAME", help="Bound by the roofline of this device.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="FILE", help="Predict with this cost model; `default` ships.")
    ] = "",
    kwargs: KwargsOption = "",
    runtime: RuntimeOfModelOption = None,
    threads: ThreadsOfModelOption = None,
    dtype: DtypeOption = "float32",
    depth: Annotated[int, typer.Option("--depth", min=1, help="Parts of the module path that name a block.")] = 2,
    quantile: QuantileOption = "low",
    as_json: JsonFlag = False,
) -> None:
    """Count what a network does, bound its time by a device, or predict it with a model; per block."""
    if bool(device) == bool(model):
        raise UsageError("an estimate needs either --device NAME or --model FILE")
    graph = graph_of(target, input or [], kwargs)
    cost_model = model_or_roofline(device, model, runtime, threads, dtype, quantile)
    found = cost_model.estimate(graph)
    if as_json:
        place = {"device": cost_model.device.name, "runtime": cost_model.runtime, "threads": cost_model.threads}
        return print_json({"target": target, "input": input or [], **place, **as_document(graph, found, depth)})
    return _print(graph, found, depth)


def as_document(graph: Graph, found: Estimate, depth: int) -> dict[str, Any]:
    """What `--json` prints of a network: counts of its ops and latency of its kernels, in SI units."""
    cost = graph.cost
    names = ("macs", "flops", "other_flops", "bytes", "bytes_read", "bytes_written")
    blocks = found.by_depth(depth).values()
    return {
        **{name: getattr(cost, name) for name in names},
        "params": graph.params,
        "peak_memory": graph.peak_memory,
        "intensity": cost.intensity,
        "status": graph.status,
        "uncounted": [{"op": op, "calls": calls, "module": module} for op, calls, module in graph.uncounted],
        "notes": list(graph.notes),
        "latency_s": found.latency,
        "low_s": found.low,
        "high_s": found.high,
        "confidence": found.confidence,
        "bound": found.bound,
        "support": found.support,
        "kernels": len(found.kernels),
        "blocks": [
            {
                "name": b.name,
                "latency_s": b.latency,
                "macs": b.cost.macs,
                "bytes": b.cost.bytes,
                "intensity": b.cost.intensity,
                "bound": b.bound,
                "share": b.share,
            }
            for b in blocks
        ],
    }


def _print(graph: Graph, found: Estimate, depth: int) -> None:
    """Print a table of blocks, then the counts and the latency of the whole network."""
    from hwcost import units
    from hwcost.report.text import block_table

    screen, cost = console(), graph.cost
    screen.print(block_table(found, depth))
    screen.print(
        f"{units.format(cost.macs, 'mac')}, {units.format(cost.flops, 'flop')}, {units.format(cost.bytes, 'byte')} "
        f"({units.format(cost.intensity, 'flop/byte')}), {graph.params:,} parameters, "
        f"peak memory {units.format(graph.peak_memory, 'byte')}"
    )
    screen.print(_verdict(found))
    for op, calls, module in graph.uncounted:
        screen.print(f"not counted: {op}, {calls} calls, first in {module or 'the root module'}; its bytes are")
    for note in (*graph.notes, *found.notes):
        screen.print(f"note: {note}")


def _verdict(found: Estimate) -> str:
    """The latency and what bounds it, in one line; without an interval it is a lower bound."""
    from hwcost import units

    latency = units.format(found.latency, "second")
    if not found.confidence:
        return f"at least {latency}, {found.bound}-bound"
    span = f"{units.format(found.low, 'second')} to {units.format(found.high, 'second')}"
    measured = f"{found.support:.0%} of it from kernels inside the measured range"
    return f"{latency} ({span} at {found.confidence:.0%}), {found.bound}-bound, {measured}"
