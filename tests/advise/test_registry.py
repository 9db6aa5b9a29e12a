"""Tests of hwcost.advise.registry: a kind of advice is one file, this project's or somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

OWN = """
from hwcost.advise.edits import Edit, rewrite
from hwcost.advise.registry import rule

@rule
def no_activations(context):
    kinds = ("relu", "gelu")
    changed = {i: () for i, op in enumerate(context.graph.ops) if op.spec.kind in kinds}
    if changed:
        yield Edit("no activation at all", ("everywhere",), rewrite(context.graph, changed))
"""


@pytest.mark.parametrize("found", [True, False])
def test_a_kind_of_ones_own_is_found(tmp_path: Path, found: bool) -> None:
    (tmp_path / "my_advice.py").write_text(OWN)
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.ReLU(), nn.GELU())\n"
    )
    argv = ["advise", f"{tmp_path / 'nets.py'}:net", "-i", "1x64", "-d", "intel-i9-10980xe", "--json"]
    environment = {"HWCOST_EXTENSIONS": str(tmp_path / "my_advice.py")} if found else {}
    done = subprocess.run(
        [sys.executable, "-m", "hwcost", *argv],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    own = [row for row in json.loads(done.stdout)["advice"] if row["change"] == "no activation at all"]
    assert [row["where"] for row in own] == ([["everywhere"]] if found else [])
    assert all(row["gain"] == 1 for row in own)
