"""Tests of hwcost.cli.models."""

from __future__ import annotations

import pytest

from hwcost.cli.models import load_model
from hwcost.model.data import ModelError


def test_a_model_that_does_not_ship_is_refused():
    with pytest.raises(ModelError, match="no model ships for onnxruntime on 64 threads"):
        load_model("default", runtime="onnxruntime", threads=64)
