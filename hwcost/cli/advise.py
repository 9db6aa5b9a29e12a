"""`hwcost advise`: what to change in a network, with the predicted gain of each change."""

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
    RuntimeOfModelOption,
    ThreadsOfModelOption,
    examples,
)
from hwcost.cli.output import console, print_json
from hwcost.cli.targets import graph_of, module_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwcost.advise.advise import Advice
    from hwcost.model.cost_model import CostModel


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "hwcost advise torchvision.models:mobilenet_v3_large --input 1x3x224x224 --model default",
            "hwcost advise nets.py:small --input 1x3x32x32 --device intel-i9-10980xe --json",
        )
    )(advise)


def advise(
    target: NetworkArgument,
    input: NetworkInputOption = None,  # noqa: A002 - the option's name
    device: Annotated[
        str, typer.Option("--device", "-d", metavar="NAME", help="Price by the roofline of this device.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="FILE", help="Price with this cost model; `default` ships.")
    ] = "",
    kwargs: KwargsOption = "",
    runtime: RuntimeOfModelOption = None,
    threads: ThreadsOfModelOption = None,
    dtype: DtypeOption = "float32",
    as_json: JsonFlag = False,
) -> None:
    """Say what to change in a network, with the predicted gain of each change; no weights are read."""
    if bool(device) == bool(model):
        raise UsageError("advice needs either --device NAME or --model FILE")
    onnx = target.endswith(".onnx")
    network, inputs = (graph_of(target, input or []), None) if onnx else module_of(target, input or [], kwargs)
    cost_model = model_or_roofline(device, model, runtime, threads, dtype)
    from hwcost.advise.advise import advise as ask

    found = ask(network, inputs, model=cost_model)
    before = cost_model.estimate(network, inputs)
    if as_json:
        place = {"device": cost_model.device.name, "runtime": cost_model.runtime, "threads": cost_model.threads}
        head = {"target": target, "input": input or [], **place, "latency_s": before.latency}
        return print_json({**head, "confidence": before.confidence, "advice": [as_row(a) for a in found]})
    return _print(found, before.latency, cost_model)


def as_row(advice: Advice) -> dict[str, Any]:
    """One piece of advice as JSON; SI units."""
    return {
        "change": advice.change,
        "where": list(advice.where),
        "gain": advice.gain,
        "before_s": advice.before,
        "after_s": advice.after,
        "low_s": advice.low,
        "high_s": advice.high,
        "macs_before": advice.macs_before,
        "macs_after": advice.macs_after,
        "same_function": advice.same,
        "measured": advice.measured,
    }


def _print(found: Sequence[Advice], latency: float, model: CostModel) -> None:
    from hwcost import units
    from hwcost.report.text import advice_table

    screen = console()
    if not found:
        screen.print(f"nothing to gain: no change that was tried saves 1 % of {units.format(latency, 'second')}")
        return
    screen.print(advice_table(found))
    screen.print(f"now {units.format(latency, 'second')}; a change marked = leaves what the network computes as it is")
    if not model.is_fitted:
        screen.print("note: the roofline alone: gains of a lower bound, not predictions")
    elif not all(a.measured for a in found):
        screen.print("note: ? marks a change that brings kernels outside the measured range")
