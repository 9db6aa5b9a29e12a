"""Fourier transforms: 5 n log2 n flop for a complex one of length n, half of that for a real one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import hwcost

REAL, COMPLEX = torch.float32, torch.complex64


@pytest.mark.parametrize(
    ("function", "shape", "dtype", "each"),
    [
        (torch.fft.fft, (3, 16), COMPLEX, 5.0),
        (torch.fft.fft, (3, 16), REAL, 2.5),
        (torch.fft.rfft, (3, 16), REAL, 2.5),
        (torch.fft.irfft, (3, 9), COMPLEX, 2.5),
        (torch.fft.hfft, (3, 9), COMPLEX, 2.5),  # the spectrum is real, the signal conjugate symmetric
        (torch.fft.ihfft, (3, 16), REAL, 2.5),
        (lambda x: torch.fft.rfft(x, n=16), (3, 100), REAL, 2.5),  # cut to 16
        (lambda x: torch.fft.fft(x, n=16), (3, 5), COMPLEX, 5.0),  # padded to 16
    ],
)
def test_three_transforms_of_length_16(function: Any, shape: tuple[int, ...], dtype: Any, each: float) -> None:
    assert hwcost.trace(function, torch.zeros(shape, dtype=dtype)).cost.other_flops == 3 * each * 16 * math.log2(16)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("as_complex", [True, False])
def test_a_spectrogram_in_either_form(as_complex: bool) -> None:
    """For each frame of each signal a real transform, and a product with the window."""
    x, window = torch.zeros(2, 64), torch.ones(16)
    graph = hwcost.trace(
        lambda x, w: torch.stft(x, 16, 4, window=w, center=False, return_complex=as_complex), (x, window)
    )
    frames = 2 * ((64 - 16) // 4 + 1)
    stft = next(op for op in graph.ops if op.spec.kind == "stft")
    assert stft.cost.other_flops == frames * (16 + 2.5 * 16 * 4)


def test_back_from_a_spectrogram() -> None:
    x, window = torch.zeros(2, 9, 13, dtype=COMPLEX), torch.hann_window(16)
    graph = hwcost.trace(lambda x, w: torch.istft(x, 16, 4, window=w), (x, window))
    length = graph.ops[-1].spec.outputs[0].numel
    frames = 2 * 13
    assert graph.status == "complete"
    assert graph.cost.other_flops == frames * (2.5 * 16 * 4 + 2 * 16) + length
