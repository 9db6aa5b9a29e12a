"""The verb `quickstart`: the main job on this machine, from ceilings to a verified architecture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.common import JsonFlag, ThreadsOption, UsageError, console, examples, print_json, say
from hwcost.quickstart import RUNTIME, SPACE, Job, Plan, folder

if TYPE_CHECKING:
    import optuna

    from hwcost.measure.types import Measurements
    from hwcost.model.cost_model import CostModel
    from hwcost.report.page import Candidate, QuickstartResult, Winner


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
    job = Job(Plan(folder=folder(output), threads=threads, trainings=trainings, seed=seed))
    result = run(job)
    from hwcost.report.html import save_page

    page = job.path("index.html")
    save_page(result, page)
    if as_json:
        return print_json(summary(result, page, time.monotonic() - start))
    _show(result, page, time.monotonic() - start)


def run(job: Job) -> QuickstartResult:
    """All steps; what the page tells."""
    from hwcost.report.page import QuickstartResult

    device = job.calibrate()
    model = job.model(device)
    table = job.table(model)
    budget = job.budget(table)
    study = job.search(table, budget)
    front = chosen(study, job.plan.verified)
    by_accuracy = reversed(front)  # should time not suffice for all, the page must not miss the best
    verified = job.verify([job.space.suggest(_fixed(trial)) for trial in by_accuracy])
    assert model.held_out is not None  # it is fitted
    assert model.measurements is not None
    return QuickstartResult(
        device=device, runtime=RUNTIME, threads=job.plan.threads, space=SPACE, task="scikit-learn's digits",
        budget=budget, held_out=model.held_out, candidates=candidates(study),
        winners=_winners(job, model, front, verified), training_seconds=_training_seconds(study),
        environment=_environment(model.measurements), stages=job.seconds,
        commands=(f"hwcost quickstart -o {job.plan.folder} --seed {job.plan.seed} --trainings {job.plan.trainings}",),
    )  # fmt: skip


def chosen(study: optuna.Study, most: int) -> list[optuna.trial.FrozenTrial]:
    """The front's trained trials within the budget, by latency; at most `most`, the ends among them.

    Raises:
        UsageError: nothing was trained within the budget.
    """
    from hwcost.search.once import is_training

    front = sorted((t for t in study.best_trials if is_training(t)), key=lambda t: t.values[1])
    if not front:
        raise UsageError(
            "the search trained nothing within the budget; raise --trainings, or start anew with another -o"
        )
    if len(front) <= most:
        return front
    step = (len(front) - 1) / (most - 1)
    return [front[round(i * step)] for i in range(most)]


def candidates(study: optuna.Study) -> tuple[Candidate, ...]:
    """Every proposal with its prediction, in order."""
    from hwcost.report.page import Candidate
    from hwcost.search.once import attribute_of

    states = {"rejected": "rejected", "known": "duplicate", "trained": "trained"}
    found = []
    for trial in study.trials:
        facts = attribute_of(trial)
        state: Any = states.get(str(facts.get("state")))
        if state is None:
            continue  # stopped half-way
        accuracy = trial.values[0] if trial.values else None
        found.append(
            Candidate(latency=facts["latency"], low=facts["low"], high=facts["high"], state=state, accuracy=accuracy)
        )
    return tuple(found)


def _fixed(trial: optuna.trial.FrozenTrial) -> Any:
    import optuna

    return optuna.trial.FixedTrial(trial.params)


def _winners(
    job: Job, model: CostModel, front: list[optuna.trial.FrozenTrial], verified: Measurements
) -> tuple[Winner, ...]:
    from hwcost.measure.items import space_item
    from hwcost.report.page import Winner

    measured = {n.name: n.timing for n in verified.networks}
    winners = []
    for trial in front:
        params = job.space.suggest(_fixed(trial))
        timing = measured.get(space_item(job.space, params).name)
        if timing is None:
            say(f"trial {trial.number} was not measured in the time for verifying, and is not on the page")
            continue
        estimate = model.estimate(job.space.build(params), job.space.inputs(params))
        winners.append(
            Winner(
                name=f"trial {trial.number}", params=params, accuracy=trial.values[0], estimate=estimate,
                measured=timing.latency, spread=timing.spread,
            )
        )  # fmt: skip
    return tuple(winners)


def _training_seconds(study: optuna.Study) -> float:
    """Mean duration (s) of the trials that trained."""
    from hwcost.search.once import is_training

    times = [t.duration.total_seconds() for t in study.trials if is_training(t) and t.duration]
    return sum(times) / len(times) if times else 0.0


def _environment(measurements: Measurements) -> dict[str, str]:
    e = measurements.environment
    return {"CPU": e.cpu, "cores": str(e.cores), "governor": e.governor, "pinned": str(e.pinned)} | dict(e.versions)


# -- what is said --------------------------------------------------------------------------------------


def summary(result: QuickstartResult, page: Path, seconds: float) -> dict[str, Any]:
    """The run as JSON values."""
    held_out, verified = result.held_out, result.verification
    return {
        "report": str(page), "seconds": seconds, "steps": dict(result.stages), "device": result.device.name,
        "budget_s": result.budget, "trials": len(result.candidates), "trainings": result.count("trained"),
        "rejected_before_training": result.count("rejected"), "duplicates": result.count("duplicate"),
        "held_out": {
            "networks": len(held_out.networks), "mape": held_out.mape, "within_5": held_out.within(0.05),
            "within_10": held_out.within(0.10), "spearman": held_out.spearman, "clock": held_out.clock,
            "coverage_of_interval": held_out.coverage_of_interval,
        },
        "best": [
            {
                "params": dict(w.params), "accuracy": w.accuracy, "latency_s": w.estimate.latency,
                "low_s": w.estimate.low, "high_s": w.estimate.high, "measured_s": w.measured, "spread": w.spread,
            }
            for w in result.winners
        ],
        "verified": {
            "mape": verified.mape, "within_10": verified.within(0.10), "inside": verified.coverage_of_interval,
        },
    }  # fmt: skip


def _show(result: QuickstartResult, page: Path, seconds: float) -> None:
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
