"""The peak arithmetic of a CPU on paper, from its instruction set and its frequency.

Each core is taken to have two units that multiply and add one vector per cycle. AMD's Zen 4 has 512-bit vectors but
256-bit units, so that a 512-bit instruction takes both (A. Yee, "Zen5's AVX512 Teardown", numberworld.org, 2024).
"""

from __future__ import annotations

from hwcost import units
from hwcost.measure.machine import cpu_family, cpu_flags, frequency, vector_lanes

_PER_LANE = {"float32": 1, "bfloat16": 2, "int8": 4}  # numbers, and so products, in a lane of 32 bits (VNNI, BF16)
_MATRIX_UNITS = {"bfloat16": ("amx_bf16", 1024), "int8": ("amx_int8", 2048)}  # flag, flop per cycle and core (AMX)
_HALF_WIDE = ("AuthenticAMD", "25")  # vendor and family of Zen 4, and of Zen 3, which has no AVX-512


def datasheet_peak(threads: int, dtype: str = "float32") -> tuple[float | None, str]:
    """Peak rate (flop/s) of `threads` cores, and its derivation; None and "" where the system does not show enough."""
    flags, hertz = cpu_flags(), frequency()
    lanes = vector_lanes(flags)
    if not lanes or not hertz:
        return None, ""
    shown = f"{units.format(hertz, 'hertz')}, the frequency the system shows"
    flag, per_cycle = _MATRIX_UNITS.get(dtype, ("", 0))
    if flag in flags:
        return threads * per_cycle * hertz, f"{threads} x {per_cycle} flop of the matrix unit x {shown}"
    products = _PER_LANE[dtype]
    units_of_core = 1 if "avx512f" in flags and cpu_family() == _HALF_WIDE else 2
    flop = lanes * products * units_of_core * 2  # a multiply-add is two flop
    per_lane = f" x {products} products" if products > 1 else ""
    unit = "2 units" if units_of_core == 2 else "1 unit"
    return threads * flop * hertz, f"{threads} x {lanes} lanes{per_lane} x {unit} x 2 flop x {shown}"
