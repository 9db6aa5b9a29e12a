"""What a CPU promises: the rate of its arithmetic by the instructions that it has and the frequency that it shows.

Two units of a core multiply and add a vector each per cycle. AMD's Zen 4 has vectors of 512 bits but units of 256, so
that one takes both (A. Yee, "Zen5's AVX512 Teardown", numberworld.org, 2024).
"""

from __future__ import annotations

from hwcost import units
from hwcost.measure.machine import cpu_family, cpu_flags, frequency, vector_lanes

_PER_LANE = {"float32": 1, "bfloat16": 2, "int8": 4}  # products of 32 bits' worth of numbers (VNNI, AVX512-BF16)
_TILES = {"bfloat16": ("amx_bf16", 1024), "int8": ("amx_int8", 2048)}  # flop per cycle of a core's matrix unit (AMX)
_HALF_WIDE = ("AuthenticAMD", "25")  # vendor and family: Zen 3, which has no AVX-512, and Zen 4


def paper_peak(threads: int, dtype: str = "float32") -> tuple[float | None, str]:
    """Peak rate (flop/s) by the instruction set and the frequency shown, with its derivation."""
    flags, hertz = cpu_flags(), frequency()
    lanes = vector_lanes(flags)
    if not lanes or not hertz:
        return None, ""
    shown = f"{units.format(hertz, 'hertz')}, the frequency the system shows"
    flag, per_cycle = _TILES.get(dtype, ("", 0))
    if flag in flags:
        return threads * per_cycle * hertz, f"{threads} x {per_cycle} flop of the matrix unit x {shown}"
    products = _PER_LANE[dtype]
    number = 1 if "avx512f" in flags and cpu_family() == _HALF_WIDE else 2
    flop = lanes * products * number * 2  # a multiply-add is two flop
    each = f" x {products} products" if products > 1 else ""
    unit = "2 units" if number == 2 else "1 unit"
    return threads * flop * hertz, f"{threads} x {lanes} lanes{each} x {unit} x 2 flop x {shown}"
