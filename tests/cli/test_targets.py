"""Tests of hwcost.cli.targets: how the command line names networks and inputs."""

from __future__ import annotations

import pytest

from hwcost.cli.errors import UsageError
from hwcost.cli.targets import parse_inputs, parse_kwargs
from hwcost.measure.targets import InputSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        ("7", InputSpec((7,))),
        (" 2x16:int64 ", InputSpec((2, 16), "int64")),
        ("2x16:bfloat16", InputSpec((2, 16), "bfloat16")),
    ],
)
def test_input(text, spec):
    assert parse_inputs([text]) == (spec,)
    assert parse_inputs([str(spec)]) == (spec,)  # printed as it is read


def test_inputs_keep_their_order():
    assert [s.shape for s in parse_inputs(["1x2", "3"])] == [(1, 2), (3,)]


@pytest.mark.parametrize("text", ["", "x", "1x", "1x0x3", "-1x3", "1,3", "1x3x", "1.5", "1x3:", "1x3:int64:int8"])
def test_input_that_is_no_shape(text):
    with pytest.raises(UsageError, match=r"^--input must be sizes above 0 joined by x"):
        parse_inputs([text])


def test_input_of_an_unknown_dtype():
    with pytest.raises(UsageError, match=r"dtype must be one of .*float32.*'float33'"):
        parse_inputs(["1x3:float33"])


def test_no_input_at_all():
    with pytest.raises(UsageError, match="--input 1x3x224x224"):
        parse_inputs([])


def test_kwargs():
    assert parse_kwargs("") == {}
    assert parse_kwargs('{"width": 8, "deep": true}') == {"width": 8, "deep": True}


@pytest.mark.parametrize("text", ["{", "[1]", "width=8", "7", "null"])
def test_kwargs_that_are_no_object(text):
    with pytest.raises(UsageError, match="must be a JSON object"):
        parse_kwargs(text)
