"""Forty networks of other libraries with random weights, and an input of each: ten of them keep a key-value cache."""

# ruff: noqa: SIM905 - names read best as words

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, tuple[Any, ...]]

TORCHVISION = (
    "resnet18 resnet50 mobilenet_v2 mobilenet_v3_large vgg11 alexnet squeezenet1_0 densenet121 googlenet inception_v3 "
    "shufflenet_v2_x1_0 mnasnet1_0 efficientnet_b0 efficientnet_v2_s regnet_y_400mf convnext_tiny vit_b_16 swin_t "
    "swin_v2_t maxvit_t"
).split()
TIMM = (
    "ghostnet_100 mixer_s32_224 deit_tiny_patch16_224 levit_128s repvgg_a0 hrnet_w18_small "
    "xcit_nano_12_p16_224 poolformer_s12 fastvit_t8 edgenext_xx_small"
).split()
CAUSAL = "llama mistral qwen2 gemma gpt2 gpt_neox opt phi bloom stablelm".split()
_SIZES: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
_GATED = {"intermediate_size": 512, "num_key_value_heads": 2}
_MORE: dict[str, dict[str, Any]] = {
    "llama": _GATED,
    "mistral": _GATED,
    "qwen2": _GATED,
    "gemma": {**_GATED, "head_dim": 64},
    "gpt2": {"vocab_size": 1000, "n_embd": 256, "n_layer": 4, "n_head": 4},
    "gpt_neox": {"intermediate_size": 512},
    "opt": {"ffn_dim": 512, "word_embed_proj_dim": 256},
    "phi": {"intermediate_size": 512},
    "bloom": {"vocab_size": 1000, "hidden_size": 256, "n_layer": 4, "n_head": 4},
    "stablelm": _GATED,
}


def _torchvision(name: str) -> Made:
    import torchvision

    return torchvision.models.get_model(name, weights=None).eval(), (torch.rand(4, 3, 224, 224),)


def _timm(name: str) -> Made:
    import timm

    return timm.create_model(name, pretrained=False).eval(), (torch.rand(4, 3, 224, 224),)


def _causal(name: str) -> Made:
    """A small language model that returns the keys and values of all its layers beside the logits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(name, **{**_SIZES, **_MORE[name], **special}, use_cache=True)
    return AutoModelForCausalLM.from_config(config).eval(), (torch.randint(3, 1000, (2, 512)),)


NETWORKS: dict[str, Callable[[], Made]] = {
    **{f"torchvision/{name}": partial(_torchvision, name) for name in TORCHVISION},
    **{f"timm/{name}": partial(_timm, name) for name in TIMM},
    **{f"transformers/{name}": partial(_causal, name) for name in CAUSAL},
}
