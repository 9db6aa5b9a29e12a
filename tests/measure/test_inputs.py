"""Tests of hwcost.measure.inputs: inputs with values, written as text or held by files of numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwcost.measure.inputs import InputSpec, TargetError, parse_each, parse_input


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2x2=ones", [[1.0, 1.0], [1.0, 1.0]]),
        ("2x2:int64=zeros", [[0, 0], [0, 0]]),
        ("2x3:int32=arange", [[0, 1, 2], [3, 4, 5]]),
        ("2x2:int64=7", [[7, 7], [7, 7]]),
        ("3=0.5", [0.5, 0.5, 0.5]),
        ("2=-1e-3", [-0.001, -0.001]),
        ("2x2:int64=3,5,2,-1", [[3, 5], [2, -1]]),
        ("2:bool=1", [True, True]),
        ("3:bool=1,0,1", [True, False, True]),
        ("2:bool=ones", [True, True]),
        ("1:complex64=2", [2 + 0j]),
        ("3:int64=4..5", [4, 4, 4]),
        ("2:uint8=255", [255, 255]),
    ],
)
def test_values(text, values):
    spec = parse_input(text)
    got = spec.tensor("cpu")
    assert got.tolist() == pytest.approx(values) if isinstance(values[0], float) else got.tolist() == values
    assert str(got.dtype) == f"torch.{spec.dtype}"
    assert tuple(got.shape) == spec.shape
    assert spec.has_values
    assert parse_input(str(spec)) == spec
    assert spec.tensor().is_meta


def test_random_values_lie_in_the_range_and_repeat():
    drawn = parse_input("1000:int64=3..7").tensor("cpu")
    assert sorted(set(drawn.tolist())) == [3, 4, 5, 6]
    assert torch.equal(drawn, parse_input("1000:int64=3..7").tensor("cpu"))
    real = parse_input("1000:float64=random").tensor("cpu")
    assert 0 <= real.min() < 0.1 < 0.9 < real.max() < 1
    assert parse_input("100:bool=random").tensor("cpu").unique().tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("4=", "values must be zeros, ones, arange, random, a number, a range such as 0..100, or a list"),
        ("4=one", "values must be zeros, ones, .*, but got 'one'"),
        ("4:int64=1,x", "values must be zeros, ones"),
        ("4:int64=1,2", "4 needs 4 values, but the list has 2"),
        ("2x2=1,2,3,4,5", "2x2 needs 4 values, but the list has 5"),
        ("4=0..100", "a range draws integers, but float32 holds none; give =random"),
        ("4:bool=0..2", "a range draws integers, but bool holds none; give =random"),
        ("4:int64=random", "random integers need a range, such as =0..100"),
        ("4:int64=5..5", "a range must end above its beginning, but got 5..5"),
        ("4:int64=0.5", "its dtype holds whole numbers, but got 0.5"),
        ("4:uint8=0..300", "uint8 holds 0 to 255, but the values go from 0 to 299"),
        ("4:int8=-200", "int8 holds -128 to 127"),
        ("300:uint8=arange", "uint8 holds 0 to 255, but the values go from 0 to 299"),
        ("4:bool=2", "bool holds 0 to 1"),
        ("4:bool=arange", "arange counts, which bool cannot"),
        ("4:qint8=3", "values of qint8 can be zeros or ones only"),
        ("0x4=ones", "input must be sizes above 0"),
    ],
)
def test_values_that_cannot_be(text, match):
    with pytest.raises(TargetError, match=match) as error:
        parse_input(text)
    assert "\n" not in str(error.value)


@pytest.fixture
def arrays(tmp_path):
    held = {"ids": np.arange(6).reshape(2, 3), "mask": np.array([[True, False, True]])}
    np.savez(tmp_path / "both.npz", **held)
    np.savez_compressed(tmp_path / "packed.npz", **held)
    np.save(tmp_path / "one.npy", np.asfortranarray(np.ones((2, 3), np.float32)))
    np.savez(tmp_path / "none.npz")
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "both.npz").read_bytes()[:100])
    (tmp_path / "notes.npy").write_text("not numpy's")
    return tmp_path


@pytest.mark.parametrize("name", ["both.npz", "packed.npz"])
def test_a_file_gives_all_its_arrays_in_order(arrays, name):
    ids, mask = parse_each(str(arrays / name))
    assert (ids.shape, ids.dtype, mask.shape, mask.dtype) == ((2, 3), "int64", (1, 3), "bool")
    assert ids.tensor("cpu").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert mask.tensor("cpu").tolist() == [[True, False, True]]
    assert parse_input(str(mask)) == mask == parse_input(f"{arrays / name}:mask")


def test_a_file_of_one_array(arrays):
    spec = parse_input(str(arrays / "one.npy"))
    assert spec == InputSpec((2, 3), "float32", file=str(arrays / "one.npy"))
    assert torch.equal(spec.tensor("cpu"), torch.ones(2, 3))
    assert spec.tensor().is_meta


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere.npz", "there is no file .*nowhere.npz"),
        ("none.npz", "none.npz holds no array"),
        ("both.npz:id", "has no array 'id'; it has ids, mask"),
        ("one.npy:id", "has no array 'id'; it has one array without a name"),
        ("both.npz", "holds 2 arrays where one is wanted: give one of .*both.npz:ids, .*both.npz:mask"),
        ("text.npy", r"its array must have elements of a dtype of torch, but is \[2\] <U1"),
        ("objects.npy", "cannot be read as a file of numpy .*pickle"),
        ("empty.npy", r"but is \[0, 3\] float64"),
        ("damaged.npz", "cannot be read as a file of numpy"),
        ("notes.npy", "cannot be read as a file of numpy"),
    ],
)
def test_a_file_that_cannot_be_an_input(arrays, name, match):
    with pytest.raises(TargetError, match=match) as error:
        parse_input(str(arrays / name))
    assert "\n" not in str(error.value)


def test_a_file_that_would_fill_the_memory_is_refused(arrays, monkeypatch):
    monkeypatch.setattr("hwcost.measure.inputs._LIMIT", 100)
    with pytest.raises(TargetError, match="bytes, and 100 are the most that is read"):
        parse_input(str(arrays / "packed.npz"))
