"""The OptunaHub package against the rules of its registry (optunahub-registry: template, header_confirm.py)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml

PACKAGE = Path(__file__).parents[2] / "search" / "optunahub" / "hwcost_sampler"
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
SECTIONS = ["Abstract", "Class or Function Names", "Installation", "Example", "Others"]


def loaded() -> ModuleType:
    """As optunahub loads a package: from its folder, by path."""
    spec = spec_from_file_location("hwcost_sampler", PACKAGE / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def head() -> dict[str, Any]:
    """The front matter, read by another library than the one that reads it there."""
    found = re.match(r"---\n(.*?)\n---\n", README, re.S)
    assert found is not None
    return dict(yaml.safe_load(found[1]))


def test_the_front_matter_has_every_field_as_text() -> None:
    fields = head()
    for name in ("author", "title", "description"):
        assert isinstance(fields[name], str), name
        assert "Please fill in" not in fields[name]
    for name in ("tags", "optuna_versions"):
        assert fields[name], name
        assert all(isinstance(v, str) for v in fields[name]), name
    assert fields["license"] == "MIT License"
    assert "sampler" in fields["tags"]  # what lies in package/samplers must say so
    assert optuna.__version__ in fields["optuna_versions"]


def test_the_readme_keeps_the_templates_sections() -> None:
    assert re.findall(r"^## (.*)$", README, re.M) == SECTIONS
    assert "Please fill in" not in README


def test_the_folder_holds_what_a_package_needs() -> None:
    licence = (PACKAGE / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License\n\nCopyright (c) 20")
    assert "<COPYRIGHT HOLDER>" not in licence
    assert (PACKAGE / "requirements.txt").read_text(encoding="utf-8").split() == ["hwcost"]
    assert re.fullmatch(r"[a-z0-9_]+", PACKAGE.name)  # importable


def test_it_is_thin_and_names_what_it_exports() -> None:
    import hwcost.search

    module = loaded()
    named = README.partition("## Class or Function Names")[2].partition("\n`")[0]
    assert re.findall(r"^- (\w+)$", named, re.M) == module.__all__
    for name in module.__all__:
        assert getattr(module, name) is getattr(hwcost.search, name)


@pytest.mark.skipif(shutil.which("ruff") is None and not Path(sys.executable).with_name("ruff").exists(), reason="ruff")
def test_the_registrys_style_is_kept() -> None:
    ruff = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *command, str(PACKAGE)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


HUB = """
from importlib.util import module_from_spec, spec_from_file_location

def load_local_module(package, *, registry_root):
    spec = spec_from_file_location("loaded_package", f"{registry_root}/{package}/__init__.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry that holds this package, and a stand-in for optunahub where it is not installed."""
    shutil.copytree(PACKAGE, tmp_path / "package" / "samplers" / PACKAGE.name)
    if find_spec("optunahub") is None:
        (tmp_path / "optunahub.py").write_text(HUB)
    return tmp_path


@pytest.mark.parametrize("command", [["example.py"], ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]])
def test_the_example_and_the_packages_own_tests_run_in_a_registry(registry: Path, command: list[str]) -> None:
    """As the registry's guide says: from its root."""
    where = str(Path("package") / "samplers" / PACKAGE.name / command[-1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(registry), str(PACKAGE.parents[2])])}
    done = subprocess.run(
        [sys.executable, *command[:-1], where], cwd=registry, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 30 rejected before training" in done.stdout or "4 passed" in done.stdout


def test_the_readmes_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the registry replaced by this folder, and fewer trials."""
    asked: list[str] = []
    hub = SimpleNamespace(load_module=lambda package: (asked.append(package), loaded())[1])
    monkeypatch.setitem(sys.modules, "optunahub", hub)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    scope: dict[str, Any] = {}
    exec(code.replace("n_trials=30", "n_trials=5"), scope)
    assert asked == [f"samplers/{PACKAGE.name}"]
    assert len(scope["study"].trials) == 5
