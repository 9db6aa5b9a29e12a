"""The cost model: device ceilings plus what measurements taught, for one target.

A network is lowered to the kernels that the target's runtime runs, each kernel is predicted from its roofline and the
residual (`hwcost.model.residual`), and the law of a network (`hwcost.model.overhead`) adds them up. There is one way
from a module to its kernels, `CostModel.lower`, which every command, table and objective takes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwcost.device.device import Device
from hwcost.graph import Graph
from hwcost.measure.arrays import Flat
from hwcost.measure.items import rebuild
from hwcost.measure.statistics import COVERAGE
from hwcost.measure.types import MeasurementError, Measurements, NetworkMeasurement
from hwcost.model import files
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.blocks import Assembler, composes
from hwcost.model.catalogue import Catalogue, Part, Whole, compose, distance
from hwcost.model.data import DefaultModel, ModelData, ModelError, UnmeasuredFusedAttention
from hwcost.model.estimate import Estimate
from hwcost.model.features import Columns, Target, columns, reach_of
from hwcost.model.fit import Fitted, fit
from hwcost.model.lowering import Lowering
from hwcost.model.overhead import Overhead
from hwcost.model.provenance import identity_of, provenance_of
from hwcost.model.residual import Prediction
from hwcost.model.rows import FOLDS
from hwcost.model.trees import Settings
from hwcost.runtimes.base import Network, Placed
from hwcost.runtimes.registry import get_runtime

if TYPE_CHECKING:
    from torch import nn

    from hwcost.spaces.base import Space

ANOTHER_MACHINE = "on another machine, fit on top of it: `hwcost measure`, then `hwcost fit --prior default`"


class CostModel:
    """Predicts latency on a target. Make one with `analytic`, `fit` or `load`."""

    def __init__(self, data: ModelData, quantile: str = "low", factor: float = 1.0) -> None:
        self.data = data
        self.quantile = quantile  # which latency its times are: "low", the unloaded one, or see `at_quantile`
        self._factor = factor  # how many times the unloaded latency that is
        get_runtime(data.target.runtime)  # one that does not exist is refused here
        self._catalogue = Catalogue()
        self._assembling: Assembler | None = None

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    def analytic(
        cls, device: Device | str | Path, runtime: str = "torch-eager", threads: int = 1, dtype: str = "float32"
    ) -> CostModel:
        """The roofline alone: a lower bound for every kernel, for a device nobody measured.

        Args:
            device: a `Device`, its name in the catalogue, or a device file.
            runtime, threads, dtype: of the target.
        """
        return cls(files.analytic(Target(_device(device), threads, dtype, get_runtime(runtime).name)))

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
            ModelError: too few networks, or too few of different names, or measurements of another runtime or
                thread count.
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
        names = {network.name for network in measurements.networks}
        if len(names) < FOLDS:
            raise ModelError(
                f"a fit is checked on networks that it leaves out, so it needs at least {FOLDS} of different names, "
                f"but all {len(measurements)} are called {', '.join(sorted(names))}"
            )
        target = Target(_device(device), environment.threads, environment.dtype, environment.runtime)
        chosen = settings or Settings()
        if prior is not None and not prior.is_fitted:
            raise ModelError("a prior must be a fitted model, but got the roofline alone; leave the prior out")
        fitted = fit(Flat.of(measurements), target, chosen, prior.fitted.residual if prior else None)
        today = datetime.now(UTC).date().isoformat()
        families = [network.family for network in measurements.networks]
        told = provenance_of(environment, families, today, prior.provenance if prior else "")
        return cls(
            ModelData(
                target=target, fitted=fitted, provenance=told, settings=chosen, date=today,
                prior=prior.data if prior else None, taken=measurements,
            )
        )  # fmt: skip

    def merge(self, more: Measurements) -> CostModel:
        """A new model fitted on this one's measurements and `more`, of the same environment."""
        both = self.measurements + more if self.measurements is not None else more
        fitted = CostModel.fit(
            both, device=self.device, runtime=self.runtime, threads=self.threads, settings=self.settings,
            prior=self.prior,
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
        from hwcost.measure.quantiles import quantile_factor, quantile_name

        if self.measurements is None:
            raise ModelError(
                f"the roofline alone knows no {quantile_name(quantile)} latency; fit a model with `hwcost fit`"
            )
        return CostModel(self.data, quantile_name(quantile), quantile_factor(self.measurements, quantile))

    # -- what it says -----------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        """What it predicts for: device, threads, dtype and runtime."""
        return self.data.target

    @property
    def device(self) -> Device:
        """The device whose ceilings it uses."""
        return self.target.device

    @property
    def runtime(self) -> str:
        """Name of the target's runtime."""
        return self.target.runtime

    @property
    def threads(self) -> int:
        """Threads of the target."""
        return self.target.threads

    @property
    def settings(self) -> Settings:
        """How its trees were grown."""
        return self.data.settings

    @property
    def date(self) -> str:
        """Day of the fit (ISO 8601); "" for the roofline alone."""
        return self.data.date

    @property
    def measurements(self) -> Measurements | None:
        """What it was fitted on, read when it is first asked for; None for the roofline alone."""
        return self.data.measurements

    @cached_property
    def prior(self) -> CostModel | None:
        """The model that it was fitted on top of, where there is one."""
        return CostModel(self.data.prior) if self.data.prior else None

    @property
    def is_fitted(self) -> bool:
        """False for the roofline alone."""
        return self.data.is_fitted

    @cached_property
    def fitted(self) -> Fitted:
        """What the fit gave, in times of this model's quantile."""
        fitted = self.data.fitted
        return fitted if self._factor == 1.0 else replace(fitted, overhead=fitted.overhead.slower(self._factor))

    @property
    def held_out(self) -> Accuracy | None:
        """Accuracy on networks held out of the fit (five folds by network); None for the roofline alone."""
        return self.data.fitted.held_out

    @property
    def overhead(self) -> Overhead:
        """What lies between kernels and network (`hwcost.model.overhead`)."""
        return self.fitted.overhead

    @property
    def interval(self) -> dict[str, float]:
        """How errors become an interval: the `common` error, `z`, and the stated `confidence` (a share)."""
        errors = self.fitted.errors
        return {"common": errors.common, "z": errors.z, "confidence": self.confidence}

    @property
    def confidence(self) -> float:
        """Coverage of the intervals; 0 for the roofline alone, which is a bound without an interval."""
        return COVERAGE if self.is_fitted else 0.0

    @cached_property
    def digest(self) -> str:
        """Identity of the model, its data and its trees, but not of the day of the fit: 20 hex digits."""
        times = "" if self.quantile == "low" else self.quantile
        return hashlib.sha256((identity_of(files.members(self.data)) + times).encode()).hexdigest()[:20]

    @property
    def provenance(self) -> str:
        """In one line, what it was fitted on: machine, runtime with its versions, threads, day, networks."""
        return self.data.provenance

    @property
    def counts(self) -> Mapping[tuple[str, int], int]:
        """How often each kernel was measured, by its digest and the bucket of its reuse distance."""
        return self.data.counts

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

    def estimate_many(self, networks: Sequence[Any], *, space: Space | None = None) -> list[Estimate]:
        """Latency of many networks in one vectorised pass.

        Args:
            networks: each a graph, a lowered network, or a pair (module, inputs); with `space`, the
                parameters of architectures of it.
            space: a search space. Each distinct block of it is traced once, and an architecture is the
                sequence of its blocks: thousands a second instead of tens. What a runtime does across the
                border of two blocks is left out, as in a `LatencyTable`; networks of a space so fine that
                it would matter are traced whole.
        """
        if space is not None and not composes(space, self.runtime):
            networks = [(space.build(params).eval(), space.inputs(params)) for params in networks]
        elif space is not None:
            return self._compose(self._assembler(space).wholes(networks))
        return self._estimates([self.lower(*n) if isinstance(n, tuple) else self.lower(n) for n in networks])

    def graph(self, network: nn.Module | Graph, inputs: Any = None, kwargs: dict[str, Any] | None = None) -> Graph:
        """The graph of a network as this model lowers it; arguments and errors as of `estimate`.

        torch's fused attention layers stay one op where the runtime runs them so and the model has measured them;
        elsewhere they are taken by their parts (`Graph.by_parts`).
        """
        if not isinstance(network, Graph):
            from hwcost.tracing.trace import trace

            if inputs is None:
                raise ModelError(
                    "a module needs example inputs to be estimated, but got none; "
                    "pass inputs=(x,), meta tensors suffice"
                )
            network = trace(network, inputs, kwargs)
        return self.lowering.form(network)

    @cached_property
    def lowering(self) -> Lowering:
        """How it makes kernels of graphs."""
        return Lowering(self.target, self.fitted.residual.kinds if self.is_fitted else None)

    def lower(
        self, network: Any, inputs: Any = None, kwargs: dict[str, Any] | None = None, *, part: bool = False
    ) -> Network:
        """The kernels that this model's runtime makes of a network, or of a `part` of one that runs between the
        others; arguments and errors as of `estimate`."""
        if isinstance(network, Network):
            if network.runtime != self.runtime:
                raise ModelError(
                    f"this model is of runtime {self.runtime}, but the network was lowered for {network.runtime}"
                )
            return network
        return self.lowering.kernels(self.graph(network, inputs, kwargs), part=part)

    def lower_measured(self, measurements: Measurements) -> list[Network]:
        """Measured networks as the kernels that were measured.

        A network that ran fused attention layers of which this model has measured none is built again and lowered as
        `lower` does, so that its estimate is the one that everybody gets; where it cannot be built, a warning says so
        and its measured kernels stand.
        """
        return [self._lower_measured(network) for network in measurements.networks]

    def _lower_measured(self, network: NetworkMeasurement) -> Network:
        if self.lowering.takes_apart({m.kernel.kind for m in network.kernels}):
            try:
                return self.lower(*rebuild(network.spec))
            except MeasurementError as error:
                warnings.warn(
                    f"{network.name} ran fused attention layers, of which this model has measured none, and cannot be "
                    f"built again to take them by their parts ({error}): its estimate is a guess; measure networks "
                    "with such layers and fit again",
                    UnmeasuredFusedAttention,
                    stacklevel=2,
                )
        placed = tuple(Placed(m.kernel, m.module, m.distance) for m in network.kernels)
        return Network(placed, network.calls, self.runtime)

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
        """Write the model: its device, measurements, settings and trees (`hwcost.model.files`). No pickle.

        Raises:
            ModelError: the file cannot be written.
        """
        files.save(self.data, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, runtime: str | None = None, threads: int | None = None) -> CostModel:
        """Read a model. Nothing is fitted, but for a file of format 1, which holds no trees and says so.

        Args:
            path: of the file, or `default` for the shipped model of `runtime` (torch-eager) and
                `threads` (1), with a warning that says what it was fitted on.
            runtime, threads: must be the file's where given.

        Raises:
            ModelError: no such file, not a model, of another runtime or thread count, or a newer format.
        """
        is_default = str(path) == "default"
        place = files.shipped_path(runtime or "torch-eager", threads or 1) if is_default else Path(path)
        model = cls(files.load(place))
        for name, asked, has in (("runtime", runtime, model.runtime), ("threads", threads, model.threads)):
            if asked is not None and asked != has:
                raise ModelError(f"model {path} is of {name} {has}, but {name} {asked} was asked; leave it out")
        if is_default:
            warnings.warn(f"the default model was {model.provenance}; {ANOTHER_MACHINE}", DefaultModel, stacklevel=2)
        return model

    # -- inside -----------------------------------------------------------------------------------

    def _estimates(self, networks: Sequence[Network]) -> list[Estimate]:
        parts = self._parts([(network, self._reach(network.traffic)) for network in networks])
        return self._compose([Whole((("", part),)) for part in parts])

    def _parts(self, networks: Sequence[tuple[Network, int]]) -> list[Part]:
        """Rows of the catalogue, after predicting the kernels not seen before, all at once; each network, or part
        of one, with the reach of the whole."""
        keys = self._catalogue.unknown((p, reach) for network, reach in networks for p in network.kernels)
        if keys:
            pairs = [(kernel, distance(bucket)) for kernel, bucket, _ in keys]
            data = columns(pairs, self.target, [reach for *_, reach in keys])
            self._catalogue.add(keys, data, self._predict(data), self.fitted.errors.shared)
        return [self._catalogue.part(network.kernels, network.calls, reach) for network, reach in networks]

    def _reach(self, traffic: float) -> int:
        """Of a network with that traffic (byte); always 1 for the roofline alone, which has no use for it."""
        return reach_of(traffic, self.device) if self.is_fitted else 1

    def _assembler(self, space: Space) -> Assembler:
        if self._assembling is None or self._assembling.space is not space:
            self._assembling = Assembler(space, partial(self.lower, part=True), self._parts, self._reach)
        return self._assembling

    def _predict(self, data: Columns) -> Prediction:
        if not self.is_fitted:
            none = np.zeros(len(data.kinds), dtype=bool)
            return Prediction(data.roofline, np.zeros(len(none)), none, none)
        return self.fitted.residual.predict(data, self.fitted.errors.sigma)

    def _compose(self, wholes: Sequence[Whole]) -> list[Estimate]:
        notes: tuple[str, ...] = ()
        if not self.is_fitted:
            notes = ("the roofline alone: a lower bound, not a prediction",)
        elif self.quantile != "low":
            notes = (f"the {self.quantile} latency, not the unloaded one",)
        errors = self.fitted.errors
        like = Estimate(
            latency=0.0, low=0.0, high=0.0, confidence=self.confidence, overhead=0.0, kernels=(),
            common=errors.common, z=errors.z, notes=notes,
        )  # fmt: skip
        return compose(wholes, self._catalogue, self.fitted, like)


def _device(device: Device | str | Path) -> Device:
    return device if isinstance(device, Device) else Device.load(device)
