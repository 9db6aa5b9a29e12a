"""What all tests share: where the shared data lies, and how hypothesis runs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from hwcost import CostModel
from hwcost.device.device import Device
from hwcost.graph import OpSpec, TensorSpec
from hwcost.kernel import Kernel
from hwcost.measure.types import Environment, Measurement, Measurements, NetworkMeasurement, Timing

ROOT = Path(__file__).parents[1]

# No test asserts a time, hypothesis included; under CI every run draws the same examples.
settings.register_profile("hwcost", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("hwcost")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither use nor change what the user's runs keep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWCOST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Callable[..., Path]:
    """Path of a file of measurements that lie beside the repository; skips where they are absent."""
    root = Path(os.environ.get("HWCOST_SHARED", ROOT.parent / "shared"))

    def find(*parts: str) -> Path:
        path = root.joinpath("data", *parts)
        if not path.exists():
            pytest.skip(f"needs {'/'.join(parts)} of the shared data; HWCOST_SHARED names the folder that has data/")
        return path

    return find


# -- a simulated machine ---------------------------------------------------------------------------
#
# Its law is known, so that what a fit learns can be compared with the truth. It runs fully connected layers and
# additions. A layer reaches 80 % of the peak where its width is a multiple of 16 and half of that elsewhere; an
# addition moves bytes at the bandwidth; a network takes its kernels' time, 4 us for each call and 30 us besides; the
# clock errs by 1 %.

PEAK, BANDWIDTH, PER_CALL, FIXED, CLOCK = 100e9, 20e9, 4e-6, 30e-6, 0.01

DEVICE = """
name = "simulated"
cores = 1
[[compute]]
dtype = "float32"
threads = 1
measured = "100 GFLOP/s"
measured_source = "simulation"
[[memory]]
level = "DRAM"
threads = 1
measured = "20 GB/s"
measured_source = "simulation"
"""


def linear(rows: int, k: int, n: int) -> Kernel:
    """[rows, n] = [rows, k] @ [n, k]^T."""
    inputs = (TensorSpec("input", (rows, k)), TensorSpec("weight", (n, k), weight=True))
    return Kernel((OpSpec("linear", inputs, (TensorSpec("out", (rows, n)),)),))


def add(rows: int, n: int) -> Kernel:
    """[rows, n] = [rows, n] + [rows, n]."""
    inputs = (TensorSpec("self", (rows, n)), TensorSpec("other", (rows, n)))
    return Kernel((OpSpec("add", inputs, (TensorSpec("out", (rows, n)),)),))


def truth(kernel: Kernel) -> float:
    """Time of a kernel on the simulated machine (s)."""
    out = kernel.ops[0].outputs[0].shape
    if kernel.kind == "add":
        return 1e-6 + 3 * 4 * out[0] * out[1] / BANDWIDTH
    efficiency = 0.8 if out[1] % 16 == 0 else 0.4
    return 1e-6 + 2 * kernel.cost.macs / (PEAK * efficiency)


def simulate(networks: int, seed: int, widths: tuple[int, ...] = (48, 60, 64, 100, 128, 144, 200, 256)) -> Measurements:
    """Random networks of the simulated machine with their measured times."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(networks):
        rows = int(rng.choice([64, 128, 256]))
        chain = [int(w) for w in rng.choice(widths, size=rng.integers(4, 12))]
        kernels = [linear(rows, k, n) for k, n in itertools.pairwise(chain)]
        kernels += [add(rows, n) for n in chain[:3]]
        noise = np.exp(rng.normal(0, CLOCK, len(kernels) + 1))
        times = [truth(k) * e for k, e in zip(kernels, noise, strict=False)]
        total = (sum(truth(k) for k in kernels) + PER_CALL * len(kernels) + FIXED) * noise[-1]
        found.append(
            NetworkMeasurement(
                name=f"net{number}", family="simulated", spec={"seed": number},
                timing=timing(total), calls=len(kernels),
                kernels=tuple(
                    Measurement(kernel=k, timing=timing(t), module=f"layers.{i}", distance=0)
                    for i, (k, t) in enumerate(zip(kernels, times, strict=True))
                ),
            )
        )  # fmt: skip
    environment = Environment(cpu="simulated", cores=1, runtime="torch-eager", threads=1)
    return Measurements(environment=environment, networks=tuple(found))


def timing(seconds: float) -> Timing:
    return Timing(latency=seconds, median=seconds * 1.02, p95=seconds * 1.1, spread=2 * CLOCK, rounds=5)


@pytest.fixture(scope="session")
def device() -> Device:
    return Device.from_toml(DEVICE)


@pytest.fixture(scope="session")
def simulate_networks() -> Callable[..., Measurements]:
    """`simulate`, for tests that need machines measured otherwise."""
    return simulate


@pytest.fixture(scope="session")
def measurements() -> Measurements:
    return simulate(80, seed=0)


@pytest.fixture(scope="session")
def unseen() -> Measurements:
    return simulate(60, seed=1)


@pytest.fixture(scope="session")
def model(measurements: Measurements, device: Device) -> CostModel:
    return CostModel.fit(measurements, device=device)
