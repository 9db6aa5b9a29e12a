"""Tests of the verb devices."""

from __future__ import annotations

import pytest


def test_devices_lists_the_catalogue(run):
    result = run("devices")
    assert result.code == 0
    assert "intel-i9-10980xe" in result.out


def test_devices_json_is_in_si(run):
    devices = {d["name"]: d for d in run("devices", "--json").json["devices"]}
    article = devices["intel-i9-10980xe"]  # measured under AVX-512 load: 2.86 TFLOP/s and 74 GB/s, ridge 38.6
    assert article["peak_flop_per_s"] == 2.86e12
    assert article["bandwidth_byte_per_s"] == 74e9
    assert article["ridge_flop_per_byte"] == pytest.approx(38.6, abs=0.05)


def test_one_device_with_its_sources(run, toy_device):
    result = run("devices", str(toy_device))
    assert "80 GFLOP/s" in result.out
    assert "100 GFLOP/s" in result.out
    assert "made up" in result.out
    assert "ridge point 8 FLOP/B" in result.out


def test_one_device_json(run, toy_device):
    document = run("devices", str(toy_device), "--json").json
    assert (
        document["compute"][0] | {"measured": 80e9, "paper": 100e9, "paper_source": "made up"} == document["compute"][0]
    )
    assert document["memory"][0]["measured"] == 10e9


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("no-such-device", "no-such-device"),
        ("missing.toml", "missing.toml"),
        ("bad.toml", "bad.toml.*bandwidth|bad.toml"),
    ],
)
def test_a_device_that_cannot_be_had(refused, tmp_path, monkeypatch, name, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text('name = "x"\n[[compute]]\nmeasured = "3 GB/s"\n')
    refused(["devices", name], match)
