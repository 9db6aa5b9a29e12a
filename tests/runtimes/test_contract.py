"""What every registered runtime must fulfil: each costed op is in one kernel, outputs are those of torch eager, and
each kernel gets a time.

Lowering is tested for all of them. What needs the runtime installed is skipped, with the reason, where it is not.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwcost import trace
from hwcost.graph import FUSED_ATTENTION, Graph
from hwcost.measure.machine import allowed_cpus
from hwcost.measure.materialise import materialise
from hwcost.measure.process import flush_denormals
from hwcost.runtimes.base import Network, Runtime, RuntimeUnavailable, Session
from hwcost.runtimes.op_by_op import OpByOp
from hwcost.runtimes.registry import get_runtime, runtime_names
from hwcost.spaces.designed.attention import Attention
from hwcost.spaces.designed.modules import Residual, SqueezeExcite
from hwcost.tracing.fast_path import by_parts


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
    "one linear": (lambda: nn.Linear(256, 128), (48, 256)),  # several us, which OpenVINO counts whole
}


@pytest.fixture(scope="module", params=runtime_names())
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return get_runtime(request.param)


@pytest.fixture(scope="module")
def running(runtime: Runtime) -> Runtime:
    """The runtime, where it can run networks here."""
    try:
        runtime.environment()
    except RuntimeUnavailable as reason:
        pytest.skip(str(reason))
    return runtime


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[Any, ...]]:
    make, shape = NETWORKS[request.param]
    return materialise(lambda: (make(), (torch.empty(shape, device="meta"),)))


@pytest.fixture(scope="module")
def session(running: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> Session:
    return running.prepare(*network, threads=1)


# -- lowering --------------------------------------------------------------------------------------------------


REPLACED = {  # kinds of op that a runtime runs as others; every other costed op runs as it is, and once
    "onnxruntime": {"batch_norm": Counter[str](), "scaled_dot_product_attention": Counter(matmul=2, softmax=1)},
    "openvino": {"batch_norm": Counter[str]()},  # folded into the convolution before it
}


def held(network: Network) -> Counter[str]:
    """Kinds of the ops in the kernels, without copies into another layout, which are not in a trace."""
    kinds = Counter(op.kind for placed in network.kernels for op in placed.kernel.ops)
    del kinds["clone"]
    return kinds


def costed(runtime: Runtime, graph: Graph) -> Counter[str]:
    """Kinds of the ops that cost something, as the runtime runs them."""
    replaced = REPLACED.get(runtime.name, {})
    found = Counter[str]()
    for op in graph.ops:
        if op.state != "free":
            found += replaced.get(op.spec.kind, Counter([op.spec.kind]))
    return found


def test_the_lowering_has_every_mac(runtime: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    graph = trace(*network)
    assert runtime.lower(graph).cost.macs == graph.cost.macs


def test_the_lowering_has_every_costed_op_once(runtime: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    """Also those without macs: a network would be priced wrongly where no kernel, or two, held an activation."""
    graph = trace(*network)
    assert held(runtime.lower(graph)) == costed(runtime, graph)


def test_the_lowering_is_of_its_runtime_and_says_where_kernels_stand(
    runtime: Runtime, network: tuple[nn.Module, tuple[Any, ...]]
) -> None:
    lowered, modules = runtime.lower(trace(*network)), {name for name, _ in network[0].named_modules()}
    assert lowered.runtime == runtime.name
    assert lowered.calls >= len(lowered.kernels)
    assert {p.module for p in lowered.kernels} <= modules
    assert all(p.distance >= -1 for p in lowered.kernels)


def test_a_kernel_an_op_is_said_where_it_is_so(runtime: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    """Latency tables rely on it: they make the kernels of such a runtime without lowering."""
    assert runtime.one_kernel_an_op == isinstance(runtime, OpByOp)
    if runtime.one_kernel_an_op:
        assert all(len(p.kernel.ops) == 1 for p in runtime.lower(trace(*network)).kernels)


def test_torchs_fused_attention_is_lowered_as_the_runtime_runs_it(runtime: Runtime) -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    inputs = (torch.empty(1, 8, 32),)
    graph = trace(layer, inputs)
    with by_parts():
        parts = trace(layer, inputs)
    lowered = runtime.lower(replace(graph, by_parts=parts))
    assert lowered == runtime.lower(graph if runtime.runs_fused_attention else parts)
    assert bool({p.kernel.kind for p in lowered.kernels} & FUSED_ATTENTION) == runtime.runs_fused_attention


# -- running ---------------------------------------------------------------------------------------------------


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


def test_every_costed_op_is_in_one_kernel(
    running: Runtime, session: Session, network: tuple[nn.Module, tuple[Any, ...]]
) -> None:
    assert held(session.network) == costed(running, trace(*network))


def test_the_lowering_is_what_runs(
    running: Runtime, session: Session, network: tuple[nn.Module, tuple[Any, ...]]
) -> None:
    lowered = running.lower(trace(*network))
    assert Counter(p.kernel for p in lowered.kernels) == Counter(p.kernel for p in session.network.kernels)


def test_kernels_are_timed_in_seconds(running: Runtime) -> None:
    """Their sum is within a factor of 30 of a whole run: true on a busy machine too, and false with a wrong unit."""
    body = [nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    session = running.prepare(nn.Sequential(*body).eval(), (torch.randn(1, 16, 28, 28),), threads=1)
    whole = []
    for _ in range(10):
        start = time.process_time()  # without the time in which other processes had the CPU
        session.run()
        whole.append(time.process_time() - start)
    parts = np.min([session.profile(3) for _ in range(4)], axis=(0, 1)).sum()  # the least of 12 is not interrupted
    assert 1 / 30 < parts / min(whole) < 30


def test_the_environment_names_its_version(running: Runtime) -> None:
    environment = running.environment()
    assert environment["torch"] == torch.__version__
    assert all(isinstance(v, str) and v for v in environment.values())


def test_kernels_know_their_module(session: Session) -> None:
    assert any(p.module for p in session.network.kernels) or len(session.network.kernels) == 1


def test_numbers_that_vanish_are_zero_where_it_is_measured(running: Runtime) -> None:
    """Denormal numbers are flushed to zero in a session that is made while the process flushes them."""
    layer = nn.Linear(64, 64, bias=False)
    nn.init.constant_(layer.weight, 1e-20)
    inputs = (torch.full((4, 64), 1e-20),)
    with flush_denormals():
        assert not running.prepare(layer.eval(), inputs, threads=1).run().any()  # 64e-40 is denormal: below 1.2e-38


THREADS: dict[str, Callable[[Any], int]] = {  # how many threads a session uses, as the runtime itself says
    "torch-eager": lambda session: torch.get_num_threads(),
    "torch-compile": lambda session: torch.get_num_threads(),
    "onnxruntime": lambda session: session._session.get_session_options().intra_op_num_threads,
    "openvino": lambda session: session._plain.get_compiled_model().get_property("INFERENCE_NUM_THREADS"),
}


def test_the_thread_count_is_the_one_asked_for(running: Runtime, network: tuple[nn.Module, tuple[Any, ...]]) -> None:
    for threads in (2, 1) if len(allowed_cpus()) > 1 else (1,):
        session = running.prepare(*network, threads=threads)
        session.run()
        assert THREADS[running.name](session) == threads
