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

__version__ = "0.1.0"

if not (Path(__file__).parent / "search" / "__init__.py").is_file():  # a checkout whose links were lost
    __path__.append(str(Path(__file__).parents[1]))

_PLACES = {
    "Cost": "cost",
    "CostModel": "model",
    "Device": "device",
    "DeviceError": "ceiling",
    "Estimate": "model",
    "Graph": "graph",
    "Kernel": "kernel",
    "LatencyTable": "table",
    "Measurement": "measure",
    "TraceError": "tracing",
    "UnknownOp": "tracing",
    "Work": "rules",
    "calibrate": "calibration",
    "free": "rules",
    "rule": "rules",
    "trace": "tracing",
}

__all__ = ["__version__", *_PLACES]

if TYPE_CHECKING:
    from hwcost.calibration import calibrate as calibrate
    from hwcost.ceiling import DeviceError as DeviceError
    from hwcost.cost import Cost as Cost
    from hwcost.device import Device as Device
    from hwcost.graph import Graph as Graph
    from hwcost.kernel import Kernel as Kernel
    from hwcost.measure import Measurement as Measurement
    from hwcost.model import CostModel as CostModel
    from hwcost.model import Estimate as Estimate
    from hwcost.rules import Work as Work
    from hwcost.rules import free as free
    from hwcost.rules import rule as rule
    from hwcost.table import LatencyTable as LatencyTable
    from hwcost.tracing import TraceError as TraceError
    from hwcost.tracing import UnknownOp as UnknownOp
    from hwcost.tracing import trace as trace


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'hwcost' has no attribute {name!r}")
    value = getattr(import_module(f"hwcost.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
