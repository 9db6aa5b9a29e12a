"""Every form of install holds the same package: wheel, sdist, editable, and a checkout without links."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINKS = {"hwcost/search": "../search", "hwcost/datasets": "../datasets"}
PROBE = """
import json, hwcost, hwcost.search, hwcost.search.spaces
devices = [hwcost.Device.load(name).name for name in hwcost.Device.names()]
print(json.dumps({"file": hwcost.__file__, "search": hwcost.search.__file__, "devices": devices}))
"""


def packed(folder: Path) -> set[str]:
    """Every file below a folder that an install must hold, links and what Python leaves behind aside."""
    left_out = {"__pycache__", *(str(Path(link).name) for link in LINKS if folder.name == "hwcost")}
    left_out |= {"optunahub"} if folder.name == "search" else set()  # for that registry, a package by itself
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not left_out & set(path.relative_to(folder).parts)
    }


def expected() -> set[str]:
    """The package's files as they must lie in a wheel, read from this checkout."""
    rooms = {"hwcost": ROOT / "hwcost", "hwcost/search": ROOT / "search", "hwcost/datasets": ROOT / "datasets"}
    return {f"{prefix}/{file}" for prefix, folder in rooms.items() for file in packed(folder)}


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output; a failure shows what the command said."""
    # PYTHONPATH would let the checkout stand in for the install that is tested.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_of_checkout(to: Path) -> Path:
    """What a build needs, elsewhere: a build leaves folders behind that a later one would pack."""
    for name in ("hwcost", "search", "datasets"):
        shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to / name)
    return to


def lose_links(checkout: Path) -> Path:
    """As git checks links out on a system without them: text files that hold the target."""
    for link, target in LINKS.items():
        (checkout / link).unlink()
        (checkout / link).write_text(target)
    return checkout


def build_wheel(source: Path, to: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", to, source, cwd=to)
    (wheel,) = to.glob("*.whl")
    return wheel


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def package(files: set[str]) -> set[str]:
    return {name for name in files if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_of_checkout(tmp_path_factory.mktemp("source"))
    return build_wheel(source, tmp_path_factory.mktemp("dist"))


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Python of an environment of its own that finds the dependencies of this one.

    torch is half a gigabyte, so it is not installed twice: a .pth file adds this environment's
    packages to the search path. An editable hwcost among them stays out of sight, since .pth files
    of a folder that was itself added by one are not read.
    """
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(site, "dependencies.pth").write_text("\n".join(paths))
    return python


def install(python: Path, *what: str | Path, cwd: Path) -> None:
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what, cwd=cwd)


def probe(python: Path, cwd: Path) -> dict[str, object]:
    """Import from an empty folder, so that no checkout is in reach, and load the whole catalogue."""
    import json

    cwd.mkdir(exist_ok=True)
    found: dict[str, object] = json.loads(run(python, "-c", PROBE, cwd=cwd))
    return found


def names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "datasets" / "devices").glob("*.toml"))


def test_the_links_of_the_checkout_are_committed_as_links() -> None:
    for link, target in LINKS.items():
        assert (ROOT / link).is_symlink()
        assert os.readlink(ROOT / link) == target


def test_datasets_is_data_and_no_package() -> None:
    # An __init__.py there would shadow the well-known package `datasets` for who runs in the checkout.
    assert not list((ROOT / "datasets").rglob("*.py"))


def test_the_list_of_packages_is_true() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {name.rpartition("/")[0].replace("/", ".") for name in expected()}
    on_disk |= {parent for name in on_disk for parent in [name.rpartition(".")[0]] if parent}
    assert sorted(listed) == sorted(on_disk), "pyproject.toml lists every folder that holds a file of the package"


def imported() -> set[str]:
    """Top-level names of other packages that the package imports, inside functions too."""
    found = set()
    for path in [*(ROOT / "hwcost").rglob("*.py"), *(ROOT / "search").rglob("*.py")]:
        if "optunahub" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"hwcost"}


def test_what_is_imported_is_required_and_what_is_required_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    used = ("dashboard", "dask", "onnx", "openvino", "postgresql")  # of the others, only data files are read
    required = [*project["dependencies"], *(line for extra in used for line in optional[extra])]
    stated = {re.split(r"[\[<>=]", line)[0] for line in required}
    other_names = {
        "optuna_dashboard": "optuna-dashboard",
        "sklearn": "scikit-learn",
        "tomli_w": "tomli-w",
        "pydantic_core": "pydantic",
    }
    by_name_alone = {"psycopg", "onnxscript"}  # sqlalchemy and torch.onnx load them
    assert {other_names.get(name, name) for name in imported()} - {"torchvision", "timm"} == stated - by_name_alone


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = contents(wheel)
    assert {name.split("/")[0] for name in files} == {"hwcost", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert package(files) == expected()
    assert "hwcost/py.typed" in files
    assert any(name.endswith("/licenses/LICENSE") for name in files)


def test_an_installed_wheel_works_from_anywhere(wheel: Path, venv: Path, tmp_path: Path) -> None:
    install(venv, wheel, cwd=tmp_path)
    found = probe(venv, tmp_path / "empty")
    assert Path(str(found["file"])).is_relative_to(tmp_path / "venv")
    assert Path(str(found["search"])).is_relative_to(tmp_path / "venv")
    assert found["devices"] == names()


def test_the_command_is_installed(wheel: Path, venv: Path, tmp_path: Path) -> None:
    install(venv, wheel, cwd=tmp_path)
    by_name = run(venv.parent / "hwcost", "--help", cwd=tmp_path)
    assert by_name == run(venv, "-m", "hwcost", "--help", cwd=tmp_path)
    assert "estimate" in by_name


def test_the_sdist_builds_the_same_wheel(tmp_path: Path) -> None:
    source = copy_of_checkout(tmp_path / "source")
    run(sys.executable, "-c", "from setuptools.build_meta import build_sdist; build_sdist('..')", cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert package(contents(build_wheel(unpacked, tmp_path))) == expected()


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_an_editable_install_works(links: bool, venv: Path, tmp_path: Path) -> None:
    checkout = copy_of_checkout(tmp_path / "checkout")
    if not links:
        lose_links(checkout)
    install(venv, "--editable", checkout, cwd=tmp_path)
    found = probe(venv, tmp_path / "empty")
    assert Path(str(found["file"])).is_relative_to(checkout)
    assert Path(str(found["search"])).is_relative_to(checkout)
    assert found["devices"] == names()


def test_a_checkout_without_links_works_where_it_lies(venv: Path, tmp_path: Path) -> None:
    checkout = lose_links(copy_of_checkout(tmp_path / "checkout"))
    assert probe(venv, checkout)["devices"] == names()


def test_a_checkout_without_links_builds_the_same_wheel(tmp_path: Path) -> None:
    checkout = lose_links(copy_of_checkout(tmp_path / "checkout"))
    assert package(contents(build_wheel(checkout, tmp_path))) == expected()
