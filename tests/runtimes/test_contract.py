"""What every runtime must keep: the outputs of eager, every costed op once, a time for every kernel.

A runtime whose package is not installed is skipped with the reason.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import trace
from hwcost.measure.machine import allowed_cpus, vanishing_is_zero
from hwcost.measure.materialise import materialise
from hwcost.runtimes.base import Runtime, RuntimeUnavailable, Session
from hwcost.runtimes.registry import get_runtime, runtime_names
from hwcost.spaces.designed.attention import Attention
from hwcost.spaces.designed.modules import Residual, SqueezeExcite


def convolutional() -> nn.Module:
    block = nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(), SqueezeExcite(16, 16),
        nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16),
    )  # fmt: skip
    stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(
        *stem, Residual(block), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


def tokens() -> nn.Module:
    attend = Residual(nn.Sequential(nn.LayerNorm(32), Attention(32, 4, fused=True)))
    return nn.Sequential(attend, nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))


NETWORKS = {
    "convolutional": (convolutional, (1, 3, 32, 32)),
    "tokens": (tokens, (2, 12, 32)),
    "one linear": (lambda: nn.Linear(256, 128), (48, 256)),  # OpenVINO's counters are in whole microseconds
}


@pytest.fixture(scope="module", params=runtime_names())
def runtime(request: pytest.FixtureRequest) -> Runtime:
    try:
        return get_runtime(request.param)
    except RuntimeUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[Any, ...]]:
    make, shape = NETWORKS[request.param]
    return materialise(lambda: (make(), (torch.empty(shape, device="meta"),)))


@pytest.fixture(scope="module")
def session(runtime: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> Session:
    return runtime.prepare(*network, threads=1)


def test_outputs_are_those_of_eager(session: Session, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    module, inputs = network
    with torch.inference_mode():
        torch.testing.assert_close(session.run(), module(*inputs), rtol=1e-3, atol=1e-4)


def test_every_kernel_gets_a_time_in_every_run(session: Session) -> None:
    times = session.profile(3)
    assert times.shape == (3, len(session.network.kernels))
    assert np.isfinite(times).all()
    assert (times >= 0).all()
    assert times.sum() > 0


def test_every_mac_is_in_one_kernel(session: Session, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    assert session.network.cost.macs == trace(*network).cost.macs


REPLACED = {  # what a runtime has something else for; every other costed op runs as it is, and once
    "onnxruntime": {"batch_norm": Counter[str](), "scaled_dot_product_attention": Counter(matmul=2, softmax=1)},
    "openvino": {"batch_norm": Counter[str]()},  # folded into the convolution before it
}


def test_every_costed_op_is_in_one_kernel(
    runtime: Runtime, session: Session, network: tuple[nn.Module, tuple[Any, ...]]
) -> None:
    """Those without macs too: an activation that no kernel holds, or two do, would be priced wrongly."""
    replaced = REPLACED.get(runtime.name, {})
    expected = Counter[str]()
    for op in trace(*network).ops:
        if op.state != "free":
            expected += replaced.get(op.spec.kind, Counter([op.spec.kind]))
    held = Counter(op.kind for placed in session.network.kernels for op in placed.kernel.ops)
    del held["clone"]  # copies into another layout, which no trace knows of
    assert held == expected


def test_the_lowering_has_every_mac_too(runtime: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    graph = trace(*network)
    assert runtime.lower(graph).cost.macs == graph.cost.macs


def test_the_lowering_is_what_runs(
    runtime: Runtime, session: Session, network: tuple[nn.Module, tuple[Any, ...]]
) -> None:
    lowered = runtime.lower(trace(*network))
    assert Counter(p.kernel for p in lowered.kernels) == Counter(p.kernel for p in session.network.kernels)


def test_kernels_add_up_to_about_the_whole(runtime: Runtime) -> None:
    """No kernel is left out, none timed twice or in another unit; the machine may be busy."""
    body = [nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    session = runtime.prepare(nn.Sequential(*body).eval(), (torch.randn(1, 16, 28, 28),), threads=1)
    whole = []
    for _ in range(20):
        start = time.process_time()  # without the time in which others had the CPU
        session.run()
        whole.append(time.process_time() - start)
    parts = np.min([session.profile(3) for _ in range(8)], axis=(0, 1)).sum()  # those that were not interrupted
    assert 0.4 < parts / min(whole) < 1.6


def test_the_environment_names_its_version(runtime: Runtime) -> None:
    environment = runtime.environment()
    assert environment["torch"] == torch.__version__
    assert all(isinstance(v, str) and v for v in environment.values())


def test_kernels_know_their_module(session: Session) -> None:
    assert any(p.module for p in session.network.kernels) or len(session.network.kernels) == 1


def test_numbers_that_vanish_are_zero_where_it_is_measured(runtime: Runtime) -> None:
    layer = nn.Linear(64, 64, bias=False)
    nn.init.constant_(layer.weight, 1e-20)
    inputs = (torch.full((4, 64), 1e-20),)
    with vanishing_is_zero():
        assert not runtime.prepare(layer.eval(), inputs, threads=1).run().any()  # 64e-40 is below 1.2e-38


THREADS: dict[str, Callable[[Any], int]] = {  # how many a runtime says that a session uses
    "torch-eager": lambda session: torch.get_num_threads(),
    "torch-compile": lambda session: torch.get_num_threads(),
    "onnxruntime": lambda session: session._session.get_session_options().intra_op_num_threads,
    "openvino": lambda session: session._plain.get_compiled_model().get_property("INFERENCE_NUM_THREADS"),
}


def test_the_thread_count_is_the_one_asked_for(runtime: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    for threads in (2, 1) if len(allowed_cpus()) > 1 else (1,):
        session = runtime.prepare(*network, threads=threads)
        session.run()
        assert THREADS[runtime.name](session) == threads
