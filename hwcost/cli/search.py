"""`hwcost search`: an Optuna study of a space, whose architectures are priced before they are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli.errors import UsageError
from hwcost.cli.models import load_model
from hwcost.cli.options import JsonFlag, QuantileOption, RuntimeOfModelOption, ThreadsOfModelOption, examples
from hwcost.cli.output import console, print_json, progress, say

if TYPE_CHECKING:
    import optuna

    from hwcost.search.data import Data
    from hwcost.search.objective import LatencyObjective
    from hwcost.search.summary import SpaceSummary
    from hwcost.spaces.base import Space
    from hwcost.table.table import LatencyTable

_DATA = {"nas-bench-201": "nas-bench-201/cifar10"}  # default --data of a space; of all others it is digits


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            'hwcost search --space tiny-cnn --model default --budget "5 ms" --dry-run',
            'hwcost search --space tiny-cnn --model here.hwcost --budget "5 ms" --trials 40 --storage search.db',
            'hwcost search --space nas-bench-201 --model default --budget "20 ms" --data nas-bench-201/cifar100',
            'hwcost search --space tiny-cnn --model pi.parquet --budget "20 ms" --model here.hwcost --budget "2 ms"',
        )
    )(search)


def search(
    space: Annotated[str, typer.Option("--space", metavar="NAME", help="tiny-cnn, mbconv, ... or path/file.py:Class.")],
    model: Annotated[
        list[str],
        typer.Option("--model", "-m", metavar="FILE", help="A cost model, `default`, or a table; repeat for devices."),
    ],
    budget: Annotated[
        list[str], typer.Option("--budget", metavar="TIME", help='Most latency, "5 ms"; one for all, or one a model.')
    ],
    form: Annotated[str, typer.Option("--form", help="constraint, pareto, mnas-soft, linear, ...")] = "constraint",
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trainings of the study; rejections are free.")] = 60,
    storage: Annotated[
        str, typer.Option("--storage", metavar="URL", help="Where the study is kept and resumed: a file, or a URL.")
    ] = "hwcost-search.db",
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME", help="digits, nas-bench-201/SET or file.py:callable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the study.")] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="P", help="Probability of being within the budget.")
    ] = 0.5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at a time.")] = 1,
    across: Annotated[
        str | None,
        typer.Option("--across", metavar="HOW", help="Several models as one: worst, or weights in their order, 2,1."),
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Save plots and a note in the study for optuna-dashboard.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what the space costs and what fits; train nothing.")
    ] = False,
    runtime: RuntimeOfModelOption = None,
    threads: ThreadsOfModelOption = None,
    quantile: QuantileOption = "low",
    as_json: JsonFlag = False,
) -> None:
    """Search a space for architectures that are accurate and within a latency budget.

    The latency is predicted before an architecture is trained; what is over the budget costs no training.
    """
    from hwcost.search.data import get_data
    from hwcost.search.outcome import outcome
    from hwcost.spaces.registry import get_space

    chosen, budgets = get_space(space), _budgets(budget, model)
    weighed = _across(across, model)
    _check(budgets, model, form, confidence, weighed, dashboard)
    found = get_data(data or _DATA.get(chosen.name, "digits"), chosen, seed=seed)
    models = {m: _priced(m, chosen, runtime, threads, quantile) for m in model}
    objective = _objective(chosen, found, models, budgets, form, confidence, weighed, storage)
    if dry_run:
        summary = _summary(objective)
        return print_json(_summary_json(summary)) if as_json else _tell_summary(chosen, summary)
    study = _run(objective, trials, seed, storage, name or f"{chosen.name} {form} {' '.join(budget)}", jobs)
    if dashboard:
        _publish(study, objective)
    document = outcome(study, objective) | _scores(study, chosen, objective, models, found)
    print_json(document) if as_json else _tell(document, objective)
    return None


def _priced(name: str, space: Space, runtime: str | None, threads: int | None, quantile: str) -> LatencyTable:
    """The space's latency table, read from a file or made from a cost model: estimates are look-ups then."""
    from hwcost.table.table import LatencyTable

    if Path(name).suffix == ".parquet":
        if quantile != "low":
            raise UsageError(f"table {name} holds the latency it was made for; give --quantile with a cost model")
        table = LatencyTable.load(name)
        _check_table(name, table, space, runtime, threads)
        return table
    loaded = load_model(name, runtime=runtime, threads=threads, quantile=quantile)
    with progress(f"pricing the blocks of {space.name}") as bar:
        return LatencyTable.build(space, loaded, progress=bar)


def _check_table(name: str, table: LatencyTable, space: Space, runtime: str | None, threads: int | None) -> None:
    """Refuse a table of another space, runtime or thread count.

    Raises:
        UsageError: it is.
    """
    if table.meta["space"] != space.name:
        made = f"make one with `hwcost table --space {space.name}`"
        raise UsageError(f"table {name} is of space {table.meta['space']}, but the space is {space.name}; {made}")
    has = {d["name"]: tuple(d["choices"]) for d in table.meta["decisions"]}
    wants = {d.name: tuple(d.choices) for d in space.decisions}
    for decision in {**wants, **has}:
        if has.get(decision) != wants.get(decision):
            raise UsageError(
                f"table {name} has {decision} = {has.get(decision)}, but space {space.name} has {wants.get(decision)}; "
                "make the table again"
            )
    for option, asked in (("runtime", runtime), ("threads", threads)):
        if asked is not None and asked != table.meta["target"][option]:
            of = table.meta["target"][option]
            raise UsageError(f"table {name} is of {option} {of}, but --{option} {asked} was asked; leave it out")


def _across(across: str | None, model: list[str]) -> Any:
    """How the latencies of several models become one: None, "worst", or a weight for each model."""
    if across is None or across == "worst":
        return across
    try:
        weights = [float(part) for part in across.split(",")]
    except ValueError:
        weights = []
    if len(weights) != len(model) or min(weights) <= 0:
        raise UsageError(f"--across must be worst, or a weight above 0 for each of {len(model)} models, got {across!r}")
    return dict(zip(model, weights, strict=True))


def _check(budgets: Any, model: list[str], form: Any, confidence: float, across: Any, dashboard: bool) -> None:
    """Raise the error of an objective with these settings now, before anything is priced or trained.

    The functions and models of that objective are stand-ins, which are never called.
    """
    from hwcost.search import LatencyObjective
    from hwcost.search.dashboard import require

    unpriced = {name: SimpleNamespace(estimate=id) for name in model}
    LatencyObjective(id, id, model=unpriced, budget=budgets, form=form, confidence=confidence, across=across)  # type: ignore[arg-type]
    if dashboard:
        require()


def _budgets(budget: list[str], model: list[str]) -> Any:
    """The budget of all models, or each model's own."""
    if len(set(model)) != len(model):
        raise UsageError(f"each --model must be given once, but got {', '.join(model)}")
    if len(budget) == 1:
        return budget[0]
    if len(budget) != len(model):
        raise UsageError(f"give one --budget for all models or one for each, but got {len(budget)} for {len(model)}")
    return dict(zip(model, budget, strict=True))


def _objective(
    space: Space,
    data: Data,
    models: Mapping[str, LatencyTable],
    budget: Any,
    form: Any,
    confidence: float,
    across: Any,
    storage: str,
) -> LatencyObjective:
    from hwcost.search import LatencyObjective
    from hwcost.search.artifacts import folder_beside
    from hwcost.search.storage import without_password

    return LatencyObjective(
        space.suggest,
        Training(data.evaluate, without_password(storage)),
        model=models,
        budget=budget,
        form=form,
        confidence=confidence,
        across=across,
        artifacts=folder_beside(storage),
    )


@dataclass(frozen=True)
class Training:
    """The user's training; what it raises becomes an error of one line."""

    evaluate: Callable[[Any, Any], float]
    storage: str

    def __call__(self, params: Any, trial: Any) -> float:
        """Train one architecture; returns its accuracy.

        Raises:
            UsageError: the training raised, other than to prune the trial.
        """
        import optuna

        try:
            return self.evaluate(params, trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            raise UsageError(
                f"the training of trial {trial.number} ({params}) failed with {type(error).__name__}: {error}; the "
                f"finished trials stay in {self.storage}, and the same command goes on from there"
            ) from error


def _run(objective: LatencyObjective, trials: int, seed: int, storage: str, name: str, jobs: int) -> optuna.Study:
    import optuna

    from hwcost.search import run_study
    from hwcost.search.storage import open_storage, without_password

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # progress is shown by the bar
    opened = open_storage(storage)  # a storage that cannot be opened is an error before a bar is drawn
    try:
        with progress("searching") as bar:
            return run_study(
                objective, trainings=trials, seed=seed, storage=opened, name=name, n_jobs=jobs, progress=bar
            )
    except KeyboardInterrupt:
        kept = without_password(storage)
        say(f"interrupted: the trainings that were finished are in {kept}; the same command goes on from there")
        raise typer.Exit(130) from None


def _publish(study: optuna.Study, objective: LatencyObjective) -> None:
    from hwcost.search.dashboard import publish

    publish(study, artifacts=objective.artifacts)


# -- what was found -------------------------------------------------------------------------------


def _scores(
    study: optuna.Study, space: Space, objective: LatencyObjective, models: Mapping[str, LatencyTable], data: Data
) -> dict[str, float | None]:
    """Regret and hypervolume ratio, where the data hold the accuracy of all architectures and there is one device."""
    from hwcost.search.outcome import scores

    if not data.truth or len(models) > 1:
        return {}
    (table,) = models.values()
    latencies = table.latency([space.choices(params) for params, _ in data.truth])
    return scores(study, objective, (latencies, [accuracy for _, accuracy in data.truth]))


def _tell(document: dict[str, Any], objective: LatencyObjective) -> None:
    from rich.table import Table

    from hwcost import units
    from hwcost.search.utilisation import utilisation_in_words

    table = Table(title="the best that was found", title_justify="left")
    for column in ("accuracy", "latency", "interval", "parameters"):
        table.add_column(column, overflow="fold")
    for row in document["best"]:
        t, low, high = (units.format(row[k], "second") for k in ("latency_s", "low_s", "high_s"))
        params = ", ".join(f"{k}={v}" for k, v in row["params"].items())
        table.add_row(f"{row['accuracy']:.1%}", t, f"{low} .. {high}", params)
    out = console()
    out.print(table)
    words = utilisation_in_words(document["best"]) if len(objective.models) == 1 else ""
    if words:
        out.print(f"in the median: {words}")
    rejected = document["rejected_before_training"]
    for device, rows in document.get("fronts", {}).items():
        points = ", ".join(f"{r['accuracy']:.1%} in {units.format(r['latency_s'], 'second')}" for r in rows)
        out.print(f"front on {device}: {points}; in the median {utilisation_in_words(rows)}")
    out.print(
        f"{document['trainings']} trainings, {rejected} of {document['trials']} proposals rejected before training"
    )
    scores = {key.replace("_", " "): document.get(key) for key in ("regret", "hypervolume_ratio")}
    known = [f"{name} {value:.4g}" for name, value in scores.items() if value is not None]
    if known:
        out.print(", ".join(known))


# -- before the search ----------------------------------------------------------------------------


def _summary(objective: LatencyObjective) -> SpaceSummary:
    from hwcost.search.summary import summarise

    with progress("pricing random architectures") as bar:
        return summarise(objective, progress=bar)


def _summary_json(summary: SpaceSummary) -> dict[str, Any]:
    from dataclasses import asdict

    devices = []
    for device in map(asdict, summary.devices):
        times = {f"{key}_s": device.pop(key) for key in ("least", "median", "most")}
        devices.append(times | device)
    return {"samples": summary.samples, "feasible_share": summary.feasible_share, "devices": devices}


def _tell_summary(space: Space, summary: SpaceSummary) -> None:
    from hwcost import units

    out = console()
    out.print(f"{space.name}: {space.size:.3g} architectures, {summary.samples} random ones priced, nothing trained")
    for device in summary.devices:
        least, median, most = (units.format(t, "second") for t in (device.least, device.median, device.most))
        share = "" if device.feasible_share is None else f"; {device.feasible_share:.1%} within the budget"
        out.print(f"{device.device}: {least} least, {median} median, {most} most{share}")
        for e in device.effects[:5]:
            out.print(f"  {e.decision} = {e.slowest} takes {e.factor:.2f} times as long as {e.decision} = {e.fastest}")
