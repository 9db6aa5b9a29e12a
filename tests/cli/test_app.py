"""Tests of hwcost.cli.app: what holds for every verb."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hwcost.cli.app import app

VERBS = sorted(c.name or c.callback.__name__ for c in app.registered_commands if c.callback)
HEAVY = ("torch", "sklearn", "numpy", "pandas", "pydantic", "optuna", "plotly", "sqlalchemy")


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
    code = f"import sys, hwcost.cli.app; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    done = subprocess.run([sys.executable, "-m", "hwcost", "estimat"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
