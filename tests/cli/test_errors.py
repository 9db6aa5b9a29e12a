"""Tests of hwcost.cli.errors: who caused an error, and what is said of it."""

from __future__ import annotations

import pytest

from hwcost.cli.errors import UsageError


def _raises(error: Exception | KeyboardInterrupt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `hwcost devices` raise `error` from a place that is not this package."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("hwcost.device.device.Device.names", fail)


def test_a_bug_keeps_its_traceback(run, monkeypatch):
    _raises(KeyError("a bug"), monkeypatch)
    with pytest.raises(KeyError):
        run("devices")


def test_a_value_error_of_another_library_is_a_bug(run, monkeypatch):
    _raises(ValueError("shapes do not match"), monkeypatch)
    with pytest.raises(ValueError, match="shapes"):
        run("devices")


def test_a_type_of_this_package_is_for_the_user_and_fits_on_one_line(refused, monkeypatch):
    _raises(UsageError("first line\n   second line"), monkeypatch)
    refused(["devices"], "first line second line$")


def test_a_plain_value_error_raised_by_this_package_is_for_the_user(refused, nets, toy_device, tmp_path):
    plot = tmp_path / "plot.html"
    argv = ["roofline", f"{nets}:build", "-i", "1x3x8x8", "-d", str(toy_device), "-o", str(plot), "--runtime", "jit"]
    refused(argv, "runtime must be one of onnxruntime.*torch-eager.*'jit'")
    assert not plot.exists()


def test_a_file_that_cannot_be_read_is_named(refused, monkeypatch):
    _raises(PermissionError(13, "Permission denied", "/data/x.db"), monkeypatch)
    refused(["devices"], "/data/x.db: Permission denied")


def test_ctrl_c_ends_with_130_and_one_line(run, monkeypatch):
    _raises(KeyboardInterrupt(), monkeypatch)
    result = run("devices")
    assert (result.code, result.out, result.err) == (130, "", "hwcost: interrupted\n")
