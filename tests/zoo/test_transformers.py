"""60 transformers configurations, text, vision and audio, built from their configuration: `make zoo`."""

# ruff: noqa: SIM905 - names read best as words

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hwcost

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; run it in the zoo environment"
)

TEXT = (
    "bert roberta distilbert albert electra deberta-v2 deberta mpnet xlnet big_bird convbert squeezebert ernie "
    "camembert nystromformer roformer fnet mobilebert canine modernbert gpt_neox gptj opt bloom llama mistral "
    "qwen2 qwen3 gpt2 gpt_neo gemma gemma2 gemma3_text phi phi3 falcon"
).split()
PAIRS = "t5 mt5 bart mbart pegasus marian".split()
VISION = "vit deit beit swin swinv2 convnext convnextv2 resnet mobilevit segformer dinov2 pvt".split()
AUDIO = "wav2vec2 hubert wavlm whisper audio-spectrogram-transformer unispeech".split()
CASES = [*TEXT, *PAIRS, *VISION, *AUDIO]


def ids(length: int) -> torch.Tensor:
    return torch.ones(1, length, dtype=torch.int64)


def example(name: str, config: Any) -> dict[str, torch.Tensor]:
    """An example input of the model."""
    if name in TEXT:
        return {"input_ids": ids(256 if name == "canine" else 128)}
    if name in PAIRS:
        return {"input_ids": ids(128), "decoder_input_ids": ids(16)}
    if name in VISION:
        size = getattr(config, "image_size", 224)
        return {"pixel_values": torch.empty(1, 3, *([size] * 2 if isinstance(size, int) else size), device="meta")}
    if name == "whisper":
        return {"input_features": torch.empty(1, 80, 3000, device="meta"), "decoder_input_ids": ids(16)}
    shape = (1, 1024, 128) if name == "audio-spectrogram-transformer" else (1, 16000)
    return {"input_values": torch.empty(shape, device="meta")}


def macs_by_torch(module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """What torch's counter makes of a run, attention by its parts."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(**inputs)
    return counter.get_total_flops() / 2


def shallow(config: Any) -> Any:
    """The same architecture with two layers, so that it can really be run."""
    for name in (
        "num_hidden_layers",
        "num_layers",
        "n_layer",
        "encoder_layers",
        "decoder_layers",
        "num_decoder_layers",
    ):
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, 2)
    return config


def counted(module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> hwcost.Graph:
    """The trace, which must be complete."""
    graph = hwcost.trace(module, (), inputs)
    assert graph.status == "complete", graph.uncounted
    assert graph.params == sum(p.numel() for p in module.parameters())
    return graph


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_complete_and_equal_to_an_independent_count(name: str) -> None:
    config = transformers.AutoConfig.for_model(name)
    with torch.device("meta"):
        module = transformers.AutoModel.from_config(config).eval()
    inputs = example(name, config)
    graph = counted(module, inputs)
    try:
        reference = macs_by_torch(module, {key: value.to("meta") for key, value in inputs.items()})
    except Exception:  # it reads values, which meta tensors do not have: count a real run of two layers instead
        module = transformers.AutoModel.from_config(shallow(config)).eval()
        inputs = {
            key: value if value.device.type == "cpu" else torch.rand(value.shape) for key, value in inputs.items()
        }
        graph, reference = counted(module, inputs), macs_by_torch(module, inputs)
    assert graph.cost.macs == pytest.approx(reference, rel=1e-3)
