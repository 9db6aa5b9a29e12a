"""hwcost: how long a neural architecture takes on a given target, before anyone trains it.

    graph = hwcost.trace(module, (x,))                    # macs, flops, bytes, peak memory
    device = hwcost.Device.load("intel-i9-10980xe")
    model = hwcost.CostModel.analytic(device)
    model.estimate(graph).latency                         # seconds

Importing this package loads neither torch nor scikit-learn, pandas or numpy; they come when first used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwcost.version import __version__

if not (Path(__file__).parent / "search" / "__init__.py").is_file():  # a checkout whose links were lost
    __path__.append(str(Path(__file__).parents[1]))

_PLACES = {
    "Cost": "cost",
    "CostModel": "model.cost_model",
    "Device": "device.device",
    "DeviceError": "device.ceilings",
    "Estimate": "model.estimate",
    "Graph": "graph",
    "Kernel": "kernel",
    "LatencyTable": "table.table",
    "Measurement": "measure.types",
    "TraceError": "tracing.trace",
    "UnknownOp": "tracing.trace",
    "Work": "rules.registry",
    "calibrate": "calibration.run",
    "free": "rules.registry",
    "register_runtime": "runtimes.registry",
    "rule": "rules.registry",
    "trace": "tracing.trace",
}

__all__ = ["__version__", *_PLACES]

if TYPE_CHECKING:
    from hwcost.calibration.run import calibrate as calibrate
    from hwcost.cost import Cost as Cost
    from hwcost.device.ceilings import DeviceError as DeviceError
    from hwcost.device.device import Device as Device
    from hwcost.graph import Graph as Graph
    from hwcost.kernel import Kernel as Kernel
    from hwcost.measure.types import Measurement as Measurement
    from hwcost.model.cost_model import CostModel as CostModel
    from hwcost.model.estimate import Estimate as Estimate
    from hwcost.rules.registry import Work as Work
    from hwcost.rules.registry import free as free
    from hwcost.rules.registry import rule as rule
    from hwcost.runtimes.registry import register_runtime as register_runtime
    from hwcost.table.table import LatencyTable as LatencyTable
    from hwcost.tracing.trace import TraceError as TraceError
    from hwcost.tracing.trace import UnknownOp as UnknownOp
    from hwcost.tracing.trace import trace as trace


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'hwcost' has no attribute {name!r}")
    value = getattr(import_module(f"hwcost.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
