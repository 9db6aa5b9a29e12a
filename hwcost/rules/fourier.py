"""Fourier transforms and spectrograms.

A complex transform of length n counts 5 n log2(n) flop, the convention by which FFTs are compared (M. Frigo,
S. G. Johnson, "The design and implementation of FFTW3", Proc. IEEE 93(2), 2005); a real one counts half of that.
"""

from __future__ import annotations

import math

from hwcost.graph import OpSpec, TensorSpec
from hwcost.rules.registry import Work, rule


def _flops(full: TensorSpec, axes: tuple[int, ...], *, real: bool) -> int:
    """Flop of transforms along `axes` of a tensor of N elements.

    An axis of length n takes N / n transforms of 5 n log2(n) flop, and all together 5 N log2(product of the lengths).
    """
    lengths = math.prod(full.shape[axis] for axis in axes)
    return round((2.5 if real else 5.0) * full.numel * math.log2(max(lengths, 2)))


# [*, n] = fft_fft([*, n], n?, dim)        [*, n/2+1] = fft_rfft([*, n], ...)        [*, n, m] = fft_fft2(...)
@rule(
    "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft", "fft_fft2", "fft_ifft2", "fft_rfft2",
    "fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn", "_fft_r2c", "_fft_c2r", "_fft_c2c",
)  # fmt: skip
def fft(op: OpSpec) -> Work:
    """The larger of input and output is transformed: a real signal of length n has n / 2 + 1 complex coefficients."""
    kind = op.kind
    full = max(op.inputs[0], op.outputs[0], key=lambda t: t.numel)
    given = op.param("dim")
    if isinstance(given, tuple):
        axes = tuple(a for a in given if isinstance(a, int))
    elif isinstance(given, int):
        axes = (given,)
    else:
        axes = tuple(range(len(full.shape))) if kind.endswith("n") else (-2, -1) if kind.endswith("2") else (-1,)
    return Work(other_flops=_flops(full, axes, real="r" in kind.removeprefix("fft_").removeprefix("_fft_")))


# [*, f, t] = stft([*, n], n_fft, hop, win, window?)        [*, n] = istft([*, f, t], n_fft, ...)
@rule("stft", "istft")
def stft(op: OpSpec) -> Work:
    """For each frame a real transform, and one multiplication per element with the window."""
    n = op.param("n_fft", 1)
    size = n if isinstance(n, int) else 1
    spectrum = op.outputs[0] if op.kind == "stft" else op.inputs[0]
    frames = spectrum.numel // max(spectrum.shape[-2 if op.kind == "istft" or "complex" in spectrum.dtype else -3], 1)
    return Work(other_flops=round(frames * (size + 2.5 * size * math.log2(max(size, 2)))))
