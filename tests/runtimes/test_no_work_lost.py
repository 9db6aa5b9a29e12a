"""No runtime's lowering loses the work that tracing counted, also of ops for which it has no rule of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, Device, trace
from hwcost.runtimes.registry import get_runtime, runtime_names
from hwcost.tracing.onnx_file import onnx_graph


class Does(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        """The function of the inputs."""
        return self.function(*inputs)


UNUSUAL: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "mv": (Does(torch.mv), ((64, 32), (32,))),
    "dot": (Does(torch.dot), ((64,), (64,))),
    "outer": (Does(torch.outer), ((64,), (32,))),
    "bilinear": (nn.Bilinear(16, 24, 8), ((4, 16), (4, 24))),
    "einsum": (Does(lambda a, b: torch.einsum("bij,bjk->bik", a, b)), ((2, 8, 16), (2, 16, 4))),
    "tensordot": (Does(lambda a, b: torch.tensordot(a, b, dims=1)), ((4, 8), (8, 5))),
    "lstm": (nn.LSTM(16, 24, num_layers=2, bidirectional=True), ((5, 2, 16),)),
    "gru": (nn.GRU(16, 24, batch_first=True), ((2, 5, 16),)),
    "rnn": (nn.RNN(16, 24, bias=False), ((5, 2, 16),)),
    "lstm cell": (nn.LSTMCell(16, 24), ((2, 16),)),
    "attention": (nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), ((1, 8, 32),)),
}


@pytest.mark.parametrize("runtime", runtime_names())
@pytest.mark.parametrize("name", UNUSUAL)
def test_kernels_hold_the_macs_of_the_trace(name: str, runtime: str) -> None:
    module, shapes = UNUSUAL[name]
    graph = trace(module.eval(), tuple(torch.empty(shape, device="meta") for shape in shapes))
    assert graph.cost.macs > 0
    assert sum(p.kernel.cost.macs for p in get_runtime(runtime).lower(graph).kernels) == graph.cost.macs


@pytest.mark.parametrize("runtime", runtime_names())
def test_what_no_rule_counts_is_said_with_the_estimate(runtime: str) -> None:
    model = CostModel.analytic(Device.load("intel-i9-10980xe"), runtime)
    known = model.estimate(nn.ReLU(), (torch.empty(4, 4),))
    unknown = model.estimate(Does(torch.linalg.svdvals), (torch.empty(4, 4),))
    assert not any("not counted" in note for note in known.notes)
    assert [note for note in unknown.notes if "not counted" in note and "svd" in note]


# -- attention layers of torch, which call one fused op where torch allows it ------------------------------------


def encoder(tokens: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    layer = nn.TransformerEncoderLayer(192, 4, 768, batch_first=True)
    return layer.eval(), (torch.empty(1, tokens, 192, device="meta"),)


def test_the_bound_is_of_the_fused_op_where_it_runs() -> None:
    model = CostModel.analytic(Device.load("intel-i9-10980xe"), "torch-eager")
    assert [k.kind for k in model.estimate(*encoder(16)).kernels] == ["_transformer_encoder_layer_fwd"]
    assert torch.backends.mha.get_fastpath_enabled()


# -- ONNX files -------------------------------------------------------------------------------------------------


def test_an_onnx_file_is_lowered_as_the_module_it_came_from(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from hwcost.runtimes.onnxruntime.session import export

    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 32, 32)
    path = tmp_path / "net.onnx"
    path.write_bytes(export(net, (x,)))
    of_file, of_module = (get_runtime("onnxruntime").lower(g).kernels for g in (onnx_graph(path), trace(net, (x,))))
    found, expected = ([(p.kernel.name, p.kernel.cost.macs) for p in kernels] for kernels in (of_file, of_module))
    assert found == expected


def test_a_recurrent_layer_of_an_onnx_file_keeps_its_work(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from hwcost.runtimes.onnxruntime.session import export

    lstm, x = nn.LSTM(16, 24).eval(), torch.randn(5, 2, 16)
    path = tmp_path / "lstm.onnx"
    path.write_bytes(export(lstm, (x,)))
    network = get_runtime("onnxruntime").lower(onnx_graph(path))
    # 5 steps of 2 sequences, 4 gates of 24 units, each over 16 inputs and 24 states
    assert sum(p.kernel.cost.macs for p in network.kernels) == 5 * 2 * 4 * 24 * (16 + 24)
