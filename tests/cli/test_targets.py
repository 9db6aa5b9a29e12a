"""Tests of hwcost.cli.targets: how the command line names networks and inputs."""

from __future__ import annotations

import pytest
import torch

from hwcost.cli.common import UsageError
from hwcost.cli.targets import InputSpec, build_target, parse_inputs, parse_kwargs


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
    with pytest.raises(UsageError, match="sizes above 0 joined by x"):
        parse_inputs([text])


def test_input_of_an_unknown_dtype():
    with pytest.raises(UsageError, match=r"dtype must be one of .*float32.*'float33'"):
        parse_inputs(["1x3:float33"])


def test_no_input_at_all():
    with pytest.raises(UsageError, match="--input 1x3x224x224"):
        parse_inputs([])


def test_tensors():
    meta = InputSpec((2, 3), "int64").tensor()
    assert (meta.device.type, meta.dtype, tuple(meta.shape)) == ("meta", torch.int64, (2, 3))
    real = InputSpec((4,), "float16").tensor("cpu")
    assert real.dtype == torch.float16
    assert real.unique().numel() > 1  # not constant
    assert torch.equal(real, InputSpec((4,), "float16").tensor("cpu"))  # the same every time
    assert InputSpec((2,), "int32").tensor("cpu").tolist() == [0, 0]  # a valid index of any table


def test_kwargs():
    assert parse_kwargs("") == {}
    assert parse_kwargs('{"width": 8, "deep": true}') == {"width": 8, "deep": True}


@pytest.mark.parametrize("text", ["{", "[1]", "width=8", "7", "null"])
def test_kwargs_that_are_no_object(text):
    with pytest.raises(UsageError, match="must be a JSON object"):
        parse_kwargs(text)


def test_target_of_a_file(nets):
    module = build_target(f"{nets}:build", {"width": 6})
    assert module.stem.out_channels == 6
    assert not module.training


def test_target_of_a_module_and_of_the_working_folder(nets, monkeypatch):
    assert isinstance(build_target("torch.nn:Identity"), torch.nn.Identity)
    monkeypatch.chdir(nets.parent)
    assert build_target("nets:build").stem.out_channels == 4


def test_a_module_that_stands_in_the_file(nets):
    assert build_target(f"{nets}:ready").stem.out_channels == 4


def test_a_file_next_to_the_target_can_be_imported(nets):
    (nets.parent / "more.py").write_text("from nets import build as inner\ndef outer(): return inner(2)\n")
    assert build_target(f"{nets.parent / 'more.py'}:outer").stem.out_channels == 2


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("raises", "raised RuntimeError: no weights$"),
        ("number", "must return an nn.Module, but returned int"),
        ("bild", "has no 'bild'; it has .*build"),
        ("LIMIT", "must be callable, but is int"),
        ("build.x", "has no 'build.x'"),
    ],
)
def test_a_target_that_gives_no_network(nets, name, match):
    with pytest.raises(UsageError, match=match):
        build_target(f"{nets}:{name}")


def test_kwargs_that_the_callable_does_not_take(nets):
    with pytest.raises(UsageError, match=r"calling it with \(depth=3\) raised TypeError.*depth"):
        build_target(f"{nets}:build", {"depth": 3})


@pytest.mark.parametrize("target", ["resnet18", "nets.py", ":build", "nets:", ""])
def test_a_target_without_a_callable(target):
    with pytest.raises(UsageError, match=r"must be package.module:callable"):
        build_target(target)


def test_a_module_that_does_not_exist():
    with pytest.raises(UsageError, match="cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"):
        build_target("nowhere_at_all.models:x")


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        build_target(f"{tmp_path}/none.py:x")


def test_a_file_that_is_no_python(tmp_path):
    (tmp_path / "bad.py").write_text("def x(:\n")
    for _ in range(2):  # the second time must not find the half-made module
        with pytest.raises(UsageError, match="cannot be imported: SyntaxError"):
            build_target(f"{tmp_path}/bad.py:x")
