"""Plots of a study, by Optuna's conventions: `plot_*(study, *, ...)` gives a plotly figure; infeasible is grey.

They read what `LatencyObjective` keeps with every trial. Latencies are in ms; bars are the intervals of the
estimates; what was rejected before training has no metric and lies on the axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots

from hwcost.search import scoring
from hwcost.search.artifacts import breakdown_of
from hwcost.search.once import ATTRIBUTE, attribute_of

GREY, BLUE, RED = "#cccccc", "#3182bd", "#de2d26"  # Optuna's colours: infeasible, feasible, best
_MOST_REJECTED = 2000  # drawn; a search may reject hundreds of thousands


class PlotError(ValueError):
    """A study that does not hold what a plot shows."""


def plot_pareto_front(study: optuna.Study, *, device: str | None = None) -> go.Figure:
    """Metric against predicted latency: what was trained with its interval, its front, and in grey what is infeasible.

    Args:
        study: of a LatencyObjective.
        device: whose latency; None is the first model's.

    Raises:
        PlotError: nothing was trained, or there is no such device.
    """
    trained, infeasible, rejected = _sorted(study, device)
    metric = _metric_name(study)
    figure = go.Figure(layout={"title": f"Pareto-front Plot{_of(device)}"})
    if rejected:
        figure.add_trace(_rug(rejected, device))
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
    trained, infeasible, rejected = _sorted(study, device)
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)
    numbers, metrics = [t.number for t in trained], np.array([_metric(t) for t in trained])
    best = np.maximum.accumulate(metrics) if _maximised(study) else np.minimum.accumulate(metrics)
    dots, line = {"mode": "markers", "marker": {"color": BLUE}}, {"mode": "lines", "line": {"color": RED}}
    figure.add_trace(go.Scatter(x=numbers, y=metrics, name=_metric_name(study), **dots), row=1, col=1)
    figure.add_trace(go.Scatter(x=numbers, y=best, name="Best Value", **line), row=1, col=1)
    off = [*infeasible, *rejected]
    if off:
        grey = {"mode": "markers", "marker": {"color": GREY, "size": 4}, "name": "Infeasible Trial"}
        times = [_fact(t, "latency", device) * 1e3 for t in off]
        figure.add_trace(go.Scatter(x=[t.number for t in off], y=times, **grey), row=2, col=1)
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
    """Predicted time of each block of the best architectures, as stacked bars.

    Args:
        study: of a LatencyObjective with `artifacts`.
        artifacts: its folder.
        device: whose latency; None is the first model's.
        winners: how many, spread over the front by latency.
        depth: parts of a block's name that tell it from others.

    Raises:
        PlotError: nothing was trained, there is no such device, or the model knows no blocks.
        ArtifactError: a winner's breakdown is not in the folder.
    """
    trained, _, _ = _sorted(study, device)
    front = {number: i for i, number in enumerate(_front(study, trained, device))}
    best = sorted((t for t in trained if t.number in front), key=lambda t: front[t.number])
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
    """Importance of each decision for the metric, of what was trained, beside that for latency, of all that was judged.

    Only decisions that every such trial has can be compared.

    Raises:
        PlotError: fewer than two architectures were trained, or there is no such device.
    """
    trained, infeasible, rejected = _sorted(study, device)
    judged = [*trained, *infeasible, *rejected]
    metric = _importances(trained, _metric)
    latency = _importances(judged, lambda t: float(np.log(_fact(t, "latency", device))))
    names = sorted({*metric, *latency}, key=lambda n: max(metric.get(n, 0.0), latency.get(n, 0.0)))
    figure = go.Figure(layout={"title": "Hyperparameter Importances", "barmode": "group"})
    for title, values, colour in (("latency", latency, GREY), (_metric_name(study), metric, BLUE)):
        figure.add_trace(
            go.Bar(name=title, y=names, x=[values.get(n, 0.0) for n in names], orientation="h", marker_color=colour)
        )
    figure.update_xaxes(title="Hyperparameter Importance")
    return figure


# -- what the study holds ---------------------------------------------------------------------------


def _sorted(study: optuna.Study, device: str | None) -> tuple[list[FrozenTrial], list[FrozenTrial], list[FrozenTrial]]:
    """Trials that were trained and fit, trained and do not fit, and that were rejected before training."""
    trials = study.get_trials(deepcopy=False)
    known = [t for t in trials if t.state == TrialState.COMPLETE and attribute_of(t).get("state") == "trained"]
    rejected = [t for t in trials if attribute_of(t).get("state") == "rejected"]
    if not known:
        raise PlotError(f"study {study.study_name!r} has no training of a LatencyObjective to plot; run it first")
    devices = attribute_of(known[0]).get("devices", {})
    if device is not None and device not in devices:
        names = ", ".join(devices) or "none by name; leave device out"
        raise PlotError(f"no device {device!r} in study {study.study_name!r}; it has {names}")
    fits = [t for t in known if all(c <= 0 for c in t.constraints.values())]
    step = max(1, -(-len(rejected) // _MOST_REJECTED))
    return fits, [t for t in known if t not in fits], rejected[::step]


def _fact(trial: FrozenTrial, name: str, device: str | None) -> float:
    attribute = attribute_of(trial)
    return float((attribute if device is None else attribute["devices"][device])[name])


def _metric(trial: FrozenTrial) -> float:
    return float(attribute_of(trial)["metric"])


def _maximised(study: optuna.Study) -> bool:
    return study.directions[0].name == "MAXIMIZE"


def _metric_name(study: optuna.Study) -> str:
    names = study.metric_names
    return names[0].partition(" (")[0] if names else "metric"


def _limit(study: optuna.Study, device: str | None) -> float | None:
    """The budget of latency (s), where the study has one."""
    budget: Mapping[str, float] = study.user_attrs.get(ATTRIBUTE, {}).get("budget", {})
    if device is not None:
        return budget.get(f"latency@{device}")
    return next((most for key, most in budget.items() if key.partition("@")[0] == "latency"), None)


def _front(study: optuna.Study, trials: Sequence[FrozenTrial], device: str | None) -> list[int]:
    """Numbers of the trials that no other beats in both, by rising latency."""
    sign = 1.0 if _maximised(study) else -1.0
    order = scoring.front([_fact(t, "latency", device) for t in trials], [sign * _metric(t) for t in trials])
    return [trials[int(i)].number for i in order]


def _blocks(breakdown: Mapping[str, Any], device: str | None, depth: int) -> dict[str, float]:
    """Seconds by block of one architecture."""
    devices = breakdown["devices"]
    parts = next(iter(devices.values()))["parts"] if device is None else devices[device]["parts"]
    costs: dict[str, float] = {}
    for part in parts:
        name = ".".join(part["name"].split(".")[:depth])
        costs[name] = costs.get(name, 0.0) + part["latency_s"]
    return costs


def _importances(trials: Sequence[FrozenTrial], target: Callable[[FrozenTrial], float]) -> dict[str, float]:
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
    return f" on {device}" if device else ""


def _hover(trial: FrozenTrial, device: str | None) -> str:
    facts = attribute_of(trial) if device is None else attribute_of(trial)["devices"][device]
    more = [f"{k}: {facts[k]:.3g}" for k in ("intensity", "memory_share", "achieved") if k in facts]
    return "<br>".join([f"Trial {trial.number}", *(f"{k} = {v}" for k, v in trial.params.items()), *more])


def _points(
    name: str, trials: Sequence[FrozenTrial], device: str | None, colour: str,
    over: Callable[[FrozenTrial], float] | None = None,
) -> go.Scatter:  # fmt: skip
    """Trials with their intervals: metric over latency, or latency over whatever `over` gives."""
    t, low, high = (np.array([_fact(x, k, device) for x in trials]) * 1e3 for k in ("latency", "low", "high"))
    bars = {"type": "data", "symmetric": False, "array": high - t, "arrayminus": t - low, "thickness": 1}
    places = (
        {"x": t, "y": [_metric(x) for x in trials], "error_x": bars}
        if over is None
        else {"x": [over(x) for x in trials], "y": t, "error_y": bars}
    )
    text = [_hover(x, device) for x in trials]
    hover = f"%{{text}}<extra>{name}</extra>"
    return go.Scatter(name=name, mode="markers", marker={"color": colour}, text=text, hovertemplate=hover, **places)


def _rug(trials: Sequence[FrozenTrial], device: str | None) -> go.Scatter:
    """What was never trained, as ticks along the lower edge: in paper coordinates of its own axis."""
    times = [_fact(t, "latency", device) * 1e3 for t in trials]
    return go.Scatter(
        name="Infeasible Trial (not trained)", x=times, y=[0.02] * len(times), yaxis="y2", mode="markers",
        marker={"color": GREY, "symbol": "line-ns-open", "size": 10}, hoverinfo="x+name",
    )  # fmt: skip
