"""The cost model: device ceilings plus what measurements taught, for one target.

    t(network) = sum_k (scale * t(kernel k) + per_kernel) + per_call * calls + fixed       (1)

The kernels' times come from the roofline and its residual (`hwcost.model.residual`); the four numbers
of (1), the runtime's overhead (`hwcost.model.fit.Overhead`), are fitted on whole networks. A model
is its data: the file holds the device, the measurements and the settings, and is fitted again when
it is loaded.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwcost.device.device import Device
from hwcost.graph import Graph
from hwcost.measure.arrays import Flat
from hwcost.measure.types import Measurements
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.blocks import Assembler, composes
from hwcost.model.catalogue import Catalogue, Part, Whole, compose, distance
from hwcost.model.estimate import BlockEstimate, Estimate, KernelEstimate
from hwcost.model.features import Columns, Target, columns, reach_of
from hwcost.model.fit import Errors, Fitted, Overhead, fit
from hwcost.model.provenance import About, counts_of, identity_of, provenance_of
from hwcost.model.residual import Prediction, Residual, Settings
from hwcost.runtimes.base import Network, Placed, traced
from hwcost.runtimes.registry import get_runtime

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BlockEstimate", "CostModel", "Estimate", "KernelEstimate", "ModelError"]

CONFIDENCE = 0.9
ANOTHER_MACHINE = "on another machine, fit on top of it: `hwcost measure`, then `hwcost fit --prior default`"


class ModelError(ValueError):
    """A model that cannot be fitted, read or used for this target."""


class DefaultModel(UserWarning):
    """A shipped model is used: it knows the machine it was fitted on."""


class CostModel:
    """Predicts latency on a target. Make one with `analytic`, `fit` or `load`."""

    def __init__(
        self,
        target: Target,
        runtime: str,
        fitted: Fitted,
        measurements: Measurements | Callable[[], Measurements] | None = None,
        settings: Settings | None = None,
        prior: CostModel | None = None,
        date: str = "",
        about: About | None = None,
    ) -> None:
        self.target = target
        self.date = date
        self.prior = prior
        self.runtime = runtime
        self._measured = measurements
        self._about = about
        self.settings = settings or Settings()
        self._runtime = get_runtime(runtime)
        self.fitted = fitted
        self.quantile = "low"  # what its times mean: the unloaded latency, or see `at_quantile`
        self._catalogue = Catalogue()
        self._assembling: Assembler | None = None

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    def analytic(
        cls, device: Device | str | Path, runtime: str = "torch-eager", threads: int = 1, dtype: str = "float32"
    ) -> CostModel:
        """The roofline alone: a lower bound for every kernel, for a device nobody measured."""
        target = Target(_device(device), threads, dtype, runtime)
        fitted = Fitted(Residual(), Overhead(), Errors({}, 0.0, 0.0, 0.0, None))
        return cls(target, runtime, fitted)

    @classmethod
    def fit(
        cls,
        measurements: Measurements,
        *,
        device: Device | str | Path,
        runtime: str | None = None,
        threads: int | None = None,
        settings: Settings | None = None,
        prior: CostModel | None = None,
    ) -> CostModel:
        """Learn from measured networks and their kernels.

        Args:
            measurements: of one environment, at least ten networks.
            device: where they were taken; its ceilings normalise every kernel.
            runtime, threads: must be those of the measurements where given.
            settings: of the trees.
            prior: a fitted model of another machine, runtime or thread count, whose data say what is
                not measured here.

        Raises:
            ModelError: too few networks, or measurements of another runtime or thread count.
        """
        environment = measurements.environment
        pairs = ("runtime", runtime, environment.runtime), ("threads", threads, environment.threads)
        for name, asked, found in pairs:
            if asked is not None and asked != found:
                raise ModelError(
                    f"a model is fitted on measurements of its own {name}, but {name}={asked} was asked "
                    f"and they were taken with {found}"
                )
        if len(measurements) < 10:
            raise ModelError(
                f"a fit needs at least 10 measured networks, but got {len(measurements)}; "
                "measure more with `hwcost measure`"
            )
        target = Target(_device(device), environment.threads, environment.dtype, environment.runtime)
        chosen = settings or Settings()
        if prior is not None and not prior.is_fitted:
            raise ModelError("a prior must be a fitted model, but got the roofline alone; leave the prior out")
        fitted = fit(Flat.of(measurements), target, chosen, prior.fitted.residual if prior else None)
        today = datetime.now(UTC).date().isoformat()
        return cls(target, environment.runtime, fitted, measurements, chosen, prior, today)

    def merge(self, more: Measurements) -> CostModel:
        """A new model fitted on this one's measurements and `more`, of the same environment."""
        both = self.measurements + more if self.measurements is not None else more
        fitted = CostModel.fit(
            both, device=self.target.device, runtime=self.runtime, threads=self.threads,
            settings=self.settings, prior=self.prior,
        )  # fmt: skip
        return fitted if self.quantile == "low" else fitted.at_quantile(self.quantile)

    def at_quantile(self, quantile: str) -> CostModel:
        """A model whose times are those that a user meets: "typical" (half of the runs take no longer) or
        "tail" (95 % of them); "low" is the unloaded latency.

        Every time is the unloaded one multiplied by the target's factor (`hwcost.measure.quantiles`). A
        saved model is the unloaded one.

        Raises:
            ModelError: the roofline alone, which knows of no run.
            MeasurementError: no such quantile, or nothing measured tells it.
        """
        from hwcost.measure.quantiles import factor, named

        if self.measurements is None:
            raise ModelError(f"the roofline alone knows no {named(quantile)} latency; fit a model with `hwcost fit`")
        times = factor(self.measurements, quantile)
        fitted = replace(self.fitted, overhead=self.fitted.overhead.slower(times))
        slower = CostModel(
            self.target, self.runtime, fitted, self._measured, self.settings, self.prior, self.date, self._about
        )  # fmt: skip
        slower.quantile = named(quantile)
        return slower

    # -- what it says -----------------------------------------------------------------------------

    @property
    def device(self) -> Device:
        """The device whose ceilings it uses."""
        return self.target.device

    @property
    def threads(self) -> int:
        """Threads of the target."""
        return self.target.threads

    @cached_property
    def measurements(self) -> Measurements | None:
        """What it was fitted on, read when it is first asked for; None for the roofline alone."""
        return self._measured() if callable(self._measured) else self._measured

    @property
    def is_fitted(self) -> bool:
        """False for the roofline alone."""
        return self._measured is not None

    @property
    def held_out(self) -> Accuracy | None:
        """Accuracy on networks held out of the fit (five folds by network); None for the roofline alone."""
        return self.fitted.held_out

    @property
    def overhead(self) -> Overhead:
        """What lies between kernels and network, eq. (1)."""
        return self.fitted.overhead

    @property
    def interval(self) -> dict[str, float]:
        """What makes an interval of errors: `common` error, `z`, stated `confidence`."""
        return {"common": self.fitted.common, "z": self.fitted.z, "confidence": self.confidence}

    @property
    def confidence(self) -> float:
        """Coverage of the intervals; 0 for the roofline alone, which is a bound without an interval."""
        return CONFIDENCE if self.is_fitted else 0.0

    @cached_property
    def digest(self) -> str:
        """Identity of the model's data: 20 hex digits; the day of the fit is no part of it."""
        from hwcost.model.files import members

        identity = self._about.identity if self._about else identity_of(members(self))
        times = "" if self.quantile == "low" else self.quantile
        return hashlib.sha256((identity + times).encode()).hexdigest()[:20]

    @property
    def provenance(self) -> str:
        """In one line, what it was fitted on: machine, runtime with its versions, threads, day, networks."""
        if self._about:
            return self._about.provenance
        if self.measurements is None:
            return f"the roofline of {self.device.name} alone"
        held, prior = self.measurements, self.prior.provenance if self.prior is not None else ""
        return provenance_of(held.environment, [n.family for n in held.networks], self.date, prior)

    @cached_property
    def counts(self) -> Mapping[tuple[str, int], int]:
        """How often each kernel was measured, by its digest and the bucket of its reuse distance."""
        if self._about:
            return self._about.counts
        return counts_of(Flat.of(self.measurements)) if self.measurements is not None else {}

    def estimate(
        self, network: nn.Module | Graph | Network, inputs: Any = None, kwargs: dict[str, Any] | None = None
    ) -> Estimate:
        """Latency of one network.

        Args:
            network: a module (traced with `inputs`), a traced graph, or a lowered network.
            inputs: example inputs of a module, meta tensors suffice.
            kwargs: keyword inputs of a module.

        Raises:
            ModelError: a module without inputs, or a network lowered for another runtime.
            TraceError: the module's forward cannot be followed.
        """
        return self._estimates([self.lower(network, inputs, kwargs)])[0]

    def estimate_many(self, networks: Sequence[Any], *, space: Any = None) -> list[Estimate]:
        """Latency of many networks in one vectorised pass.

        Args:
            networks: each a graph, a lowered network, or a pair (module, inputs); with `space`, the
                parameters of architectures of it.
            space: a `hwcost.spaces.base.Space`. Each distinct block of it is traced once, ever, and an
                architecture is the sequence of its blocks: thousands a second instead of tens. What a
                runtime does across the border of two blocks is left out, as in a `LatencyTable`; networks
                of a space so fine that it would matter are traced whole.
        """
        if space is not None and not composes(space, self.runtime):
            networks = [(space.build(params).eval(), space.inputs(params)) for params in networks]
        elif space is not None:
            return self._compose(self._assembler(space).wholes(networks))
        return self._estimates([self.lower(*n) if isinstance(n, tuple) else self.lower(n) for n in networks])

    def lower(
        self, network: Any, inputs: Any = None, kwargs: dict[str, Any] | None = None, *, part: bool = False
    ) -> Network:
        """The kernels that this model's runtime makes of a network, or of a part of one between the others;
        arguments and errors as of `estimate`."""
        if isinstance(network, Network):
            if network.runtime != self.runtime:
                raise ModelError(
                    f"this model is of runtime {self.runtime}, but the network was lowered for {network.runtime}"
                )
            return network
        if not isinstance(network, Graph):
            if inputs is None:
                raise ModelError(
                    "a module needs example inputs to be estimated, but got none; "
                    "pass inputs=(x,), meta tensors suffice"
                )
            network = traced(network, inputs, kwargs, self._runs_fused)
        graph = network.unstacked() if part else network
        return self._runtime.lower(graph, part=part, lanes=self.device.lanes)

    def _runs_fused(self, kinds: frozenset[str]) -> bool:
        """Whether torch's fused attention layers run as they are here, and somebody measured them."""
        return self.runtime.startswith("torch") and not (self.is_fitted and kinds - self.fitted.residual.kinds)

    def lower_measured(self, measurements: Measurements) -> list[Network]:
        """Measured networks as the kernels that were measured."""
        return [
            Network(tuple(Placed(m.kernel, m.module, m.distance) for m in n.kernels), n.calls, self.runtime)
            for n in measurements.networks
        ]

    def evaluate(self, measurements: Measurements) -> Accuracy:
        """Predicted against measured, for networks that this model did not see.

        A model `at_quantile` is held to that quantile of the measurements.

        Raises:
            ModelError: measurements of another runtime or thread count.
            MeasurementError: a quantile of networks that were timed in one round only.
        """
        taken = measurements.environment
        if (taken.runtime, taken.threads) != (self.runtime, self.threads):
            raise ModelError(
                f"a model is evaluated on measurements of its own runtime and threads, {self.runtime} on "
                f"{self.threads}, but these were taken with {taken.runtime} on {taken.threads}"
            )
        estimates = self.estimate_many(self.lower_measured(measurements))
        pairs = zip(measurements.networks, estimates, strict=True)
        return Accuracy(tuple(Comparison.of(n.name, e, n.timing, self.quantile) for n, e in pairs))

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the model's data: device, measurements, settings, format version. No pickle."""
        from hwcost.model.files import save

        save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, runtime: str | None = None, threads: int | None = None) -> CostModel:
        """Read a model's data and fit it again, or recall the fit.

        Args:
            path: of the file, or `default` for the shipped model of `runtime` (torch-eager) and
                `threads` (1), with a warning that says what it was fitted on.
            runtime, threads: must be the file's where given.

        Raises:
            ModelError: no such file, not a model, of another runtime or thread count, or a newer format.
        """
        from hwcost.model.files import load, shipped_path

        is_default = str(path) == "default"
        model = load(shipped_path(runtime or "torch-eager", threads or 1) if is_default else Path(path))
        for name, asked, has in (("runtime", runtime, model.runtime), ("threads", threads, model.threads)):
            if asked is not None and asked != has:
                raise ModelError(f"model {path} is of {name} {has}, but {name} {asked} was asked; leave it out")
        if is_default:
            warnings.warn(f"the default model was {model.provenance}; {ANOTHER_MACHINE}", DefaultModel, stacklevel=2)
        return model

    # -- inside -----------------------------------------------------------------------------------

    def _estimates(self, networks: Sequence[Network]) -> list[Estimate]:
        return self._compose(
            [Whole((("", part),)) for part in self._parts([(n, self._reach(n.traffic)) for n in networks])]
        )

    def _parts(self, networks: Sequence[tuple[Network, int]]) -> list[Part]:
        """Rows of the catalogue, after predicting the kernels not seen before, all at once; each network, or part
        of one, with the reach of the whole."""
        keys = self._catalogue.unknown((p, reach) for network, reach in networks for p in network.kernels)
        if keys:
            pairs = [(kernel, distance(bucket)) for kernel, bucket, _ in keys]
            data = columns(pairs, self.target, [reach for *_, reach in keys])
            self._catalogue.add(keys, data, self._predict(data), self.fitted.shared)
        return [self._catalogue.part(network.kernels, network.calls, reach) for network, reach in networks]

    def _reach(self, traffic: float) -> int:
        """Of a network with that traffic (byte), for which the roofline alone has no use."""
        return reach_of(traffic, self.device) if self.is_fitted else 1

    def _assembler(self, space: Any) -> Assembler:
        if self._assembling is None or self._assembling.space is not space:
            self._assembling = Assembler(space, partial(self.lower, part=True), self._parts, self._reach)
        return self._assembling

    def _predict(self, data: Columns) -> Prediction:
        if not self.is_fitted:
            none = np.zeros(len(data.kinds), dtype=bool)
            return Prediction(data.roofline, np.zeros(len(none)), none, none)
        return self.fitted.residual.predict(data, self.fitted.sigma)

    def _compose(self, wholes: Sequence[Whole]) -> list[Estimate]:
        notes: tuple[str, ...] = ()
        if not self.is_fitted:
            notes = ("the roofline alone: a lower bound, not a prediction",)
        elif self.quantile != "low":
            notes = (f"the {self.quantile} latency, not the unloaded one",)
        like = Estimate(
            latency=0.0, low=0.0, high=0.0, confidence=self.confidence, overhead=0.0, kernels=(),
            common=self.fitted.common, z=self.fitted.z, notes=notes,
        )  # fmt: skip
        return compose(wholes, self._catalogue, self.fitted, like)


def _device(device: Device | str | Path) -> Device:
    return device if isinstance(device, Device) else Device.load(device)
