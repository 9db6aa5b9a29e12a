"""Tests of hwcost.measure.items: what a campaign measures, built again from its specification."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch

from hwcost.measure.items import rebuild, sampled_items, target_item
from hwcost.measure.targets import InputSpec
from hwcost.measure.types import MeasurementError
from hwcost.spaces.designed.space import DesignedSpace
from hwcost.spaces.registry import get_space


def shapes(module):
    return [tuple(p.shape) for p in module.parameters()]


def spec_from_a_store(item):
    return json.loads(json.dumps(dict(item.spec), sort_keys=True))


@pytest.mark.parametrize("space", ["tiny-cnn", "designed"])
def test_a_network_of_a_space_is_built_again(space):
    for item in islice(sampled_items(DesignedSpace() if space == "designed" else get_space(space)), 3):
        module, inputs = item.build()
        again, inputs_again = rebuild(spec_from_a_store(item))
        assert str(again) == str(module)
        assert shapes(again) == shapes(module)
        assert [x.shape for x in inputs_again] == [x.shape for x in inputs]


def test_a_target_is_built_again():
    item = target_item("torch.nn:Linear", [InputSpec((2, 8))], {"in_features": 8, "out_features": 3}, written="{...}")
    assert item.name == "torch.nn:Linear({...})@2x8"
    module, (x,) = rebuild(spec_from_a_store(item))
    assert module(x).shape == (2, 3)
    assert torch.equal(x, item.build()[1][0])


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({}, "from a space or a target, but its spec is {}"),
        ({"source": "a table"}, "but its spec is .*a table"),
        ({"space": "tiny-cnn"}, "from its params, but"),
        ({"space": "no-such", "params": {}}, "no space 'no-such'"),
        ({"space": "tiny-cnn", "params": {}}, "cannot be built again"),
        ({"space": "designed", "params": {"seed": 1, "version": 1}}, "this one draws version"),
        ({"target": "nowhere:net", "kwargs": {}, "input": ["1x3"]}, "module nowhere cannot be imported"),
        ({"target": "torch.nn:Identity", "kwargs": {}, "input": ["1y3"]}, "sizes above 0"),
        ({"target": "torch.nn:Identity", "input": ["1x3"]}, "from its kwargs, but"),
    ],
)
def test_a_network_that_cannot_be_built_again(spec, match):
    with pytest.raises(MeasurementError, match=match) as raised:
        rebuild(spec)
    assert len(str(raised.value).splitlines()) == 1


def test_a_small_space_ends():
    assert len({item.name for item in islice(sampled_items(get_space("tiny-cnn")), 5)}) == 5
