"""The plots of a study, and a note on it, in optuna-dashboard (the extra `dashboard`).

optuna-dashboard 0.21 looks for constraints where Optuna 4 stored them, so its own plots show infeasible trials of
Optuna 5 as feasible. The plots published here show them as infeasible, and the note says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

from hwcost import units
from hwcost.search import plots
from hwcost.search.budgets import dimension_of
from hwcost.search.once import ATTRIBUTE, attribute_of, is_training
from hwcost.search.utilisation import utilisation_in_words

PREFIX = "hwcost"  # what the names of the plots begin with


class DashboardError(ValueError):
    """optuna-dashboard is not installed."""


def require() -> None:
    """Raise a DashboardError where optuna-dashboard is not installed."""
    try:
        import optuna_dashboard  # noqa: F401 - whether it can be
    except ImportError:
        raise DashboardError("the dashboard needs a package: pip install 'hwcost[dashboard]'") from None


def publish(study: optuna.Study, *, artifacts: str | Path | None = None) -> tuple[str, ...]:
    """Save the plots and the note in the study, where optuna-dashboard finds them, in place of earlier ones.

    Args:
        study: with at least one training.
        artifacts: the folder with the breakdowns of the trials. Without it, or where the model knows no blocks, the
            plot of the cost by block is left out.

    Returns:
        The names of the plots.

    Raises:
        DashboardError: optuna-dashboard is not installed.
        PlotError, ArtifactError: the study holds nothing to show.
    """
    require()
    from optuna_dashboard import save_note, save_plotly_graph_object

    figures = _figures(study, artifacts)
    for name, figure in figures.items():
        save_plotly_graph_object(study, figure, graph_object_id=name)
    save_note(study, note(study))
    return tuple(figures)


def _figures(study: optuna.Study, artifacts: str | Path | None) -> dict[str, Any]:
    """The figures by name; with several devices, one of each kind for each device."""
    trained = [t for t in study.get_trials(deepcopy=False) if is_training(t)]
    devices = list(attribute_of(trained[0]).get("devices", {})) if trained else []
    figures: dict[str, Any] = {}
    for i, device in enumerate(devices or [None]):
        suffix = f"-{i}" if device else ""
        figures[f"{PREFIX}-pareto-front{suffix}"] = plots.plot_pareto_front(study, device=device)
        figures[f"{PREFIX}-history{suffix}"] = plots.plot_latency_history(study, device=device)
        if artifacts is not None:
            with suppress(plots.PlotError):  # a user's own model may know no blocks
                figures[f"{PREFIX}-blocks{suffix}"] = plots.plot_block_costs(study, artifacts=artifacts, device=device)
        if len(trained) > 1:
            figures[f"{PREFIX}-importances{suffix}"] = plots.plot_param_importances(study, device=device)
    return figures


def note(study: optuna.Study) -> str:
    """A note in Markdown: the budget, counts, the best trials, and how to read the dashboard's own plots."""
    trials = study.get_trials(deepcopy=False)
    trained = [t for t in trials if is_training(t)]
    rejected = sum(attribute_of(t).get("state") == "rejected" for t in trials)
    described: Mapping[str, Any] = study.user_attrs.get(ATTRIBUTE, {})
    limits = ", ".join(f"{key} at most {_amount(key, most)}" for key, most in described.get("budget", {}).items())
    best = [t for t in study.best_trials if is_training(t)] if trained else []
    rows = [f"| {t.number} | {attribute_of(t)['metric']:.4g} | {_latency(attribute_of(t))} |" for t in best[:20]]
    return "\n".join([
        "# Search with known costs",
        f"Form `{described.get('form')}`; budget: {limits or 'none'}.",
        f"{len(trained)} architectures trained; {rejected} of {len(trials)} proposals rejected before training.",
        "",
        "| best trial | metric | predicted latency |",
        "|---|---|---|",
        *rows,
        "",
        *_utilisation([attribute_of(t) for t in best]),
        "",
        "The plots from hwcost, on the study's first page below the timeline, are right. **The dashboard's own plots,",
        "of version 0.21, show infeasible trials of Optuna 5 as feasible**: it reads constraints where older versions",
        "kept them.",
    ])  # fmt: skip


def _utilisation(best: list[Mapping[str, Any]]) -> list[str]:
    """For each device a line on how well the best architectures use it."""
    devices = best[0].get("devices", {}) if best else {}
    each = {f" on {name}": [a["devices"][name] for a in best] for name in devices} or {"": best}
    words = {where: utilisation_in_words(facts) for where, facts in each.items()}
    return [f"* The best{where}, in the median: {phrase}." for where, phrase in words.items() if phrase]


def _latency(facts: Mapping[str, Any]) -> str:
    """A predicted latency with its interval."""
    t, low, high = (units.format(facts[k], "second") for k in ("latency", "low", "high"))
    return t if low == high else f"{t} ({low} .. {high})"


def _amount(key: str, most: float) -> str:
    """The limit with this key, with its unit."""
    dimension = dimension_of(key.partition("@")[0])
    return units.format(most, dimension) if dimension else f"{most:g}"
