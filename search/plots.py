"""Plots of a study, by Optuna's conventions: `plot_*(study, *, ...)` returns a plotly figure; infeasible is grey.

They show what `LatencyObjective` keeps with each trial. Latencies are in ms, and error bars are the intervals of the
estimates. Trials that were rejected before training have no metric and are drawn as ticks on the axis of latency.

The figures of the quickstart's page are others (`hwcost.report.search_plots`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial
from plotly.subplots import make_subplots

from hwcost.search import scoring
from hwcost.search.artifacts import breakdown_of
from hwcost.search.once import ATTRIBUTE, METRIC, attribute_of, is_training

GREY, BLUE, RED = "#cccccc", "#3182bd", "#de2d26"  # Optuna's colours: infeasible, feasible, best
_MOST_REJECTED = 2000  # rejected trials that are drawn, of perhaps hundreds of thousands


class PlotError(ValueError):
    """A study without what a plot shows."""


def plot_pareto_front(study: optuna.Study, *, device: str | None = None) -> go.Figure:
    """Metric against predicted latency: trained trials with their intervals and their front, infeasible trials in grey.

    Args:
        study: of a LatencyObjective.
        device: whose latency; None is the first model's.

    Raises:
        PlotError: nothing was trained, or there is no such device.
    """
    trained, infeasible, rejected = _split(study, device)
    metric = _metric_name(study)
    figure = go.Figure(layout={"title": f"Pareto-front Plot{_of(device)}"})
    if rejected:
        figure.add_trace(_ticks(rejected, device))
        figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False})
    if infeasible:
        figure.add_trace(_points("Infeasible Trial", infeasible, device, GREY))
    best = set(_front(study, trained, device))
    rest = [t for t in trained if t.number not in best]
    figure.add_trace(_points("Feasible Trial", rest, device, BLUE))
    figure.add_trace(_points("Best Trial", [t for t in trained if t.number in best], device, RED))
    limit = _limit(study, device)
    if limit is not None:
        figure.add_vline(x=limit * 1e3, line={"dash": "dash", "color": "black"}, annotation_text="budget")
    figure.update_xaxes(title=f"predicted latency{_of(device)} (ms)", rangemode="tozero")
    figure.update_yaxes(title=metric)
    return figure


def plot_latency_history(study: optuna.Study, *, device: str | None = None) -> go.Figure:
    """Metric and predicted latency of each trial in the order of the search, one above the other.

    Raises:
        PlotError: nothing was trained, or there is no such device.
    """
    trained, infeasible, rejected = _split(study, device)
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)
    numbers = [t.number for t in trained]
    metrics = np.array([_metric(t) for t in trained])
    best = np.maximum.accumulate(metrics) if _maximised(study) else np.minimum.accumulate(metrics)
    dots = {"mode": "markers", "marker": {"color": BLUE}}
    line = {"mode": "lines", "line": {"color": RED}}
    figure.add_trace(go.Scatter(x=numbers, y=metrics, name=_metric_name(study), **dots), row=1, col=1)
    figure.add_trace(go.Scatter(x=numbers, y=best, name="Best Value", **line), row=1, col=1)
    over_budget = [*infeasible, *rejected]
    if over_budget:
        grey = {"mode": "markers", "marker": {"color": GREY, "size": 4}, "name": "Infeasible Trial"}
        times = [_fact(t, "latency", device) * 1e3 for t in over_budget]
        figure.add_trace(go.Scatter(x=[t.number for t in over_budget], y=times, **grey), row=2, col=1)
    figure.add_trace(_points("Trained", trained, device, BLUE, over=lambda t: t.number), row=2, col=1)
    limit = _limit(study, device)
    if limit is not None:
        figure.add_hline(y=limit * 1e3, line={"dash": "dash"}, annotation_text="budget", row=2, col=1)
    figure.update_yaxes(title=_metric_name(study), row=1, col=1)
    figure.update_yaxes(title=f"latency{_of(device)} (ms)", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title="Trial", row=2, col=1)
    figure.update_layout(title=f"Latency and Accuracy History Plot{_of(device)}")
    return figure


def plot_block_costs(
    study: optuna.Study, *, artifacts: str | Path, device: str | None = None, winners: int = 5, depth: int = 2
) -> go.Figure:
    """Predicted latency of each block of the best architectures, as stacked bars.

    Args:
        study: of a LatencyObjective with `artifacts`.
        artifacts: the folder given to the objective.
        device: whose latency; None is the first model's.
        winners: how many architectures, spread over the front by latency.
        depth: how many leading names of a module path make a block: at 2, "stages.0.1" counts as "stages.0".

    Raises:
        PlotError: nothing was trained, there is no such device, or the model knows no blocks.
        ArtifactError: the breakdown of an architecture is not in the folder.
    """
    trained, _, _ = _split(study, device)
    by_number = {t.number: t for t in trained}
    best = [by_number[number] for number in _front(study, trained, device)]
    chosen = [best[i] for i in sorted({round(i) for i in np.linspace(0, len(best) - 1, winners)})]
    labels = [f"trial {t.number}: {_metric(t):.4g}" for t in chosen]
    costs = [_blocks(breakdown_of(study, t, artifacts), device, depth) for t in chosen]
    if not any(costs):
        raise PlotError(f"the model of study {study.study_name!r} tells no cost of blocks; a table or cost model does")
    figure = go.Figure(layout={"title": f"Cost of the Best Trials by Block{_of(device)}", "barmode": "stack"})
    for name in dict.fromkeys(name for cost in costs for name in cost):
        figure.add_trace(go.Bar(name=name, y=labels, x=[c.get(name, 0.0) * 1e3 for c in costs], orientation="h"))
    figure.update_xaxes(title=f"predicted latency{_of(device)} (ms)")
    return figure


def plot_param_importances(study: optuna.Study, *, device: str | None = None) -> go.Figure:
    """Importance of each parameter for the metric, by the trained trials, and for the latency, by all trials.

    Parameters that only some of these trials have are left out.

    Raises:
        PlotError: fewer than two architectures were trained, or there is no such device.
    """
    trained, infeasible, rejected = _split(study, device)
    metric = _importances(trained, _metric)
    estimated = [*trained, *infeasible, *rejected]
    latency = _importances(estimated, lambda t: float(np.log(_fact(t, "latency", device))))
    names = sorted({*metric, *latency}, key=lambda n: max(metric.get(n, 0.0), latency.get(n, 0.0)))
    figure = go.Figure(layout={"title": "Hyperparameter Importances", "barmode": "group"})
    for title, values, colour in (("latency", latency, GREY), (_metric_name(study), metric, BLUE)):
        figure.add_trace(
            go.Bar(name=title, y=names, x=[values.get(n, 0.0) for n in names], orientation="h", marker_color=colour)
        )
    figure.update_xaxes(title="Hyperparameter Importance")
    return figure


# -- what the study holds ---------------------------------------------------------------------------


def _split(study: optuna.Study, device: str | None) -> tuple[list[FrozenTrial], list[FrozenTrial], list[FrozenTrial]]:
    """The trials of a study in three lists.

    Returns:
        Those that were trained and are within the budget, those that were trained and are not, and those that were
        rejected before training, of which at most `_MOST_REJECTED`, evenly spread.

    Raises:
        PlotError: nothing was trained, or there is no such device.
    """
    trials = study.get_trials(deepcopy=False)
    trained = [t for t in trials if is_training(t)]
    rejected = [t for t in trials if attribute_of(t).get("state") == "rejected"]
    if not trained:
        raise PlotError(f"study {study.study_name!r} has no training of a LatencyObjective to plot; run it first")
    devices = attribute_of(trained[0]).get("devices", {})
    if device is not None and device not in devices:
        names = ", ".join(devices) or "none by name; leave device out"
        raise PlotError(f"no device {device!r} in study {study.study_name!r}; it has {names}")
    feasible: list[FrozenTrial] = []
    infeasible: list[FrozenTrial] = []
    for t in trained:
        within = all(excess <= 0 for excess in t.constraints.values())
        (feasible if within else infeasible).append(t)
    step = max(1, math.ceil(len(rejected) / _MOST_REJECTED))
    return feasible, infeasible, rejected[::step]


def _facts(trial: FrozenTrial, device: str | None) -> Mapping[str, Any]:
    """What a trial keeps of the estimate for a device; None is the first model's."""
    attribute = attribute_of(trial)
    if device is None:
        return attribute
    facts: Mapping[str, Any] = attribute["devices"][device]
    return facts


def _fact(trial: FrozenTrial, name: str, device: str | None) -> float:
    return float(_facts(trial, device)[name])


def _metric(trial: FrozenTrial) -> float:
    return float(attribute_of(trial)[METRIC])


def _maximised(study: optuna.Study) -> bool:
    return study.directions[0].name == "MAXIMIZE"


def _metric_name(study: optuna.Study) -> str:
    names = study.metric_names
    return names[0].partition(" (")[0] if names else "metric"  # a penalty form adds itself in brackets


def _limit(study: optuna.Study, device: str | None) -> float | None:
    """The budget of latency (s) on a device; None where the study has none."""
    budget: Mapping[str, float] = study.user_attrs.get(ATTRIBUTE, {}).get("budget", {})
    if device is not None:
        return budget.get(f"latency@{device}")
    return next((most for key, most in budget.items() if key.partition("@")[0] == "latency"), None)


def _front(study: optuna.Study, trials: Sequence[FrozenTrial], device: str | None) -> list[int]:
    """Numbers of the trials on the front of metric and latency, by rising latency."""
    sign = 1.0 if _maximised(study) else -1.0
    order = scoring.front([_fact(t, "latency", device) for t in trials], [sign * _metric(t) for t in trials])
    return [trials[int(i)].number for i in order]


def _blocks(breakdown: Mapping[str, Any], device: str | None, depth: int) -> dict[str, float]:
    """Latency (s) of each block of one architecture; see `plot_block_costs` for `depth`."""
    devices = breakdown["devices"]
    parts = next(iter(devices.values()))["parts"] if device is None else devices[device]["parts"]
    costs: dict[str, float] = {}
    for part in parts:
        name = ".".join(part["name"].split(".")[:depth])
        costs[name] = costs.get(name, 0.0) + part["latency_s"]
    return costs


def _importances(trials: Sequence[FrozenTrial], target: Callable[[FrozenTrial], float]) -> dict[str, float]:
    """Importance for `target` of each parameter that all trials have, by Optuna's fANOVA; they sum to 1."""
    if len(trials) < 2:
        raise PlotError(f"importances need at least 2 architectures, but the study has {len(trials)}; search on")
    shared = set.intersection(*(set(t.params) for t in trials))
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    for t in trials:
        params = {name: v for name, v in t.params.items() if name in shared}
        distributions = {name: t.distributions[name] for name in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=target(t)))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


# -- traces -------------------------------------------------------------------------------------------


def _of(device: str | None) -> str:
    """What a title adds for one of several devices."""
    return f" on {device}" if device else ""


def _hover(trial: FrozenTrial, device: str | None) -> str:
    """The text that appears over a point: the trial's parameters and how well it uses the device."""
    facts = _facts(trial, device)
    more = [f"{k}: {facts[k]:.3g}" for k in ("intensity", "memory_share", "achieved") if k in facts]
    return "<br>".join([f"Trial {trial.number}", *(f"{k} = {v}" for k, v in trial.params.items()), *more])


def _points(
    name: str,
    trials: Sequence[FrozenTrial],
    device: str | None,
    colour: str,
    over: Callable[[FrozenTrial], float] | None = None,
) -> go.Scatter:
    """Trials with their intervals: the metric over the latency, or the latency over `over(trial)` where it is given."""
    latency = np.array([_fact(t, "latency", device) for t in trials]) * 1e3
    low = np.array([_fact(t, "low", device) for t in trials]) * 1e3
    high = np.array([_fact(t, "high", device) for t in trials]) * 1e3
    bars = {"type": "data", "symmetric": False, "array": high - latency, "arrayminus": latency - low, "thickness": 1}
    if over is None:
        points = {"x": latency, "y": [_metric(t) for t in trials], "error_x": bars}
    else:
        points = {"x": [over(t) for t in trials], "y": latency, "error_y": bars}
    text = [_hover(t, device) for t in trials]
    hover = f"%{{text}}<extra>{name}</extra>"
    return go.Scatter(name=name, mode="markers", marker={"color": colour}, text=text, hovertemplate=hover, **points)


def _ticks(trials: Sequence[FrozenTrial], device: str | None) -> go.Scatter:
    """Trials that were never trained, as ticks at the lower edge; a second y axis from 0 to 1 places them."""
    times = [_fact(t, "latency", device) * 1e3 for t in trials]
    return go.Scatter(
        name="Infeasible Trial (not trained)",
        x=times,
        y=[0.02] * len(times),
        yaxis="y2",
        mode="markers",
        marker={"color": GREY, "symbol": "line-ns-open", "size": 10},
        hoverinfo="x+name",
    )
