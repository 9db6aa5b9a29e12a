"""`vit`: plain vision transformers (A. Dosovitskiy et al., ICLR 2021) between tiny and small.

Resolution, patch size, width, depth and the MLP's expansion are searched for the whole network; all layers are alike,
as in the paper's models. Heads are 64 wide. The classifier reads the mean of the tokens (X. Zhai et al., CVPR 2022), so
there is no class token.

The final norm belongs to the last layer's block: a runtime may fuse a norm with the addition before it, and no block
may end between two ops that some runtime fuses.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from hwcost.spaces.base import Block, Decision, Params, Site, Space
from hwcost.spaces.registry import register_space

HEAD = 64  # channels of an attention head
DEPTHS = (4, 6, 8, 10, 12)


@register_space
class ViT(Space):
    """The space `vit`; see the module."""

    name = "vit"
    decisions = (
        Decision("resolution", (128, 160, 192, 224)),
        Decision("patch", (16, 32)),
        Decision("width", (192, 256, 320, 384)),
        Decision("depth", DEPTHS),
        Decision("mlp", (2, 3, 4)),
    )

    def __init__(self, classes: int = 1000) -> None:
        self.classes = classes
        layers = (
            Site(f"layers.{j}", ("resolution", "patch", "width", "depth", "mlp"), partial(_layer, j))
            for j in range(max(DEPTHS))
        )
        self.sites = (
            Site("stem", ("resolution", "patch", "width"), _stem),
            *layers,
            Site("head", ("resolution", "patch", "width"), partial(_head, classes)),
        )

    def input_shape(self, params: Params) -> tuple[int, ...]:
        """[1, 3, resolution, resolution]."""
        return (1, 3, params["resolution"], params["resolution"])


def _tokens(p: Params) -> int:
    return int((p["resolution"] // p["patch"]) ** 2)


def _stem(p: Params) -> Block:
    shape = (1, 3, p["resolution"], p["resolution"])
    return Block(
        "stem", f"stem {shape} {p['patch']} {p['width']}", partial(Embed, _tokens(p), p["patch"], p["width"]), shape
    )


def _layer(j: int, p: Params) -> Block | None:
    if p["depth"] <= j:
        return None
    shape, last = (1, _tokens(p), p["width"]), p["depth"] == j + 1
    key = f"layer {shape} {p['mlp']}{' last' if last else ''}"
    return Block(f"layers.{j}", key, partial(Layer, p["width"], p["mlp"], last), shape)


def _head(classes: int, p: Params) -> Block:
    shape = (1, _tokens(p), p["width"])
    return Block("head", f"head {shape} {classes}", partial(_Head, p["width"], classes), shape)


class Embed(nn.Module):
    """Patches to tokens, with a learned embedding of positions: [n, 3, r, r] -> [n, tokens, width]."""

    def __init__(self, tokens: int, patch: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, width, patch, patch)
        self.place = nn.Parameter(torch.zeros(1, tokens, width))

    def reset_parameters(self) -> None:
        """Positions start at 0."""
        nn.init.zeros_(self.place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        tokens: torch.Tensor = self.project(x).flatten(2).transpose(1, 2)
        return self.place + tokens  # in this order, the sum has the memory layout of `place`: token by token


class Layer(nn.Module):
    """A pre-norm transformer layer, the `last` with the network's final norm: [n, tokens, width] -> the same shape."""

    def __init__(self, width: int, mlp: int, last: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp * width), nn.GELU(), nn.Linear(mlp * width, width))
        self.heads = width // HEAD
        self.final = nn.LayerNorm(width) if last else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(mixed)
        out: torch.Tensor = self.final(x + self.mlp(self.norm2(x)))
        return out


class _Head(nn.Module):
    """The mean of the tokens and a linear layer."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] -> [n, classes]."""
        out: torch.Tensor = self.classify(x.mean(1))
        return out
