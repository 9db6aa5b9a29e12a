"""Cost models as options name them, and their accuracy as JSON values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hwcost.cli.output import say

if TYPE_CHECKING:
    from hwcost.model.accuracy import Accuracy
    from hwcost.model.cost_model import CostModel


@contextmanager
def warnings_said(always: type[Warning]) -> Iterator[None]:
    """Say warnings as messages of one line, also where an error ends it; `always` those of this class.

    Python itself shows a warning of one place once only.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", always)
        try:
            yield
        finally:
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                say(message)


def load_model(
    name: str, *, runtime: str | None = None, threads: int | None = None, quantile: str = "low"
) -> CostModel:
    """The model that --model names, whose estimates are of the latency that --quantile names.

    `default` is the shipped model of the runtime and thread count, torch-eager on one thread where none is given. A
    message on standard error then says that it was measured on another machine.

    Raises:
        ModelError: there is no such model, or it is of another runtime or thread count than was asked for.
        MeasurementError: there is no such quantile, or it cannot be told from the model's measurements.
    """
    from hwcost.model.cost_model import CostModel
    from hwcost.model.data import DefaultModel

    with warnings_said(DefaultModel):
        model = CostModel.load(name, runtime=runtime, threads=threads)
    return model if quantile == "low" else model.at_quantile(quantile)


def model_or_roofline(
    device: str, model: str, runtime: str | None, threads: int | None, dtype: str, quantile: str = "low"
) -> CostModel:
    """The model that --model names or, where --device is given in its place, the roofline of that device alone."""
    from hwcost.model.cost_model import CostModel

    if model:
        return load_model(model, runtime=runtime, threads=threads, quantile=quantile)
    bound = CostModel.analytic(device, runtime or "torch-eager", threads or 1, dtype)
    return bound if quantile == "low" else bound.at_quantile(quantile)


def accuracy_document(accuracy: Accuracy) -> dict[str, Any]:
    """The figures of an accuracy as JSON values: shares and relative errors, as fractions, and a rank correlation.

    "clock" stands for how well measurements repeat: "within_5_or_clock" is the share of networks whose error is at most
    5 % or the spread of their measurement, "clock_above_5" that of networks with a spread above 5 %.
    """
    return errors_document(accuracy) | {
        "within_5_or_clock": accuracy.within_clock(0.05),
        "within_10_or_clock": accuracy.within_clock(0.10),
        "clock_above_5": accuracy.wider_clock(0.05),
        "clock": accuracy.clock,
        "coverage_of_interval": accuracy.coverage_of_interval,
        "width": accuracy.width,
        "shift": accuracy.shift,
    }


def errors_document(accuracy: Accuracy) -> dict[str, Any]:
    """The figures that a baseline has too: they need neither an interval nor the spread of measurements."""
    return {
        "within_5": accuracy.within(0.05),
        "within_10": accuracy.within(0.10),
        "mape": accuracy.mape,
        "spearman": accuracy.spearman,
    }
