"""torchvision's published multiply-adds and parameters, recomputed: `make zoo`.

The published table (model metadata of torchvision 0.29) is read from the shared data, where it is.
Each model is built as its weights say, without downloading them, on the meta device. Detection was
published from a run on an image of noise: see EXPLAINED for models whose work depends on what is found.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hwcost

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed; run it in the zoo environment")

SHARED = Path(os.environ.get("HWCOST_SHARED", Path(__file__).parents[3] / "shared"))
TABLE = SHARED / "data" / "torchvision" / "weights_meta.json"
ROWS: list[dict[str, Any]] = json.loads(TABLE.read_text())["rows"] if TABLE.is_file() else []
DETECTION_SIZE = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 320,
    "keypointrcnn_resnet50_fpn": 1333,
    "ssd300_vgg16": 300,
    "ssdlite320_mobilenet_v3_large": 320,
}  # 800 for the others; torchvision's own test states them

# Published where nearly nothing was found; counted here as if every proposal the settings allow were kept.
# Without the heads that run on proposals the published number comes out.
EXPLAINED = {"fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn"}
# These read the coordinates of what was found, so they are computed on an image of noise; what random weights
# find in it is not what the published ones found, so that their macs are not compared.
COMPUTED = {"keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"}


@pytest.fixture
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("torchvision.models._api")
    monkeypatch.setattr(api.WeightsEnum, "get_state_dict", lambda self, *a, **k: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, *a, **k: None)


def on_cpu(model: str) -> bool:
    """Whether it needs data: quantised weights exist on the CPU only."""
    return model in COMPUTED or model.startswith("quantized")


def build(row: dict[str, Any]) -> tuple[nn.Module, Any]:
    """The model as its weights say, and their transform."""
    models = torchvision.models
    weights = getattr(models.get_model_weights(row["model"]), row["weights"].split(".")[1])
    quantized = {"quantize": True} if row["model"].startswith("quantized") else {}
    with torch.device("cpu" if on_cpu(row["model"]) or row["model"].startswith("regnet") else "meta"):
        return models.get_model(row["model"], weights=weights, **quantized), weights


def inputs(row: dict[str, Any], module: nn.Module, weights: Any) -> tuple[Any, ...]:
    """An input of the size that the published number belongs to."""
    room, name = type(module).__module__, row["model"]
    device = "cpu" if on_cpu(name) else "meta"
    if ".detection" in room:
        size = DETECTION_SIZE.get(name, 800)
        return ([torch.rand(3, size, size, device=device)],)
    if ".video" in room:
        crop = list(weights.transforms().crop_size)
        return (torch.empty(1, 3, 16, *(crop * 2)[:2], device=device),)
    if ".optical_flow" in room:
        return (torch.empty(1, 3, 512, 512, device=device),) * 2
    size = 520 if ".segmentation" in room else row["crop"]
    return (torch.empty(1, 3, size, size, device=device),)


@pytest.mark.skipif(not ROWS, reason=f"the published table is not at {TABLE}")
@pytest.mark.usefixtures("no_downloads")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["weights"])
def test_published_numbers(row: dict[str, Any]) -> None:
    module, weights = build(row)
    graph = hwcost.trace(module, inputs(row, module, weights))
    assert graph.status == "complete", graph.uncounted
    if not row["model"].startswith("quantized"):  # their published count is that of the model before folding
        assert graph.params == row["num_params"]
    macs = graph.cost.macs
    if row["model"] in EXPLAINED:
        macs -= sum(cost.macs for name, cost in graph.blocks(1).items() if name == "roi_heads")
    if row["model"] in COMPUTED:
        assert graph.notes[0].startswith("computed with the values")
        pytest.skip("complete, parameters equal; its macs depend on what the weights find in an image")
    assert round(macs / 1e9, 3) == pytest.approx(row["gops"], abs=1e-9)
