"""How well an architecture uses a device: intensity, memory-bound share of the time, achieved share of the ceiling.

A network of W flop and Q byte that takes t seconds has arithmetic intensity I = W / Q. On a device with peak P flop/s
and bandwidth B byte/s no network of that intensity runs faster than C = min(P, I * B) flop/s, so

    achieved = (W / t) / C = max(W / P, Q / B) / t                                                (1)

is the share of the ceiling that it reaches. On a device with a high ridge point P / B only networks of high intensity
come near the peak; on one with a low ridge point a high intensity is of no use, and its flops cost time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hwcost import units
from hwcost.device.ceilings import Energy
from hwcost.device.device import Device
from hwcost.model.features import Target
from hwcost.search.protocols import Estimate

# -- the device behind a model --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Of a device, for one dtype and number of threads."""

    peak: float  # flop/s
    bandwidth: float  # byte/s, of DRAM

    def achieved(self, flops: float, traffic: float, latency: float) -> float:
        """Eq. (1) for work in flop, traffic in byte and latency in seconds.

        Above 1 where the flops count products with padding, which the runtime does not compute.
        """
        return max(flops / self.peak, traffic / self.bandwidth) / latency


def ceilings_of(model: object) -> Ceilings | None:
    """The ceilings of the device that a model is for; None where the model does not say."""
    target = target_of(model)
    if target is None:
        return None
    device, dtype, threads = target.device, target.dtype, target.threads
    return Ceilings(device.peak(dtype, threads), device.bandwidth("DRAM", threads))


def energy_of(model: object) -> Energy | None:
    """The energy of a flop and of a byte on a model's device; None where its device file does not say."""
    target = target_of(model)
    return target.device.energy if target else None


def target_of(model: object) -> Target | None:
    """The target of a cost model, or of a latency table that was made from one; None for any other model."""
    target = getattr(model, "target", None)
    if target is not None and isinstance(getattr(target, "device", None), Device):
        return Target(target.device, target.threads, target.dtype)
    meta = getattr(model, "meta", {})
    if "device" not in meta:
        return None
    return Target(Device.from_toml(meta["device"], "latency table"), meta["target"]["threads"], meta["target"]["dtype"])


# -- what an estimate says ------------------------------------------------------------------------


def facts_of(estimate: Estimate, ceilings: Ceilings | None) -> dict[str, Any]:
    """What a trial keeps of an estimate: numbers in SI units, and "bound" as a word; only what the estimate knows."""
    names = ("latency", "low", "high", "bound", "support", "memory_share", "intensity")
    facts = {name: getattr(estimate, name, None) for name in names}
    work = _work(estimate)
    if work is not None:
        flops, traffic = work
        if facts["intensity"] is None and traffic:
            facts["intensity"] = flops / traffic
        if ceilings is not None:
            facts["achieved"] = ceilings.achieved(flops, traffic, estimate.latency)
    return {name: v if isinstance(v, str) else float(v) for name, v in facts.items() if v is not None}


def _work(estimate: Estimate) -> tuple[float, float] | None:
    """(flop, byte) of the whole network, where the estimate knows them."""
    source = getattr(estimate, "cost", estimate)
    flops, traffic = getattr(source, "flops", None), getattr(source, "bytes", None)
    if flops is None or traffic is None:
        return None
    return float(flops), float(traffic)


def parts_of(estimate: Estimate) -> list[dict[str, Any]]:
    """The kernels of an estimate, or its blocks where it has no kernels, as JSON; latencies in seconds."""
    kernels = getattr(estimate, "kernels", None)
    if kernels is not None:
        return [{"name": k.module, "kernel": k.name, **_part(k)} for k in kernels]
    blocks: Mapping[str, Any] = getattr(estimate, "blocks", None) or {}
    return [{"name": name, **_part(block)} for name, block in blocks.items()]


def _part(part: Any) -> dict[str, Any]:
    described: dict[str, Any] = {f"{name}_s": float(getattr(part, name)) for name in ("latency", "low", "high")}
    cost = getattr(part, "cost", None)
    if cost is not None:
        described |= {"flops": cost.flops, "bytes": cost.bytes, "bound": part.bound}
    return described


_WORDS: Mapping[str, Callable[[float], str]] = {
    "intensity": lambda v: units.format(v, "flop/byte"),
    "memory_share": lambda v: f"{v:.0%} of the time memory-bound",
    "achieved": lambda v: f"{v:.0%} of the ceiling achieved",
}


def utilisation_in_words(facts: Sequence[Mapping[str, Any]]) -> str:
    """How well several architectures use a device: a phrase with the medians over their `facts_of`, which may be "".

    An entry that some architectures lack is the median over the others.
    """
    phrases = []
    for name, phrase in _WORDS.items():
        values = [f[name] for f in facts if name in f]
        if values:
            phrases.append(phrase(median(values)))
    return ", ".join(phrases)
