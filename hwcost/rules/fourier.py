"""Fourier transforms and spectrograms.

A complex transform of length n counts 5 n log2(n) flop, the convention by which FFTs are compared (M. Frigo,
S. G. Johnson, "The design and implementation of FFTW3", Proc. IEEE 93(2), 2005); a real one counts half of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwcost.graph import OpSpec
from hwcost.rules.arithmetic import is_complex, parts
from hwcost.rules.registry import Work, rule


def _flops(shape: Sequence[int], axes: Sequence[int], *, real: bool) -> int:
    """Flop of transforms along `axes` of a signal of this shape, of N elements.

    An axis of length n takes N / n transforms of 5 n log2(n) flop, and all together 5 N log2(product of the lengths).
    """
    lengths = math.prod(shape[axis] for axis in axes)
    return round((2.5 if real else 5.0) * math.prod(shape) * math.log2(max(lengths, 1)))


# [*, n] = fft_fft([*, n], n?, dim)        [*, n/2+1] = fft_rfft([*, n], ...)        [*, n, m] = fft_fft2(...)
@rule(
    "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft", "fft_fft2", "fft_ifft2", "fft_rfft2",
    "fft_irfft2", "fft_hfft2", "fft_ihfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn", "fft_hfftn",
    "fft_ihfftn", "_fft_r2c", "_fft_c2r", "_fft_c2c",
)  # fmt: skip
def fft(op: OpSpec) -> Work:
    """Real transforms are those between a real signal and its complex spectrum, in either direction.

    The signal is as long as `n` or `s` says, to which the input is cut or padded. Where the spectrum of a real signal
    holds half of the coefficients, the last axis of the signal is as long as that of the input.
    """
    source, out = op.inputs[0], op.outputs[0]
    if not out.numel:
        return Work()
    axes, sizes = _axes(op, len(out.shape)), _sizes(op)
    shape = list(out.shape)
    if not is_complex(source) and axes:  # the other axes of the signal are as long as those of the result
        shape[axes[-1]] = sizes[-1] if sizes and sizes[-1] > 0 else source.shape[axes[-1]]
    return Work(other_flops=_flops(shape, axes, real=not (is_complex(source) and is_complex(out))))


def _axes(op: OpSpec, ndim: int) -> tuple[int, ...]:
    """The axes that are transformed."""
    given = op.param("dim")
    if isinstance(given, tuple):
        return tuple(a for a in given if isinstance(a, int))
    if isinstance(given, int):
        return (given,)
    if op.kind.endswith("n"):
        return tuple(range(-(len(_sizes(op)) or ndim), 0))
    return (-2, -1) if op.kind.endswith("2") else (-1,)


def _sizes(op: OpSpec) -> tuple[int, ...]:
    """The lengths that the call asks for; none where it leaves them to the input."""
    given = op.param("n", op.param("s"))
    if isinstance(given, tuple):
        return tuple(n for n in given if isinstance(n, int))
    return (given,) if isinstance(given, int) else ()


# [*, f, t] = stft([*, n], n_fft, hop, win, window?)        [*, n] = istft([*, f, t], n_fft, ...)
@rule("stft", "istft")
def stft(op: OpSpec) -> Work:
    """For each frame a transform, and one multiplication per element with the window.

    The inverse adds the frames up where they overlap, and divides by the sum of the squares of the windows there: one
    addition per element of a frame, one division per element of the result. A complex signal counts twice, with a
    complex transform.
    """
    n = op.param("n_fft", 1)
    size = n if isinstance(n, int) else 1
    inverse = op.kind == "istft"
    spectrum, signal = (op.inputs[0], op.outputs[0]) if inverse else (op.outputs[0], op.inputs[0])
    shape = spectrum.shape if is_complex(spectrum) else spectrum.shape[:-1]  # without the axis of both parts
    frames = math.prod(shape[:-2]) * shape[-1]
    transforms = frames * _flops((size,), (0,), real=not is_complex(signal))
    each = 2 * frames * size if inverse else frames * size
    return Work(other_flops=transforms + parts(signal) * (each + (signal.numel if inverse else 0)))
