"""Tests of hwcost.report.columns: one unit and one number of decimals a column."""

from __future__ import annotations

import math

import pytest

from hwcost.report.columns import column, interval, percent


@pytest.mark.parametrize(
    ("values", "head", "cells"),
    [
        ([6.668e-3, 10.268e-3, 25.69e-3], "t (ms)", ["6.7", "10.3", "25.7"]),
        ([1.234e-3, 2e-3, 3e-3], "t (ms)", ["1.23", "2.00", "3.00"]),
        ([250e-3, 310e-3], "t (ms)", ["250", "310"]),
        ([4e-3, 5e-3, 1e-6], "t (ms)", ["4.00", "5.00", "<0.01"]),  # not "0.00": it is something
        ([4e-3, 5e-3, 0.0], "t (ms)", ["4.00", "5.00", "0"]),
        ([None, math.nan, 2.0], "t (s)", ["-", "-", "2.00"]),
        ([], "t (s)", []),
        ([0.0], "t (s)", ["0"]),
    ],
)
def test_column(values, head, cells):
    assert column("t", values, "second") == (head, cells)


def test_columns_beside_each_other_have_one_unit():
    predicted, low = [1.1e-3, 2.0e-3, 3.0e-3], [0.9e-3, 0.95e-3, 2.8e-3]
    assert column("low", low, "second")[0] == "low (µs)"
    assert column("low", low, "second", predicted) == ("low (ms)", ["0.90", "0.95", "2.80"])


def test_column_of_another_dimension():
    assert column("macs", [16_800_000, 520], "mac")[0] in ("macs (MMAC)", "macs (kMAC)")


def test_percent():
    assert percent(0.0489) == "4.9 %"
    assert percent(0.5, 0) == "50 %"
    assert percent(math.nan) == "-"


def test_interval():
    assert interval(5.1e-3, 4.6e-3, 5.7e-3) == "5.1 ms (4.6 ms to 5.7 ms)"
