"""`hwcost quickstart`: the main job on this machine, from ceilings to a verified architecture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.errors import UsageError
from hwcost.cli.options import JsonFlag, ThreadsOption, examples
from hwcost.cli.output import console, print_json, progress, say
from hwcost.quickstart import Job, Plan, run

if TYPE_CHECKING:
    from hwcost.report.result import QuickstartResult


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=examples("hwcost quickstart", "hwcost quickstart --trainings 60 -o report"))(quickstart)


def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where everything is kept.")] = Path(
        "hwcost-report"
    ),
    threads: ThreadsOption = 1,
    trainings: Annotated[int, typer.Option(min=1, help="Architectures to train.")] = Plan.trainings,
    seed: Annotated[int, typer.Option(min=0, help="Of the networks drawn, the search, the trainings.")] = Plan.seed,
    as_json: JsonFlag = False,
) -> None:
    """Find architectures that are accurate and fast on this machine, and explain why, in about five minutes.

    Calibrates the machine, measures random networks of the space tiny-cnn, fits a cost model, prices the
    space, searches it with Optuna on scikit-learn's digits without training anything over the budget,
    measures the architectures found, and writes FOLDER/index.html. Resumes where it was stopped.
    """
    start = time.monotonic()
    plan = Plan(folder=_folder(output), threads=threads, trainings=trainings, seed=seed)
    command = f"hwcost quickstart -o {plan.folder} --seed {seed} --trainings {trainings}"
    result = run(Job(plan=plan, progress=progress, say=say), (command,))
    from hwcost.report.page import save_page

    page = plan.folder / "index.html"
    save_page(result, page)
    if as_json:
        return print_json(summary(result, page, time.monotonic() - start))
    _show(result, page, time.monotonic() - start)


def _folder(path: Path) -> Path:
    """The folder of the job, made if need be.

    Raises:
        UsageError: no file can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"output folder {path} cannot be written: {error.strerror}; choose another with -o") from error
    return path


def summary(result: QuickstartResult, page: Path, seconds: float) -> dict[str, Any]:
    """The run as JSON values: times in seconds, accuracies and errors as fractions."""
    held_out, verified = result.held_out, result.verification
    return {
        "report": str(page),
        "seconds": seconds,
        "steps": dict(result.stages),
        "device": result.device.name,
        "budget_s": result.budget,
        "trials": len(result.candidates),
        "trainings": result.count("trained"),
        "rejected_before_training": result.count("rejected"),
        "duplicates": result.count("duplicate"),
        "held_out": {
            "networks": len(held_out.networks),
            "mape": held_out.mape,
            "within_5": held_out.within(0.05),
            "within_10": held_out.within(0.10),
            "spearman": held_out.spearman,
            "clock": held_out.clock,
            "coverage_of_interval": held_out.coverage_of_interval,
        },
        "best": [
            {
                "params": dict(w.params),
                "accuracy": w.accuracy,
                "latency_s": w.estimate.latency,
                "low_s": w.estimate.low,
                "high_s": w.estimate.high,
                "measured_s": w.measured,
                "spread": w.spread,
            }
            for w in result.winners
        ],
        "verified": {
            "mape": verified.mape,
            "within_10": verified.within(0.10),
            "inside": verified.coverage_of_interval,
        },
    }


def _show(result: QuickstartResult, page: Path, seconds: float) -> None:
    """Print the accuracy of the model, what the search did, and the architectures found."""
    from hwcost import units
    from hwcost.report.text import accuracy_lines, comparison_table

    out = console()
    out.print(accuracy_lines(result.held_out, "networks held out of the fit"), soft_wrap=True)
    out.print(
        f"budget {units.format(result.budget, 'second')}: {result.count('trained')} architectures trained, "
        f"{result.count('rejected')} rejected before training, {result.count('duplicate')} known already",
        soft_wrap=True,
    )
    out.print(comparison_table(result.verification.networks))
    best = result.best
    out.print(
        f"best: {best.accuracy:.1%} accurate, predicted {units.format(best.estimate.latency, 'second')}, "
        f"measured {units.format(best.measured, 'second')}",
        soft_wrap=True,
    )
    out.print(f"{seconds:.0f} s; open {page}", soft_wrap=True)
