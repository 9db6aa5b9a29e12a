"""The contract of every verb, and the helpers behind it: errors, JSON, options, output paths."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from hwcost import cli
from hwcost.cli import common
from hwcost.model.cost_model import ModelError

VERBS = sorted(c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback)
HEAVY = ("torch", "sklearn", "numpy", "pandas", "pydantic", "optuna", "plotly", "sqlalchemy")


# -- every verb -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_and_json(verb, run):
    result = run(verb, "--help")
    assert result.code == 0
    assert f"$ hwcost {verb}" in result.out
    assert "--json" in result.out


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_is_refused(verb, refused):
    refused([verb, "--bogus"], rf"--bogus.*hwcost {verb} --help")


def test_help_of_the_whole_lists_every_verb(run):
    result = run("--help")
    assert result.code == 0
    assert all(f" {verb} " in result.out for verb in VERBS)
    assert "$ hwcost quickstart" in result.out
    assert run().out == result.out  # no verb at all


def test_an_unknown_verb_is_refused(refused):
    refused(["estimat"], "estimat.*hwcost --help")


def test_version(run):
    assert run("--version").out.startswith("hwcost 0.")


def test_the_module_is_the_command_and_loads_nothing_heavy():
    code = f"import sys, hwcost.cli; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    done = subprocess.run([sys.executable, "-m", "hwcost", "estimat"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


# -- errors: who caused it --------------------------------------------------------------------------


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
    _raises(common.UsageError("first line\n   second line"), monkeypatch)
    refused(["devices"], "first line second line$")


def test_a_plain_value_error_raised_by_this_package_is_for_the_user(refused, nets, toy_device, tmp_path):
    plot = tmp_path / "plot.html"
    argv = ["roofline", f"{nets}:build", "-i", "1x3x8x8", "-d", str(toy_device), "-o", str(plot), "--runtime", "jit"]
    refused(argv, "runtime must be one of torch-eager.*'jit'")
    assert not plot.exists()


def test_a_file_that_cannot_be_read_is_named(refused, monkeypatch):
    _raises(PermissionError(13, "Permission denied", "/data/x.db"), monkeypatch)
    refused(["devices"], "/data/x.db: Permission denied")


def test_ctrl_c_ends_with_130_and_one_line(run, monkeypatch):
    _raises(KeyboardInterrupt(), monkeypatch)
    result = run("devices")
    assert (result.code, result.out, result.err) == (130, "", "hwcost: interrupted\n")


# -- JSON ---------------------------------------------------------------------------------------------


def test_json_is_the_only_thing_on_standard_output(run, nets, toy_device, tmp_path):
    plot = tmp_path / "plot.html"
    argv = ["roofline", f"{nets}:build", "-i", "1x3x8x8", "-d", str(toy_device), "-o", str(plot), "--json"]
    result = run(*argv)
    assert result.code == 0, result.err
    assert result.json["path"] == str(plot)
    assert "talks while it is imported" in result.err  # a user's module printed; it must not reach the document


def test_what_libraries_write_to_the_descriptor_is_no_part_of_the_document(toy_device, tmp_path):
    """Compiled code does not know `sys.stdout`: it writes to descriptor 1, at once or when the C library sees fit."""
    (tmp_path / "loud.py").write_text(
        "import ctypes, os\nfrom torch import nn\n\n\ndef build():\n    os.write(1, b'at once\\n')\n"
        "    ctypes.CDLL(None).printf(b'held back\\n')\n    return nn.Linear(4, 4)\n"
    )
    command = [sys.executable, "-m", "hwcost", "estimate", f"{tmp_path / 'loud.py'}:build", "-i", "1x4"]
    done = subprocess.run([*command, "-d", str(toy_device), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["macs"] == 16
    assert "at once" in done.stderr
    assert "held back" in done.stderr


def test_json_is_standard_json(capsys):
    common.print_json({"inf": math.inf, "nan": [np.float64("nan")], "n": np.int64(3), "path": Path("a"), "t": (1, "é")})
    text = capsys.readouterr().out
    assert json.loads(text) == {"inf": None, "nan": [None], "n": 3, "path": "a", "t": [1, "é"]}
    assert "NaN" not in text
    assert "Infinity" not in text


# -- output paths ---------------------------------------------------------------------------------------


def test_output_must_be_in_a_folder_that_exists(tmp_path):
    with pytest.raises(common.UsageError, match="there is no folder"):
        common.writable(tmp_path / "none" / "x.html")


def test_output_must_not_be_a_folder(tmp_path):
    with pytest.raises(common.UsageError, match="is a folder"):
        common.writable(tmp_path)


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(common.UsageError, match="no folder"):
        common.writable(tmp_path / "file" / "x.html")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may make a file")
def test_output_where_nobody_may_write_is_refused():
    with pytest.raises(common.UsageError, match="cannot be written"):
        common.writable(Path("/proc/x.html"))


def test_checking_an_output_leaves_no_trace_and_keeps_what_is_there(tmp_path):
    kept = tmp_path / "kept.html"
    kept.write_text("old")
    assert common.writable(kept) == kept
    common.writable(tmp_path / "new.html")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("kept.html", "old")]


# -- small things -----------------------------------------------------------------------------------------


def test_examples_are_printed_as_they_are_written():
    app = typer.Typer()
    app.command(epilog=common.examples("hwcost x [0:1]", "hwcost y"))(lambda: None)
    from typer.testing import CliRunner

    assert "$ hwcost x [0:1]" in CliRunner().invoke(app, ["--help"]).output


def test_progress_goes_to_standard_error(capsys):
    with common.progress("working") as move:
        move(1, 2, "half")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "working" in captured.err


def test_a_model_that_does_not_ship_is_refused():
    with pytest.raises(ModelError, match="no model ships for onnxruntime on 64 threads"):
        common.load_model("default", runtime="onnxruntime", threads=64)
