"""Pieces of designed chains whose input is tokens, [n, t, d]: batch, tokens, width."""

from __future__ import annotations

from torch import nn

from hwcost.spaces.designed.attention import Attention, BlockAttention, LinearAttention
from hwcost.spaces.designed.draws import Maker, Rng, activation, arithmetic, channels, function, pick, reordered, width
from hwcost.spaces.designed.modules import (
    AcrossTokens,
    AddedProduct,
    ClassToken,
    Concatenated,
    Mean,
    OnMap,
    Recurrent,
    Residual,
    Shape,
    Split,
    Transposed,
    height_of,
)


def _attention(rng: Rng, shape: Shape) -> nn.Module:
    d = shape[2]
    heads = int(rng.choice([h for h in (1, 2, 3, 4, 6, 8, 12, 16) if d % h == 0 and d // h >= 8] or [1]))
    bias = shape[1] if rng.random() < 0.3 else 0
    reduce = int(pick(rng, 2, 4, 16)) if shape[1] > 16 and rng.random() < 0.2 else 1
    packed = reduce == 1 and rng.random() < 0.6
    attention = Attention(
        d, heads, fused=bool(rng.random() < 0.6), bias=bias, reduce=reduce, packed=packed,
        table=bool(rng.random() < 0.5), talking=bool(rng.random() < 0.2),
    )  # fmt: skip
    return Residual(nn.Sequential(nn.LayerNorm(d), attention))


def _other_attention(rng: Rng, shape: Shape) -> nn.Module:
    d = shape[2]
    heads = int(rng.choice([h for h in (1, 2, 4, 8, 16) if d % h == 0 and d // h >= 8] or [1]))
    blocks = [b for b in (2, 4, 9, 16) if shape[1] % b == 0]
    form: nn.Module
    if blocks and rng.random() < 0.4:
        form = BlockAttention(d, heads, int(rng.choice(blocks)))
    else:
        form = LinearAttention(d, heads, channels=bool(rng.random() < 0.5))
    return Residual(nn.Sequential(nn.LayerNorm(d), form))


def _feed_forward(rng: Rng, shape: Shape) -> nn.Module:
    d = shape[2]
    hidden = max(8, round(d * float(pick(rng, 1, 2, 3, 4))))
    inside = [_over_map(rng, hidden)] if rng.random() < 0.15 else []
    body = nn.Sequential(
        nn.Linear(d, hidden), *inside, function(rng, gelu=0.5), nn.Dropout(), nn.Linear(hidden, d), nn.Dropout()
    )
    return Residual(nn.Sequential(nn.LayerNorm(d), body) if rng.random() < 0.7 else body)


def _over_map(rng: Rng, d: int) -> nn.Module:
    """A convolution of each channel over tokens that lie on a map (arXiv:2105.15203)."""
    kernel = int(pick(rng, 3, 3, 5, 7))
    return OnMap(nn.Conv2d(d, d, kernel, padding=kernel // 2, groups=d))


def _position(rng: Rng, shape: Shape) -> nn.Module:
    return Residual(_over_map(rng, shape[2]))


def _reduced(rng: Rng, shape: Shape) -> nn.Module:
    """Tokens seen as a map, of which a strided convolution makes fewer tokens."""
    side = min(int(pick(rng, 1, 2)), height_of(shape[1]))
    return OnMap(nn.Conv2d(shape[2], width(rng), side, side)) if shape[1] > 32 else _linear(rng, shape)


def _across(rng: Rng, shape: Shape) -> nn.Module:
    """A feed-forward across tokens (arXiv:2105.01601), or half of the channels, mixed across tokens, gating the other
    half (gMLP, arXiv:2105.08050)."""
    d, t = shape[2], shape[1]
    if d % 2 == 0 and rng.random() < 0.5:
        return Split(nn.Sequential(nn.LayerNorm(d // 2), AcrossTokens(nn.Linear(t, t))), gate=True, dim=-1)
    hidden = int(pick(rng, 64, 128, 256))
    return Residual(
        nn.Sequential(
            nn.LayerNorm(d), AcrossTokens(nn.Sequential(nn.Linear(t, hidden), nn.GELU(), nn.Linear(hidden, t)))
        )
    )


def _linear(rng: Rng, shape: Shape) -> nn.Module:
    out = width(rng) if rng.random() < 0.7 else channels(rng, 8, 1500)
    return nn.Linear(shape[2], out, bias=bool(rng.random() < 0.8))


def _product(rng: Rng, shape: Shape) -> nn.Module:
    return AddedProduct(shape[2], width(rng))


def _recurrent(rng: Rng, shape: Shape) -> nn.Module:
    make, hidden = pick(rng, nn.LSTM, nn.LSTM, nn.GRU), int(pick(rng, 16, 32, 48, 64, 96, 128, 192, 256))
    return Recurrent(make, shape[2], hidden, both=bool(rng.random() < 0.5))


def _along(rng: Rng, shape: Shape) -> nn.Module:
    """A one-dimensional convolution along the tokens, ordinary or depthwise."""
    d, kernel = shape[2], int(pick(rng, 3, 5, 7, 9))
    conv = nn.Conv1d(d, d, kernel, padding=kernel // 2, groups=int(pick(rng, 1, d)))
    return nn.Sequential(Transposed(), conv, function(rng), Transposed())


def _token_norm(rng: Rng, shape: Shape) -> nn.Module:
    return nn.LayerNorm(shape[2]) if rng.random() < 0.7 else nn.Softmax(dim=int(pick(rng, 1, 2, 2)))


def _token_concat(rng: Rng, shape: Shape) -> nn.Module:
    return Concatenated([nn.Identity(), nn.Linear(shape[2], shape[2])], dim=int(pick(rng, 1, 2)))


def _gated(rng: Rng, shape: Shape) -> nn.Module:
    """A gated linear unit (arXiv:2002.05202)."""
    d, hidden = shape[2], width(rng)
    return nn.Sequential(nn.Linear(d, 2 * hidden), Split(function(rng), gate=True, dim=-1), nn.Linear(hidden, d))


def _class_token(rng: Rng, shape: Shape) -> nn.Module:
    return ClassToken(shape[2], add=bool(shape[1] < 2 or rng.random() < 0.7))


def _token_mean(rng: Rng, shape: Shape) -> nn.Module:
    return nn.Sequential(Mean(1, keep=True), nn.Linear(shape[2], int(pick(rng, 10, 100, 1000))))


TOKEN_PIECES: tuple[tuple[float, Maker], ...] = (
    (30, _attention), (25, _feed_forward), (15, _linear), (8, _token_norm), (5, activation), (6, arithmetic),
    (4, _token_concat), (5, _gated), (3, _class_token), (1, _token_mean), (3, reordered),
    (5, _product), (5, _recurrent), (3, _along), (8, _other_attention), (5, _position), (3, _reduced), (5, _across),
)  # fmt: skip
