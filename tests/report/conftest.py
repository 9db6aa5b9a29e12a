"""A made-up but realistic result: a machine, a fitted model's estimates, a search and its verification."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from hwcost.cost import Cost
from hwcost.device.ceilings import ComputeCeiling, MemoryCeiling
from hwcost.device.device import Device
from hwcost.model.accuracy import Accuracy, Comparison
from hwcost.model.estimate import Estimate, KernelEstimate
from hwcost.report.result import Candidate, QuickstartResult, Winner

PEAK, DRAM = 140e9, 14e9
HERE = Device(
    name="this-machine",
    cores=2,
    compute=(
        ComputeCeiling(threads=1, measured="140 GFLOP/s", measured_source="float32 matrix product 1536, best of 20",
                       paper="262 GFLOP/s", paper_source="4.1 GHz x 64 flop per cycle", spread=0.03),
    ),
    memory=(
        MemoryCeiling(threads=1, measured="14 GB/s", measured_source="copy of 512 MiB arrays", spread=0.06),
        MemoryCeiling(level="L2", size="1 MiB", threads=1, measured="95 GB/s", measured_source="copy of 256 KiB",
                      spread=0.04),
    ),
)  # fmt: skip


def kernel(kind: str, module: str, flops: float, traffic: float, rng: random.Random) -> KernelEstimate:
    """A kernel that takes 1.2 to 4 times its roofline time, and 6 µs more."""
    cost = Cost(macs=int(flops / 2) if "conv" in kind or kind == "linear" else 0,
                other_flops=0 if "conv" in kind or kind == "linear" else int(flops),
                bytes_activations=int(traffic / 2), bytes_written=int(traffic / 2))  # fmt: skip
    bound = max(cost.flops / PEAK, cost.bytes / DRAM)
    latency = bound * rng.uniform(1.2, 4.0) + 6e-6
    return KernelEstimate(
        name=kind, kind=kind, module=module, latency=latency, low=latency / 1.2, high=latency * 1.2, roofline=bound,
        bound="compute" if cost.flops / PEAK > cost.bytes / DRAM else "memory", cost=cost, supported=True, sigma=0.12,
        key=f"{kind}-{cost.flops}-{cost.bytes}",
    )  # fmt: skip


def network(width: int, seed: int = 0) -> Estimate:
    """Three stages of three inverted-residual blocks, `width` channels, 96 x 96 pixels."""
    rng = random.Random(seed)
    kernels: list[KernelEstimate] = []
    for stage in range(3):
        pixels, channels = (96 >> stage) ** 2, width << stage
        for block in range(3):
            at = f"stages.{stage}.{block}"
            wide = 4 * channels
            for kind, name, flops, traffic in (
                ("conv2d", "expand", 2 * pixels * channels * wide, 4 * pixels * (channels + wide)),
                ("batch_norm", "norm", 2 * pixels * wide, 8 * pixels * wide),
                ("hardswish", "act", 6 * pixels * wide, 8 * pixels * wide),
                ("conv2d", "depthwise", 18 * pixels * wide, 8 * pixels * wide),
                ("adaptive_avg_pool2d", "squeeze", pixels * wide, 4 * pixels * wide),
                ("mul", "scale", pixels * wide, 8 * pixels * wide),
                ("conv2d", "project", 2 * pixels * channels * wide, 4 * pixels * (channels + wide)),
                ("add", "", pixels * channels, 12 * pixels * channels),
                ("cat", "", 0, 8 * pixels * channels),
            ):
                kernels.append(kernel(kind, f"{at}.{name}".rstrip("."), flops, traffic, rng))
    kernels.append(kernel("linear", "head", 2 * 10 * width * 4, 4 * 10 * width * 4, rng))
    overhead = 4e-6 * len(kernels)
    latency = sum(k.latency for k in kernels) + overhead
    return Estimate(
        latency=latency, low=latency / 1.09, high=latency * 1.09, confidence=0.9, overhead=overhead,
        kernels=tuple(kernels), common=0.04, z=1.645,
    )  # fmt: skip


def winner(number: int, width: int, accuracy: float, error: float) -> Winner:
    """A verified architecture whose measured time is off its prediction by `error`."""
    estimate = network(width, number)
    params = {"resolution": 96, "width.0": width, "conv.0": "depthwise", "kernel.1": 5, "se.2": True}
    return Winner(
        name=f"trial {number}", params=params, accuracy=accuracy, estimate=estimate,
        measured=estimate.latency * (1 + error), spread=0.021,
    )  # fmt: skip


def comparisons(n: int) -> tuple[Comparison, ...]:
    rng = random.Random(1)
    rows = []
    for i in range(n):
        measured = 3e-3 * math.exp(rng.uniform(0, 2.2))
        predicted = measured * math.exp(rng.gauss(0, 0.055))
        rows.append(
            Comparison(target=f"tiny-cnn/{i:03d}", predicted=predicted, low=predicted / 1.1, high=predicted * 1.1,
                       measured=measured, spread=abs(rng.gauss(0.02, 0.01)) + 0.004)
        )  # fmt: skip
    return tuple(rows)


def candidates(budget: float) -> tuple[Candidate, ...]:
    rng = random.Random(2)
    found = []
    for _ in range(130):
        latency = 5e-3 * math.exp(rng.uniform(0, 2.3))
        reach = 0.985 - 0.35 * math.exp(-(latency / 5e-3 - 0.4)) - abs(rng.gauss(0, 0.03))
        state = "rejected" if latency > budget else "duplicate" if rng.random() < 0.15 else "trained"
        accuracy = None if state == "rejected" else max(reach, 0.3)
        found.append(
            Candidate(latency=latency, low=latency / 1.09, high=latency * 1.09, accuracy=accuracy, state=state)
        )
    return tuple(found)


def make_result(**changes: object) -> QuickstartResult:
    """The whole result; `changes` replace fields."""
    budget = 26e-3
    fields: dict[str, object] = {
        "device": HERE, "runtime": "torch-eager", "threads": 1, "space": "tiny-cnn",
        "task": "scikit-learn's digits, enlarged to 96 x 96", "budget": budget,
        "held_out": Accuracy(comparisons(60)), "candidates": candidates(budget),
        "winners": (
            winner(17, 3, 0.842, 0.03), winner(33, 5, 0.913, -0.05), winner(58, 8, 0.951, 0.01),
            winner(71, 11, 0.968, 0.13), winner(96, 13, 0.978, -0.02),
        ),
        "training_seconds": 1.9,
        "environment": {"host": "laptop", "cpu": "AMD EPYC 9R14, 2 cores", "torch": "2.13.0", "governor": "unknown",
                        "date": "2031-05-02"},
        "commands": ("hwcost calibrate --threads 1 -o hwcost-report/device.toml", "hwcost quickstart -o hwcost-report"),
        "stages": {"calibrate": 11.0, "measure": 62.0, "fit": 5.1, "table": 1.2, "search": 140.0, "verify": 16.0},
    }  # fmt: skip
    return QuickstartResult(**(fields | changes))


@pytest.fixture
def result() -> QuickstartResult:
    return make_result()


@pytest.fixture
def make() -> Callable[..., QuickstartResult]:
    """`make(budget=1e-3)`: the result with some fields changed."""
    return make_result


VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and visible text."""

    def __init__(self):
        super().__init__()
        self.stack, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture
def read():
    """Parses HTML, whose tags must nest, and gives its tags, attributes and visible text."""

    def parsed(html):
        reader = Reader()
        reader.feed(html)
        reader.close()
        assert reader.stack == []
        return reader

    return parsed
