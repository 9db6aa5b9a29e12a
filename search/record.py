"""The record of a study: what its trials were made with, one JSON value in the study's user attribute "hwcost".

    space       the parameters that `build` asks for            (only of studies of `run_study`)
    training    the function that trains, and its settings       (`identity`)
    data        the name of what it trains on
    model       of each device the target, and a digest of the model's data
    lookup      of a model of one's own what it states or holds
    form, metric, budget, confidence, against, across, weight    of the objective

A search goes on with a study only where all parts are equal. A model of one's own that states no digest is asked again
for architectures of the study's trials: it must tell what it told then. A part that a study of an earlier version has
not recorded is taken to be the present one, with a warning.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Collection, Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from hwcost.search.budgets import Limit
from hwcost.search.detached_trial import building_for, fixed_chooser, random_chooser, try_build
from hwcost.search.identity import Watched, digest, settings_of, without
from hwcost.search.judging import Judgement
from hwcost.search.once import ATTRIBUTE, attribute_of
from hwcost.search.protocols import Build, LatencyModel
from hwcost.search.storage import StudyError

_SAMPLES = 64  # random architectures that show which parameters a space has
_ASKED = 200  # trials whose architectures a model of one's own is asked for again, spread over the study
_PRECISION = 1e-6  # relative; two latencies that differ by more are of different models
_OWN = ("space", "training", "data", "metric")  # parts that trainings belong to: others may differ when they are reused
_NEW = ("training", "data", "lookup")  # parts that version 0.1 did not record


class Searched(Protocol):
    """What a record needs of a LatencyObjective, which has the arguments of the same names."""

    build: Build
    models: dict[str, LatencyModel]
    data: str | None
    limits: tuple[Limit, ...]
    metric: str
    confidence: float
    against: str
    weight: float | None

    @property
    def form(self) -> str:
        """One of the forms."""

    @property
    def direction(self) -> str:
        """Of the metric."""

    @property
    def across(self) -> str | Mapping[str, float] | None:
        """How several devices become one."""

    @property
    def training(self) -> Watched:
        """What trains."""

    def judge(
        self, architecture: Any, params: Mapping[str, Any], constraints: Mapping[str, float] | None = None
    ) -> Judgement:
        """The predicted cost of an architecture, and its excess over the limits."""

    def breakdown(self, architecture: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """The cost on each device, estimated anew."""


def describe(objective: Searched, *, space: bool = True) -> dict[str, Any]:
    """What must stay the same when a study is resumed, as JSON; with or without the parameters of the space."""
    described = {
        **({"space": _parameters(objective)} if space else {}),
        "training": objective.training.settings(),
        "data": objective.data,
        "model": {name: identity_of(model) for name, model in objective.models.items()},
        "lookup": {name: content for name, model in objective.models.items() if (content := _content_of(model))},
        "form": objective.form,
        "metric": f"{objective.metric}, {objective.direction}d",
        "budget": {limit.key: limit.most for limit in objective.limits},
        "confidence": objective.confidence,
        "against": objective.against,
        "across": dict(objective.across) if isinstance(objective.across, Mapping) else objective.across,
        "weight": objective.weight,
    }
    return dict(json.loads(json.dumps(described)))


def _parameters(objective: Searched) -> dict[str, Any]:
    """The distributions of the parameters that `build` asks for, by name."""
    rng = np.random.default_rng(0)
    found: dict[str, BaseDistribution] = {}
    for _ in range(_SAMPLES):
        trial, _ = try_build(objective.build, random_chooser(rng))
        found |= trial.distributions
    return {name: _distribution(found[name]) for name in sorted(found)}


def _distribution(distribution: BaseDistribution) -> Any:
    try:
        return json.loads(distribution_to_json(distribution))
    except TypeError:  # a choice is a class or a function
        assert isinstance(distribution, CategoricalDistribution)
        return {"name": "CategoricalDistribution", "attributes": [settings_of(c) for c in distribution.choices]}


def identity_of(model: LatencyModel) -> str:
    """A text that is different for different models: the target, and a digest of the model's data.

    Of a user's own model it is the attribute `digest` where there is one, and the name of its class otherwise.
    """
    meta = getattr(model, "meta", None) or {}
    target = meta.get("target") or {name: getattr(model, name, None) for name in ("runtime", "threads")}
    known = _digest_of(model) or type(model).__qualname__
    where = [str(value) for _, value in sorted(target.items()) if value is not None]
    return " ".join([*where, str(known)])


def _digest_of(model: LatencyModel) -> Any:
    """What a model states of its own data; None where it states nothing."""
    return getattr(model, "digest", None) or (getattr(model, "meta", None) or {}).get("model") or None


def _content_of(model: LatencyModel) -> Any:
    """What tells two models of one class apart, where they have no digest; None where only their answers do."""
    rows = getattr(model, "rows", None)
    if rows is not None and hasattr(rows, "to_pydict"):  # a latency table: its times may have been edited
        return digest(rows.to_pydict())
    if _digest_of(model) is not None:
        return None
    stated = any(getattr(model, name, None) is not None for name in ("identity", "version"))
    own_state = type(model).__getstate__ is not object.__getstate__
    return settings_of(model) if stated or own_state else None


# -- comparing --------------------------------------------------------------------------------------


class Checked:
    """Remembers for one objective in one process which studies its record was compared with."""

    def __init__(self) -> None:
        self._studies: WeakKeyDictionary[BaseStorage, set[int]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def check(self, objective: Searched, study: optuna.Study, *, space: bool = False) -> None:
        """Compare the record of a study with an objective, or write it where there is none yet.

        Args:
            objective: that trials are to be made with.
            study: that they are to join.
            space: whether the parameters of the space are compared and recorded too.

        Raises:
            StudyError: a part differs.
        """
        with self._lock:
            known = self._studies.setdefault(study._storage, set())
            if study._study_id in known:
                return
            _check(objective, study, space)
            known.add(study._study_id)


def _check(objective: Searched, study: optuna.Study, space: bool) -> None:
    trials = [t for t in study.get_trials(deepcopy=False) if "latency" in attribute_of(t)]
    found = study.user_attrs.get(ATTRIBUTE)
    with building_for(study):
        wanted = describe(objective, space=space)
        if found is not None:
            compare(study.study_name, found, wanted, objective.training.changes())
        if any(_digest_of(model) is None for model in objective.models.values()) or found is None:
            _ask_again(objective, study.study_name, trials)
    missing = [part for part in _NEW if part not in (found or {})]
    if trials and missing:
        warnings.warn(
            f"study {study.study_name!r} was begun with an earlier version of hwcost, which did not record its "
            f"{', '.join(missing)}; they are taken to be those of this search",
            stacklevel=2,
        )
    if found is None or wanted.keys() - found.keys():
        study.set_user_attr(ATTRIBUTE, {**wanted, **(found or {})})


def compare(
    name: str,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    changing: Collection[str] = (),
    parts: Collection[str] | None = None,
) -> None:
    """Raise a StudyError where a part that two records share differs.

    Args:
        name: of the study.
        found: its record.
        wanted: the record of the search that is to go on with it.
        changing: settings that the training changes itself, which may differ.
        parts: that are compared; None for all.
    """
    for part in wanted:
        if part not in found or (parts is not None and part not in parts):
            continue
        was, now = found[part], wanted[part]
        if part == "training":
            was, now = without(was, changing), without(now, changing)
        if was == now:
            continue
        what, was, now = _difference({part: was}, {part: now})
        ways = "" if part in _OWN else ", take its trainings over with reuse=,"
        raise StudyError(
            f"study {name!r} was made with {what} {_short(was)}, but this search has {_short(now)}; "
            f"use another name or storage{ways} or go back"
        )


def same_trainings(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any], changing: Collection[str]) -> None:
    """Raise a StudyError where the trainings of study `name` are not those of a search with record `wanted`."""
    compare(name, found, wanted, changing, _OWN)


def _difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The path to the first entry that differs between two nested mappings, and both values."""
    what = next(k for k in {**now, **was} if was.get(k) != now.get(k))
    a, b = was.get(what), now.get(what)
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return what, a, b
    inner, a, b = _difference(a, b)
    return f"{what} {inner}", a, b


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 160 else text[:150] + "..."


# -- what a model of one's own tells of trials ------------------------------------------------------


def _ask_again(objective: Searched, name: str, trials: list[FrozenTrial]) -> None:
    """Raise a StudyError where the models tell other latencies of the trials' architectures than they told then.

    A model that measures, and so never tells the same twice, is believed.
    """
    step = max(1, len(trials) // _ASKED)
    for trial in trials[::step]:
        detached, architecture = try_build(objective.build, fixed_chooser(trial.params, np.random.default_rng(0)))
        if {k: trial.params.get(k) for k in detached.params} != detached.params:
            continue  # its parameters are of another space
        judgement = objective.judge(architecture, detached.params, detached.constraints)
        told, facts = _latencies(judgement.facts), _latencies(attribute_of(trial))
        for device in told.keys() & facts.keys():
            if not _close(told[device], facts[device]) and _repeats(objective, architecture, detached.params, told):
                at = f" on {device}" if device else ""
                raise StudyError(
                    f"study {name!r} was made with a model of {facts[device]:.6g} s{at} for trial {trial.number} "
                    f"({dict(trial.params)!r:.160}), but this search has one of {told[device]:.6g} s; use another name "
                    "or storage, take its trainings over with reuse=, or go back"
                )
        _compare_excess(name, trial, judgement.ours)


def _compare_excess(name: str, trial: FrozenTrial, ours: Mapping[str, float]) -> None:
    """Raise a StudyError where a trial had another limit."""
    for key in ours.keys() & trial.constraints.keys():
        if not _close(1 + trial.constraints[key], 1 + ours[key]):
            raise StudyError(
                f"study {name!r} was made with another budget of {key}: trial {trial.number} had "
                f"{1 + trial.constraints[key]:.4g} of its limit, and has {1 + ours[key]:.4g} of this one; use another "
                "name or storage, take its trainings over with reuse=, or go back"
            )


def _repeats(objective: Searched, architecture: Any, params: Mapping[str, Any], told: Mapping[str, float]) -> bool:
    """Whether the models tell the same latencies when they are asked once more."""
    again = [facts["latency"] for facts in objective.breakdown(architecture, params)["devices"].values()]
    return all(_close(a, b) for a, b in zip(again, told.values(), strict=True))


def _latencies(facts: Mapping[str, Any]) -> dict[str, float]:
    """Latency (s) by device; of a single one under ""."""
    devices = facts.get("devices")
    if devices:
        return {name: float(of["latency"]) for name, of in devices.items()}
    return {"": float(facts["latency"])} if "latency" in facts else {}


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= _PRECISION * max(abs(a), abs(b))
