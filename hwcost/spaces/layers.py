"""Modules that the convolutional spaces share; every operation is a module, so that a trace tells where it stands."""

from __future__ import annotations

import torch
from torch import nn


def conv_norm(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution without bias, "same" padding, then batch normalisation."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class SqueezeExcite(nn.Module):
    """Channels times a gate that two 1x1 convolutions compute from the global mean (J. Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        gate: torch.Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gate


class Residual(nn.Module):
    """`body`, plus its input where `skip`."""

    def __init__(self, body: nn.Module, *, skip: bool) -> None:
        super().__init__()
        self.body = body
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c_in, h, w] -> [n, c_out, h, w]."""
        out: torch.Tensor = self.body(x)
        return x + out if self.skip else out


class Classifier(nn.Sequential):
    """Global mean and a linear layer: [n, c, h, w] -> [n, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
