"""Real networks of torchvision, timm and transformers, by name: `families` for evaluation only, and
`development`, of other families, on which a choice may be tried before the evaluation.

No module of either is measured for training. They need torchvision and timm beside transformers:
the environment of `make zoo`, or, with the pinned torch, the Python part of torchvision alone:

    pip install --no-deps torchvision==0.28.0 timm && pip install transformers pillow pyyaml safetensors huggingface_hub

whose compiled operators (nms, deformable convolution) no network here reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.measure.types import Item

Built = tuple[nn.Module, tuple[Tensor, ...]]

TORCHVISION = {  # family -> models
    "alexnet": "alexnet", "vgg": "vgg11 vgg13_bn", "resnet": "resnet18 resnet50", "resnext": "resnext50_32x4d",
    "densenet": "densenet121 densenet169", "squeezenet": "squeezenet1_0 squeezenet1_1", "googlenet": "googlenet",
    "inception": "inception_v3", "mobilenetv2": "mobilenet_v2", "mobilenetv3": "mobilenet_v3_small mobilenet_v3_large",
    "mnasnet": "mnasnet0_5 mnasnet1_3", "shufflenetv2": "shufflenet_v2_x0_5 shufflenet_v2_x1_5",
    "efficientnet": "efficientnet_b0 efficientnet_b2", "efficientnetv2": "efficientnet_v2_s",
    "regnet": "regnet_y_400mf regnet_x_1_6gf", "convnext": "convnext_tiny", "vit": "vit_b_32", "swin": "swin_t",
    "maxvit": "maxvit_t",
}  # fmt: skip
TIMM = {
    "mixnet": "mixnet_s", "fbnet": "fbnetc_100", "efficientnet-lite": "tf_efficientnet_lite0",
    "efficientvit-mit": "efficientvit_b0 efficientvit_b1", "efficientvit-msra": "efficientvit_m2",
    "repvit": "repvit_m1", "mobilenetv4": "mobilenetv4_conv_small mobilenetv4_hybrid_medium",
    "fasternet": "fasternet_t0", "starnet": "starnet_s1", "inception-next": "inception_next_atto",
    "convnextv2": "convnextv2_atto", "deit": "deit_tiny_patch16_224", "pit": "pit_ti_224",
    "sequencer": "sequencer2d_s", "hgnet": "hgnetv2_b0", "selecsls": "selecsls42b", "darknet": "cspdarknet53",
    "resnest": "resnest14d", "dpn": "dpn48b", "botnet": "botnet26t_256", "mvit": "mvitv2_tiny",
    "coatnet": "coatnet_nano_rw_224", "tiny-vit": "tiny_vit_5m_224", "eva": "eva02_tiny_patch14_224",
    "hiera": "hiera_tiny_224", "volo": "volo_d1_224", "xception": "legacy_xception", "seresnet": "legacy_seresnet18",
}  # fmt: skip

DEVELOPMENT = {
    "cait": "cait_xxs24_224", "coat": "coat_lite_tiny", "convmixer": "convmixer_768_32", "crossvit": "crossvit_9_240",
    "cspresnet": "cspresnet50", "davit": "davit_tiny", "dla": "dla34", "edgenext": "edgenext_small",
    "efficientformer": "efficientformer_l1", "vovnet": "ese_vovnet19b_dw", "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf", "gcvit": "gcvit_xxtiny", "gernet": "gernet_s", "ghostnet": "ghostnet_100",
    "hrnet": "hrnet_w18_small", "lcnet": "lcnet_050", "mixer": "mixer_s16_224", "mobileone": "mobileone_s0",
    "nest": "nest_tiny", "pvt": "pvt_v2_b0", "repvgg": "repvgg_a0", "res2net": "res2net50_26w_4s",
    "resmlp": "resmlp_12_224", "rexnet": "rexnet_100", "sknet": "skresnet18", "tinynet": "tinynet_e",
    "tnt": "tnt_s_legacy_patch16_224", "twins": "twins_pcpvt_small", "visformer": "visformer_tiny",
    "xcit": "xcit_nano_12_p16_224", "nfnet": "nf_regnet_b0", "gmlp": "gmlp_s16_224", "hardcorenas": "hardcorenas_a",
}  # fmt: skip


def development() -> Iterator[Item]:
    """Networks to choose by; none of their families is among those of the evaluation."""
    _operators_that_are_not_there()
    for family, name in DEVELOPMENT.items():
        yield _item("timm", family, name, lambda name=name: _timm(name))


def families() -> Iterator[Item]:
    """Every network as an item of a campaign; its family is what a hold-out keeps together."""
    _operators_that_are_not_there()
    for family, names in TORCHVISION.items():
        for name in names.split():
            yield _item("torchvision", family, name, lambda name=name: _torchvision(name))
    for family, names in TIMM.items():
        for name in names.split():
            yield _item("timm", family, name, lambda name=name: _timm(name))
    for name, make in TRANSFORMERS.items():
        yield _item("transformers", name, name, make)


def _item(library: str, family: str, name: str, build: Callable[[], Built]) -> Item:
    return Item(name=f"{library}/{name}", family=family, spec={"library": library, "name": name}, build=build)


@lru_cache(maxsize=1)
def _operators_that_are_not_there() -> None:
    """torchvision's Python part registers shapes of two operators that its compiled part defines."""
    if torch.__version__.startswith("2.13"):
        for name in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", signature)


def _torchvision(name: str) -> Built:
    import torchvision

    size = 299 if name == "inception_v3" else 224
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **more), (torch.empty(1, 3, size, size, device="meta"),)


def _timm(name: str) -> Built:
    import timm

    model = timm.create_model(name, pretrained=False)
    return model, (torch.empty(1, *model.default_cfg["input_size"], device="meta"),)


class Outputs(nn.Module):
    """A transformers model that gives its first output alone: what every runtime can return."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The model's own input."""
        first: Tensor = self.model(x, return_dict=False)[0]
        return first


def _transformers(kind: str, x: Tensor, **config: Any) -> Built:
    import transformers

    made = transformers.AutoConfig.for_model(kind, **config)
    if hasattr(made, "use_cache"):
        made.use_cache = False
    return Outputs(transformers.AutoModel.from_config(made)), (x,)


def _tokens(count: int) -> Tensor:
    return torch.empty(1, count, dtype=torch.int64, device="meta")


def _image(size: int = 224) -> Tensor:
    return torch.empty(1, 3, size, size, device="meta")


_SMALL = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536}
_GATED = {
    "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 1408, "vocab_size": 8000,
}  # fmt: skip
TRANSFORMERS: dict[str, Callable[[], Built]] = {
    "bert": lambda: _transformers("bert", _tokens(128), **_SMALL),
    "roberta": lambda: _transformers("roberta", _tokens(64), **_SMALL),
    "electra": lambda: _transformers("electra", _tokens(196), **_SMALL),
    "distilbert": lambda: _transformers("distilbert", _tokens(128), dim=256, n_layers=4, n_heads=4, hidden_dim=1024),
    "albert": lambda: _transformers("albert", _tokens(128), **_SMALL),
    "gpt2": lambda: _transformers("gpt2", _tokens(100), n_embd=384, n_layer=6, n_head=6),
    "opt": lambda: _transformers(
        "opt", _tokens(64), hidden_size=512, num_hidden_layers=6, ffn_dim=2048, num_attention_heads=8,
        word_embed_proj_dim=512,
    ),
    "llama": lambda: _transformers("llama", _tokens(128), **_GATED),
    "qwen2": lambda: _transformers("qwen2", _tokens(48), **_GATED),
    "deit-hf": lambda: _transformers("deit", _image(), **_SMALL),
    "dinov2": lambda: _transformers("dinov2", _image(), hidden_size=192, num_hidden_layers=8, num_attention_heads=3),
    "beit": lambda: _transformers("beit", _image(), **_SMALL),
    "segformer": lambda: _transformers("segformer", _image(256)),
    "mobilevit": lambda: _transformers("mobilevit", _image(256)),
    "poolformer": lambda: _transformers("poolformer", _image()),
    "cvt": lambda: _transformers("cvt", _image()),
    "levit": lambda: _transformers("levit", _image()),
    "regnet-hf": lambda: _transformers("regnet", _image()),
    "wav2vec2": lambda: _transformers("wav2vec2", torch.empty(1, 16000, device="meta"), **_SMALL),
    "hubert": lambda: _transformers("hubert", torch.empty(1, 8000, device="meta"), **_SMALL),
}  # fmt: skip
