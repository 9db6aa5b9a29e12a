"""Tests of hwcost.units: every prefix, what people write by mistake, and the way back."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost import units
from hwcost.units import Dimension, UnitError

DIMENSIONS = get_args(Dimension)
finite = st.floats(1e-300, 1e300) | st.floats(1e-12, 1e21)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("5ms", "second", 5e-3),
        ("5 ms", "second", 5e-3),
        ("  5   ms  ", "second", 5e-3),
        ("1.2e3 us", "second", 1.2e-3),
        (".5 s", "second", 0.5),
        ("2. s", "second", 2.0),
        ("10 min", "second", 600.0),
        ("2 h", "second", 7200.0),
        ("-3 ms", "second", -3e-3),
        ("32 MiB", "byte", 32 * 1024 * 1024),
        ("32 MB", "byte", 32e6),
        ("74 GB/s", "byte/s", 74e9),
        ("2 GiB/s", "byte/s", 2 * 1024**3),
        ("2.9 TFLOP/s", "flop/s", 2.9e12),
        ("2.9 Tflop/s", "flop/s", 2.9e12),
        ("3.6 GFLOP", "flop", 3.6e9),
        ("2.9 GHz", "hertz", 2.9e9),
        ("38.6 FLOP/B", "flop/byte", 38.6),
        ("1.8 GMAC", "mac", 1.8e9),
        ("2.3 pJ", "joule", 2.3e-12),
        ("5 uJ", "joule", 5e-6),
        ("3 kJ", "joule", 3e3),
    ],
)
def test_parse(text: str, dimension: Dimension, value: float) -> None:
    assert units.parse(text, dimension) == value


# The prefixes themselves, from the SI brochure and IEC 80000-13, written out once more.
@pytest.mark.parametrize(
    ("prefix", "size"),
    [("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9), ("T", 10**12), ("P", 10**15), ("E", 10**18)],
)
def test_every_decimal_prefix(prefix: str, size: int) -> None:
    for dimension, symbol in [
        ("byte", "B"),
        ("byte/s", "B/s"),
        ("flop", "FLOP"),
        ("flop/s", "FLOP/s"),
        ("flop/s", "flop/s"),
        ("hertz", "Hz"),
        ("mac", "MAC"),
    ]:
        assert units.parse(f"3 {prefix}{symbol}", dimension) == 3 * size  # type: ignore[arg-type]
        if symbol != "flop/s":  # read, but written with capitals
            assert units.format(3 * size, dimension) == f"3 {prefix}{symbol}"  # type: ignore[arg-type]


@pytest.mark.parametrize(("prefix", "size"), [("Ki", 1024), ("Mi", 1048576), ("Gi", 1073741824), ("Ti", 1099511627776)])
def test_every_binary_prefix_is_read_and_bytes_alone_have_them(prefix: str, size: int) -> None:
    assert units.parse(f"3 {prefix}B", "byte") == 3 * size
    assert units.parse(f"3 {prefix}B/s", "byte/s") == 3 * size
    with pytest.raises(UnitError):
        units.parse(f"3 {prefix}FLOP/s", "flop/s")


@pytest.mark.parametrize(
    ("unit", "size"),
    [("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ns", 1e-9), ("ps", 1e-12)],
)
def test_every_time_unit(unit: str, size: float) -> None:
    assert units.parse(f"1 {unit}", "second") == size


@pytest.mark.parametrize(
    ("text", "dimension", "says"),
    [
        ("5", "second", "needs a unit, but got '5'; did you mean \"5 ms\""),
        ("", "second", "needs a number and a unit"),
        ("ms", "second", "needs a number and a unit"),
        ("fast", "second", "needs a number and a unit"),
        ("5 MS", "second", 'did you mean "5 ms"'),  # mega is no prefix of a latency
        ("5 GB", "second", "'GB' is no unit of second"),
        ("5 mb/s", "byte/s", 'did you mean "5 MB/s"'),
        ("5 Gb/s", "byte/s", 'did you mean "5 GB/s"'),  # a bit is not a byte
        ("5 GB", "byte/s", "'GB' is no unit of byte/s"),
        ("5 KB", "byte", 'did you mean "5 kB"'),  # 1000 or 1024?
        ("2.9 TFLOPS", "flop/s", 'did you mean "2.9 TFLOP/s"'),
        ("1,000 ms", "second", "is no unit of second"),
        ("5 ms 3 us", "second", "is no unit of second"),
        ("1e999 s", "second", "finite"),
        ("1e99999999999999999999 s", "second", "finite"),
        (math.nan, "second", "finite"),
        (math.inf, "flop/s", "finite"),
        (True, "second", "needs a number and a unit"),
        (None, "second", "needs a number and a unit"),
    ],
)
def test_what_is_refused_and_what_the_error_says(text: str, dimension: Dimension, says: str) -> None:
    with pytest.raises(UnitError) as error:
        units.parse(text, dimension)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(DIMENSIONS))
def test_a_number_is_si_already(value: float, dimension: Dimension) -> None:
    assert units.parse(value, dimension) == value


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (74e9, "byte/s", "74 GB/s"),
        (2.86e12, "flop/s", "2.86 TFLOP/s"),
        (0.00512, "second", "5.12 ms"),
        (1.5, "second", "1.5 s"),
        (600.0, "second", "600 s"),
        (2.5e-6, "second", "2.5 µs"),
        (160e-12, "joule", "160 pJ"),
        (3e-10, "second", "300 ps"),
        (999.4e3, "byte", "999 kB"),
        (999.6e3, "byte", "1 MB"),  # not 1000 kB
        (0.9996e-3, "second", "1 ms"),
        (100, "byte", "100 B"),
        (0.0, "second", "0 s"),
        (-0.0012, "second", "-1.2 ms"),
        (38.6486, "flop/byte", "38.6 FLOP/B"),
        (math.inf, "flop/byte", "inf FLOP/B"),
        (5e24, "byte", "5000000 EB"),
    ],
)
def test_format(value: float, dimension: Dimension, text: str) -> None:
    assert units.format(value, dimension) == text


@given(finite, st.sampled_from(DIMENSIONS), st.integers(1, 15))
def test_what_is_printed_reads_back_within_the_printed_digits(value: float, dimension: Dimension, digits: int) -> None:
    text = units.format(value, dimension, digits=digits)
    # Rounding to d significant digits is off by at most half a unit of the last one.
    assert units.parse(text, dimension) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - digits) * (1 + 1e-9))


@given(finite | finite.map(lambda v: -v) | st.just(0.0), st.sampled_from(DIMENSIONS))
def test_the_exact_form_reads_back_as_the_same_float(value: float, dimension: Dimension) -> None:
    assert units.parse(units.exact(value, dimension), dimension) == value


@given(st.floats(1e-12, 999e18), st.sampled_from([d for d in DIMENSIONS if d != "flop/byte"]))
def test_one_to_three_digits_stand_before_the_point(value: float, dimension: Dimension) -> None:
    number = float(units.format(value, dimension).split()[0])
    small = dimension in ("second", "joule")
    assert number < 1000 or (small and value >= 1000)  # nobody writes kiloseconds
    assert number >= 1 or (not small and value < 1)  # nor millibytes


def test_the_dimension_must_be_known() -> None:
    with pytest.raises(UnitError, match="dimension must be one of second, byte"):
        units.format(1.0, "metre")  # type: ignore[arg-type]
