"""Tests of hwcost.cli.output: JSON, progress and output paths."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwcost.cli.errors import UsageError
from hwcost.cli.output import print_json, progress, writable

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
    print_json({"inf": math.inf, "nan": [np.float64("nan")], "n": np.int64(3), "path": Path("a"), "t": (1, "é")})
    text = capsys.readouterr().out
    assert json.loads(text) == {"inf": None, "nan": [None], "n": 3, "path": "a", "t": [1, "é"]}
    assert "NaN" not in text
    assert "Infinity" not in text


# -- output paths ---------------------------------------------------------------------------------------


def test_output_must_be_in_a_folder_that_exists(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        writable(tmp_path / "none" / "x.html")


def test_output_must_not_be_a_folder(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        writable(tmp_path)


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no folder"):
        writable(tmp_path / "file" / "x.html")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may make a file")
def test_output_where_nobody_may_write_is_refused():
    with pytest.raises(UsageError, match="cannot be written"):
        writable(Path("/proc/x.html"))


def test_checking_an_output_leaves_no_trace_and_keeps_what_is_there(tmp_path):
    kept = tmp_path / "kept.html"
    kept.write_text("old")
    assert writable(kept) == kept
    writable(tmp_path / "new.html")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("kept.html", "old")]


# -- progress -------------------------------------------------------------------------------------------


def test_progress_goes_to_standard_error(capsys):
    with progress("working") as move:
        move(1, 2, "half")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "working" in captured.err
