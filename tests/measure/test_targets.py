"""Tests of hwcost.measure.targets: networks and inputs by name."""

from __future__ import annotations

import sys

import pytest
import torch

from hwcost.measure.targets import InputSpec, TargetError, build_target, parse_input

NETS = '''
"""Networks for these tests."""
from torch import nn

print("this module talks while it is imported")

LIMIT = 3


def build(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())


def raises():
    raise RuntimeError("no weights\\nhere")


def number():
    return 7


ready = build()
'''


@pytest.fixture
def nets(tmp_path, monkeypatch):
    for name in ("nets", "more"):  # of another test
        monkeypatch.delitem(sys.modules, name, raising=False)
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


def test_tensors():
    meta = InputSpec((2, 3), "int64").tensor()
    assert (meta.device.type, meta.dtype, tuple(meta.shape)) == ("meta", torch.int64, (2, 3))
    real = InputSpec((4,), "float16").tensor("cpu")
    assert real.dtype == torch.float16
    assert real.unique().numel() > 1  # not constant
    assert torch.equal(real, InputSpec((4,), "float16").tensor("cpu"))  # the same every time
    assert InputSpec((2,), "int32").tensor("cpu").tolist() == [0, 0]  # a valid index of any table


def test_target_of_a_file(nets):
    module = build_target(f"{nets}:build", {"width": 6})
    assert module[0].out_channels == 6
    assert not module.training


def test_target_of_a_module_and_of_the_working_folder(nets, monkeypatch):
    assert isinstance(build_target("torch.nn:Identity"), torch.nn.Identity)
    monkeypatch.chdir(nets.parent)
    assert build_target("nets:build")[0].out_channels == 4


def test_a_module_that_stands_in_the_file(nets):
    assert build_target(f"{nets}:ready")[0].out_channels == 4


def test_a_file_next_to_the_target_can_be_imported(nets):
    (nets.parent / "more.py").write_text("from nets import build as inner\ndef outer(): return inner(2)\n")
    assert build_target(f"{nets.parent / 'more.py'}:outer")[0].out_channels == 2


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
    with pytest.raises(TargetError, match=match):
        build_target(f"{nets}:{name}")


def test_kwargs_that_the_callable_does_not_take(nets):
    with pytest.raises(TargetError, match=r"calling it with \(depth=3\) raised TypeError.*depth"):
        build_target(f"{nets}:build", {"depth": 3})


@pytest.mark.parametrize("target", ["resnet18", "nets.py", ":build", "nets:", ""])
def test_a_target_without_a_callable(target):
    with pytest.raises(TargetError, match=r"must be package.module:callable"):
        build_target(target)


def test_a_module_that_does_not_exist():
    with pytest.raises(TargetError, match="cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"):
        build_target("nowhere_at_all.models:x")


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(TargetError, match="does not exist"):
        build_target(f"{tmp_path}/none.py:x")


def test_a_file_that_is_no_python(tmp_path):
    (tmp_path / "bad.py").write_text("def x(:\n")
    for _ in range(2):  # the second time must not find the half-made module
        with pytest.raises(TargetError, match="cannot be imported: SyntaxError"):
            build_target(f"{tmp_path}/bad.py:x")


def test_a_file_named_like_another_module(tmp_path):
    import code

    (tmp_path / "code.py").write_text(NETS)
    assert build_target(f"{tmp_path}/code.py:build")[0].out_channels == 4
    assert "interact" in vars(code)
    assert __import__("code") is code


def test_what_the_code_prints_goes_to_standard_error(nets, capsys):
    build_target(f"{nets}:build")
    assert capsys.readouterr() == ("", "this module talks while it is imported\n")


def test_input_is_read_as_it_is_written():
    assert parse_input(str(InputSpec((2, 3), "int64"))) == InputSpec((2, 3), "int64")
