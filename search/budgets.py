"""Budgets: what an architecture may cost, in which quantity, on which device, in which block.

A budget names quantities and their limits, each limit a text with a unit or a number in SI units:

    "5 ms"                                         latency
    {"latency": "5 ms", "peak_memory": "2 MB"}     several quantities
    {"phone": "20 ms", "server": "2 ms"}           several devices, by the names of their models
    {"phone": {"latency": "20 ms", "params": 5e6}} both
    {"blocks.stages.0": "1 ms"}                    the latency of a part of the architecture: of all blocks at or below
                                                   a module path; 0 for an architecture that has none there

A limit on latency may ask for a margin. An estimate t with an interval [low, high] that covers the true latency with
probability c, and an error of log t taken as normal, gives the probability that the true latency is at most T:

    P(true latency <= T) = Phi( ln(T / t) / s ),   s = ln(high / t) / z,   Phi(z) = (1 + c) / 2        (1)

Hence P >= p is the same as t * exp(s * Phi^-1(p)) <= T. With p = 0.5 the left side is t itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from hwcost import units
from hwcost.device.ceilings import Energy
from hwcost.graph import Graph
from hwcost.measure.statistics import COVERAGE
from hwcost.search.protocols import Estimate

Amount = str | float
Budget = Amount | Mapping[str, Amount | Mapping[str, Amount]] | None

_DIMENSIONS: Mapping[str, units.Dimension | None] = {
    "latency": "second",
    "peak_memory": "byte",
    "bytes": "byte",
    "flops": "flop",
    "macs": "mac",
    "params": None,  # a plain number
    "energy": "joule",
}
QUANTITIES = tuple(_DIMENSIONS)
_BLOCK = "blocks."  # what the quantity of a block's latency begins with
GENERIC = Energy(
    per_flop=2.3e-12,
    per_byte=160e-12,
    source="M. Horowitz, ISSCC 2014: at 45 nm a float32 multiply-add takes 4.6 pJ, DRAM at least 1.3 nJ per 64 bit",
)  # for devices whose file has no energies


class BudgetError(ValueError):
    """A budget that cannot be used: the rule, the value, the next step."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` (SI units) of `quantity` on `device`."""

    key: str  # name of the constraint in the study: the quantity, and "@" with the device where there are several
    device: str
    quantity: str  # one of QUANTITIES, or "blocks." and a module path
    most: float

    @property
    def is_of_block(self) -> bool:
        """Whether it limits the latency of a part of the architecture."""
        return self.quantity.startswith(_BLOCK)

    def excess(self, value: float) -> float:
        """value / limit - 1, which is at most 0 within the limit, as Optuna's constraints are."""
        return value / self.most - 1.0


# -- reading a budget -----------------------------------------------------------------------------


def parse_budget(budget: Budget, devices: tuple[str, ...]) -> tuple[Limit, ...]:
    """Every limit of a budget; `devices` are the names of the models.

    Raises:
        BudgetError: a quantity or device is unknown, or a limit is not above 0.
        units.UnitError: a text has no number or no unit.
    """
    if budget is None:
        return ()
    entries: list[tuple[str, str, Amount]] = []  # (device, quantity, amount)
    for key, value in (budget if isinstance(budget, Mapping) else {"latency": budget}).items():
        if isinstance(value, Mapping):
            if key not in devices:
                raise BudgetError(f"budget of {key!r}: no model has that name; the models are {', '.join(devices)}")
            entries += [(key, quantity, amount) for quantity, amount in value.items()]
        elif key in devices:
            entries.append((key, "latency", value))
        else:
            entries += [(device, key, value) for device in devices]
    several = len(devices) > 1
    return tuple(_limit(device, quantity, amount, several) for device, quantity, amount in entries)


def _limit(device: str, quantity: str, amount: Amount, several: bool) -> Limit:
    if quantity not in QUANTITIES and not quantity.startswith(_BLOCK):
        raise BudgetError(
            f"no quantity or model {quantity!r} to budget; choose from {', '.join(QUANTITIES)}, blocks.NAME, {device}"
        )
    dimension = dimension_of(quantity)
    most = units.parse(amount, dimension) if dimension else _plain_number(quantity, amount)
    if most <= 0:
        raise BudgetError(f"a budget must be above 0, but got {quantity} = {amount!r}")
    key = f"{quantity}@{device}" if several else quantity
    return Limit(key, device, quantity, most)


def dimension_of(quantity: str) -> units.Dimension | None:
    """The dimension of a quantity; None for a plain number."""
    return "second" if quantity.startswith(_BLOCK) else _DIMENSIONS[quantity]


def _plain_number(quantity: str, amount: Amount) -> float:
    try:
        number = float(amount)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(amount, bool) or not math.isfinite(number):
        raise BudgetError(f"a budget of {quantity} is a plain number, but got {amount!r}")
    return number


# -- the quantities of an architecture ------------------------------------------------------------


def value_of(
    quantity: str, estimate: Estimate, confidence: float, graph: Callable[[], Graph], energy: Energy = GENERIC
) -> float:
    """A quantity of an architecture, in SI units.

    Args:
        quantity: as in `Limit`.
        estimate: what a model says of the architecture.
        confidence: of a latency, the probability p of eq. (1) that the value is not exceeded.
        graph: traces the architecture; called only for what the estimate does not know.
        energy: of a flop and of a byte on the device.
    """
    if quantity == "latency":
        return _with_margin(float(estimate.latency), float(estimate.high), estimate, confidence)
    if quantity.startswith(_BLOCK):
        blocks = blocks_at(quantity, estimate)
        latency, high = float(sum(b.latency for b in blocks)), float(sum(b.high for b in blocks))
        return _with_margin(latency, high, estimate, confidence)
    if quantity == "energy":
        flops = value_of("flops", estimate, confidence, graph)
        traffic = value_of("bytes", estimate, confidence, graph)
        return energy.of(flops, traffic)
    told = getattr(estimate, quantity, None)
    if told is not None:
        return float(told)
    traced = graph()
    source = traced if quantity in ("peak_memory", "params") else traced.cost
    return float(getattr(source, quantity))


def _with_margin(latency: float, high: float, estimate: Estimate, confidence: float) -> float:
    """The latency (s) that is not exceeded with probability `confidence`, eq. (1)."""
    if confidence == 0.5 or latency <= 0 or high <= latency:
        return latency
    coverage = float(getattr(estimate, "confidence", COVERAGE))
    sigma = math.log(high / latency) / NormalDist().inv_cdf((1 + coverage) / 2)
    return latency * math.exp(sigma * NormalDist().inv_cdf(confidence))


def blocks_at(quantity: str, estimate: Estimate) -> list[Any]:
    """The blocks of an estimate at or below the module path of a quantity "blocks.PATH"."""
    path = quantity.removeprefix(_BLOCK)
    by_depth = getattr(estimate, "by_depth", None)  # a cost model's estimate has blocks of any depth
    blocks = by_depth(path.count(".") + 1) if by_depth else getattr(estimate, "blocks", {})
    return [block for name, block in blocks.items() if f"{name}.".startswith(f"{path}.")]
