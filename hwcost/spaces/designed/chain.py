"""Designed networks that are chains of pieces, each drawn independently of the others.

Real networks combine few of the possible sizes and ops; chains cover the others. A chain starts from an image at full
size, from a feature map or from tokens. Pieces are convolutions (kernel sizes 1 to 7, strides, groups, depthwise,
dilated, transposed), residual and branched blocks, squeeze-excite, attention (with bias, with fewer keys), feed-forward
and gated blocks, recurrence, normalisation, activation, elementwise arithmetic, pooling, means, resizing, padding,
concatenation, splitting, channel shuffles, windows and other copies, and classifiers with large matrices. Channels are
multiples of 8 with probability 0.7; sizes are drawn log-uniformly; the batch is 1 with probability 0.6.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hwcost.spaces.designed.draws import (
    Maker,
    Rng,
    activation,
    after_others,
    arithmetic,
    channels,
    function,
    log_uniform,
    pick,
    reordered,
    width,
)
from hwcost.spaces.designed.modules import (
    ChannelsLast,
    Concatenated,
    Mean,
    Residual,
    Selective,
    Shape,
    Shuffled,
    Split,
    SqueezeExcite,
    Transposed,
    Windows,
)
from hwcost.spaces.designed.tokens import TOKEN_PIECES
from hwcost.tracing.trace import trace

_TIMES = (3e-4, 2.5e-2)  # s: least and most expected time of a chain
# A rough machine, for expected times: flop/s, byte/s, s for each op.
_RATE, _BANDWIDTH, _CALL = 4e10, 1e10, 5e-6
_ACTIVATION_LIMIT = 1 << 23  # elements of one activation
_WEIGHT_LIMIT = 1 << 27  # elements of one matrix of a classifier
_MOST_PIECES, _TRIES = 14, 30


def chain(rng: Rng) -> tuple[nn.Module, Shape]:
    """A random chain and the shape of its input."""
    start = shape = _start(rng)
    left = log_uniform(rng, *_TIMES)
    pieces: list[nn.Module] = []
    for _ in range(_TRIES):
        if left <= 0 or len(pieces) == _MOST_PIECES:
            break
        kinds = TOKEN_PIECES if len(shape) == 3 else MAP_PIECES
        weights = np.array([weight for weight, _ in kinds], float)
        piece = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))][1](rng, shape)
        seconds, after = expected(piece, shape)
        if seconds > max(2 * left, 2 * _TIMES[0]) or int(np.prod(after)) > _ACTIVATION_LIMIT or min(after) < 1:
            continue  # too long for the time that is left, too large, or without elements: draw another piece
        pieces.append(piece)
        shape, left = after, left - seconds
    return nn.Sequential(*pieces) if pieces else activation(rng, shape), start


def expected(piece: nn.Module, shape: Shape) -> tuple[float, Shape]:
    """The expected time of a piece (s), and the shape of its output."""
    graph = trace(piece, (torch.empty(shape, device="meta"),))
    after = graph.ops[-1].spec.outputs[0].shape
    return graph.cost.flops / _RATE + graph.cost.bytes / _BANDWIDTH + len(graph.ops) * _CALL, after


def _start(rng: Rng) -> Shape:
    batch = 1 if rng.random() < 0.6 else int(pick(rng, 2, 4, 8, 16))
    form = rng.random()
    if form < 0.25:  # an image at full size, for a stem
        size = int(pick(rng, 64, 96, 128, 160, 192, 224))
        return (batch, int(pick(rng, 1, 3, 3, 3)), size, size)
    if form < 0.7:
        size = round(log_uniform(rng, 7, 112))
        return (batch, min(channels(rng), 4 * 10**5 // size**2 + 3), size, size)
    return (batch, round(log_uniform(rng, 8, 800)), width(rng))


# -- pieces of maps [n, c, h, w] --------------------------------------------------------------------


def _conv(rng: Rng, shape: Shape) -> nn.Module:
    c, h = shape[1], shape[2]
    kernel = int(rng.choice([1, 2, 3, 4, 5, 6, 7], p=[0.3, 0.03, 0.4, 0.03, 0.12, 0.02, 0.1]))
    if kernel % 2 == 0 and h == 1:
        kernel -= 1  # an even kernel does not fit a map of one row, padding included
    stride = int(rng.choice([1, 2, 4], p=[0.7, 0.27, 0.03])) if h > 6 else 1
    dilation = int(pick(rng, 2, 3, 4)) if kernel > 1 and stride == 1 and h > 12 and rng.random() < 0.12 else 1
    out = channels(rng) if rng.random() < 0.7 else c
    groups = 1
    if rng.random() < 0.15:
        groups = max(g for g in (1, 2, 3, 4, 8, 16, 32) if c % g == 0 and (g == 1 or rng.random() < 0.6))
        out = max(groups, out // groups * groups)
    layers: list[nn.Module] = [
        nn.Conv2d(c, out, kernel, stride, dilation * (kernel - 1) // 2, dilation, groups, bias=bool(rng.random() < 0.5))
    ]
    if rng.random() < 0.6:
        layers.append(nn.BatchNorm2d(out))
    if rng.random() < 0.75:
        layers.append(after_others(rng))
    return nn.Sequential(*layers)


def _depthwise(rng: Rng, shape: Shape) -> nn.Module:
    c, h = shape[1], shape[2]
    kernel, stride = int(pick(rng, 3, 3, 5, 7, 7, 9, 11)), int(pick(rng, 1, 1, 2)) if h > 6 else 1
    dilation = 2 if stride == 1 and h > 12 and rng.random() < 0.1 else 1
    out = c * int(pick(rng, 1, 1, 1, 1, 1, 2))
    layers = [
        nn.Conv2d(c, out, kernel, stride, dilation * (kernel // 2), dilation, groups=c, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, *([after_others(rng)] if rng.random() < 0.7 else []))


def _inverted(rng: Rng, shape: Shape) -> nn.Module:
    """Expand, depthwise, maybe squeeze-excite, project; residual where the shapes allow it."""
    c, hidden = shape[1], max(8, round(shape[1] * float(pick(rng, 1, 2, 3, 4, 6)) / 8) * 8)
    act, stride = after_others(rng), int(pick(rng, 1, 1, 2)) if shape[2] > 6 else 1
    kernel = int(pick(rng, 3, 5, 7))
    out = c if rng.random() < 0.6 else channels(rng)
    layers = [nn.Conv2d(c, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act]
    layers += [
        nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
        nn.BatchNorm2d(hidden),
    ]
    layers += [act, *([SqueezeExcite(hidden, max(1, hidden // 4))] if rng.random() < 0.5 else [])]
    layers += [nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out)]
    body = nn.Sequential(*layers)
    return Residual(body, into=bool(rng.random() < 0.5)) if stride == 1 and out == c else body


def _bottleneck(rng: Rng, shape: Shape) -> nn.Module:
    c = shape[1]
    inner, act = max(4, c // int(pick(rng, 1, 2, 4))), after_others(rng)
    layers = [nn.Conv2d(c, inner, 1, bias=False), nn.BatchNorm2d(inner), act]
    layers += [nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), act]
    layers += [nn.Conv2d(inner, c, 1, bias=False), nn.BatchNorm2d(c)]
    return nn.Sequential(Residual(nn.Sequential(*layers), into=bool(rng.random() < 0.5)), act)


def _branches(rng: Rng, shape: Shape) -> nn.Module:
    """Convolutions of the same input, concatenated, maybe with the input itself, as in inception and dense blocks."""
    c = shape[1]
    wide = [channels(rng, 8, 128) for _ in range(int(pick(rng, 1, 2, 3, 4)))]
    made: list[nn.Module] = []
    for out in wide:
        kernel = int(pick(rng, 1, 3, 5))
        made.append(nn.Sequential(nn.Conv2d(c, out, kernel, padding=kernel // 2), function(rng)))
    if len(made) == 1 or rng.random() < 0.4:
        made.append(nn.Identity() if rng.random() < 0.6 else nn.MaxPool2d(3, 1, 1))
    return Concatenated(made)


def _pool(rng: Rng, shape: Shape) -> nn.Module:
    if shape[2] < 4:
        return activation(rng, shape)
    kernel = int(pick(rng, 2, 3))
    stride = int(pick(rng, 1, 2))
    make = nn.MaxPool2d if rng.random() < 0.6 else nn.AvgPool2d
    return make(kernel, stride, kernel // 2)


def _resize(rng: Rng, shape: Shape) -> nn.Module:
    mode = str(pick(rng, "nearest", "nearest", "bilinear", "bilinear", "bicubic"))
    up = shape[2] <= 56
    return nn.Upsample(scale_factor=2.0 if up else 0.5, mode=mode)


def _transposed(rng: Rng, shape: Shape) -> nn.Module:
    kernel = int(pick(rng, 2, 3, 4))
    return nn.ConvTranspose2d(shape[1], channels(rng, 8, 128), kernel, 2, padding=(kernel - 1) // 2)


def _map_norm(rng: Rng, shape: Shape) -> nn.Module:
    c = shape[1]
    groups = [g for g in (1, 2, 4, 8, 32) if c % g == 0]
    if rng.random() < 0.15:
        return nn.Softmax(dim=1)
    return nn.BatchNorm2d(c) if rng.random() < 0.4 else nn.GroupNorm(int(rng.choice(groups)), c)


def _to_tokens(rng: Rng, shape: Shape) -> nn.Module:
    """Patches become tokens."""
    patch = int(
        rng.choice([p for p in (1, 2, 4, 8, 16) if p <= shape[2] and (shape[2] // p) ** 2 <= 800] or [shape[2]])
    )
    return nn.Sequential(nn.Conv2d(shape[1], width(rng), patch, patch), nn.Flatten(2), Transposed())


def _scores(rng: Rng, shape: Shape) -> nn.Module:
    """Global pooling and a classifier, whose scores become a map of 1 x 1."""
    classes = int(pick(rng, 10, 100, 1000))
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if rng.random() < 0.5 else [Mean(2, 3, keep=False)]
    layers = [*pool, nn.Linear(shape[1], classes)]
    return nn.Sequential(*layers, nn.Unflatten(1, (classes, 1, 1)))


def _gate(rng: Rng, shape: Shape) -> nn.Module:
    return SqueezeExcite(shape[1], max(1, shape[1] // int(pick(rng, 4, 8, 16))))


def head(rng: Rng) -> tuple[nn.Module, Shape]:
    """A classifier as networks end in, and the shape of its input, a small map of many channels."""
    size = int(pick(rng, 1, 2, 4, 7, 7))
    shape = (1 if rng.random() < 0.8 else int(pick(rng, 2, 8)), int(pick(rng, 128, 256, 512, 768, 1024)), size, size)
    return _classifier(rng, shape), shape


def _classifier(rng: Rng, shape: Shape) -> nn.Module:
    """Flatten the map and classify with large matrices, as VGG does: most of the traffic is weights."""
    size, hidden = int(pick(rng, 1, 2, 4, 7)), int(pick(rng, 256, 512, 1024, 2048, 4096))
    size = size if shape[2] % size == 0 else 1  # ONNX can only export pooling to a divisor of the map's side
    hidden = min(hidden, _WEIGHT_LIMIT // (shape[1] * size**2))
    layers = [nn.AdaptiveAvgPool2d(size), nn.Flatten(), nn.Linear(shape[1] * size**2, hidden), nn.ReLU()]
    layers += [nn.Linear(hidden, int(pick(rng, 100, 1000, hidden))), nn.Softmax(dim=-1)]
    return nn.Sequential(*layers, nn.Unflatten(1, (-1, 1, 1)))


def _selective(rng: Rng, shape: Shape) -> nn.Module:
    c = shape[1]
    branches = [nn.Sequential(nn.Conv2d(c, c, k, padding=k // 2), after_others(rng)) for k in (3, int(pick(rng, 1, 5)))]
    return Selective(branches, c, max(4, c // 8))


def _shuffle(rng: Rng, shape: Shape) -> nn.Module:
    groups = [g for g in (2, 3, 4, 8) if shape[1] % g == 0] or [1]
    return Shuffled(int(rng.choice(groups)))


def _channels_last(rng: Rng, shape: Shape) -> nn.Module:
    """A layer norm over channels, and maybe a feed-forward on them, as in ConvNeXt (arXiv:2201.03545)."""
    c = shape[1]
    if c < 16:
        return activation(rng, shape)
    if rng.random() < 0.4:
        return ChannelsLast(nn.LayerNorm(c))
    hidden = c * int(pick(rng, 2, 4))
    body = ChannelsLast(
        nn.Sequential(nn.LayerNorm(c), nn.Linear(c, hidden), function(rng, gelu=0.7), nn.Linear(hidden, c))
    )
    return Residual(nn.Sequential(nn.Conv2d(c, c, 7, padding=3, groups=c), body) if rng.random() < 0.6 else body)


def _windows(rng: Rng, shape: Shape) -> nn.Module:
    """Windows of tokens, as in Swin (arXiv:2103.14030)."""
    sizes = [s for s in (4, 7, 8, 14) if shape[2] % s == 0]
    if not sizes or shape[1] < 16:
        return activation(rng, shape)
    size = int(rng.choice(sizes))
    return Windows(size, size // 2 if rng.random() < 0.5 else 0)


def _padded(rng: Rng, shape: Shape) -> nn.Module:
    side = int(pick(rng, 1, 2, 3))
    pad = nn.ZeroPad2d((0, side, 0, side)) if rng.random() < 0.5 else nn.ZeroPad2d(side)
    return nn.Sequential(pad, nn.MaxPool2d(3, 2)) if shape[2] > 6 and rng.random() < 0.3 else pad


def _halves(rng: Rng, shape: Shape) -> nn.Module:
    c = shape[1]
    if c % 2:
        return activation(rng, shape)
    body = nn.Identity() if rng.random() < 0.5 else nn.Conv2d(c // 2, c // 2, 3, padding=1, bias=False)
    return Split(body, gate=bool(rng.random() < 0.4), dim=1)


MAP_PIECES: tuple[tuple[float, Maker], ...] = (
    (30, _conv), (8, _depthwise), (12, _inverted), (8, _bottleneck), (7, _branches), (6, _pool), (3, _resize),
    (3, _transposed), (4, _map_norm), (4, activation), (4, arithmetic), (3, _gate), (3, _to_tokens), (1, _scores),
    (2, _classifier), (3, _shuffle), (5, _channels_last), (3, _windows), (2, _padded), (3, _halves), (3, reordered),
    (2, _selective),
)  # fmt: skip
