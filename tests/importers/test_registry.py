"""Tests of hwcost.importers.registry: formats are found by name, by path, and in files of other people."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwcost.extensions import ExtensionError
from hwcost.importers import registry
from hwcost.importers.registry import FormatError, formats, importer, read

OWN = """
from hwcost.graph import OpSpec, TensorSpec
from hwcost.importers.registry import Imported, importer
from hwcost.kernel import Kernel
from hwcost.measure.types import Environment, Measurements, Timing, lone

@importer("my-format", "a file of sizes and milliseconds of ReLU")
def read(path):
    networks = []
    for number, line in enumerate(path.read_text().splitlines()):
        size, seconds = int(line.split()[0]), float(line.split()[1]) / 1000
        relu = OpSpec("relu", (TensorSpec("self", (size,)),), (TensorSpec("out", (size,)),))
        timing = Timing(latency=seconds, median=seconds, p95=seconds, spread=0.05, rounds=1)
        networks.append(lone(f"relu/{number}", "relu", Kernel((relu,)), timing))
    here = Environment(cpu="toaster", cores=1, runtime="torch-eager", threads=1)
    return Imported((Measurements(environment=here, networks=tuple(networks)),))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importer in a file of its own; what it registers is forgotten after the test."""
    monkeypatch.setattr(registry, "_formats", {known.name: known for known in formats()})
    path = tmp_path / "my_importer.py"
    path.write_text(OWN)
    (tmp_path / "data.txt").write_text("1000 0.5\n2000 0.75\n")
    return path


def test_an_unknown_format_and_a_missing_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a format must be one of hwcost, kernels, neusight, but got 'csv'"):
        read("csv", tmp_path)
    with pytest.raises(FormatError, match="no file or folder"):
        read("neusight", tmp_path / "nowhere")
    assert [known.name for known in formats()] == ["hwcost", "kernels", "neusight"]


def imported(format_: str, own: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    data, store = own.with_name("data.txt"), own.with_name("store.db")
    argv = [sys.executable, "-m", "hwcost", "import", format_, str(data), "--store", str(store), "--json"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_a_format_of_ones_own_is_imported_by_its_name(own: Path) -> None:
    done = imported("my-format", own, HWCOST_EXTENSIONS=str(own))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["environments"]
    assert row == {"cpu": "toaster", "runtime": "torch-eager", "threads": 1, "read": 2, "new": 2}
    unknown = imported("my-format", own)
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)


def test_the_help_lists_a_format_of_ones_own(own: Path) -> None:
    argv, environment = [sys.executable, "-m", "hwcost", "import", "--help"], {"HWCOST_EXTENSIONS": str(own)}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    said = " ".join(done.stdout.split())
    assert "my-format is a file of sizes and milliseconds of ReLU." in said
    assert "neusight is a CSV file of GPU operators, or a folder of them." in said


def test_the_path_of_a_file_stands_for_the_format_that_it_registers(own: Path) -> None:
    (found,) = read(str(own), own.with_name("data.txt")).measurements
    assert [n.timing.latency for n in found.networks] == [0.5e-3, 0.75e-3]
    assert found.networks[1].kernels[0].kernel.ops[0].outputs[0].shape == (2000,)


def test_a_file_that_registers_nothing_or_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("import nowhere_at_all")
    with pytest.raises(FormatError, match=r"empty\.py must register one format .*, but has none"):
        read(str(tmp_path / "empty.py"), tmp_path)
    with pytest.raises(ExtensionError, match=r"broken\.py cannot be imported: No module named 'nowhere_at_all'"):
        read(str(tmp_path / "broken.py"), tmp_path)
    with pytest.raises(ExtensionError, match=r"no Python file .*none\.py"):
        read(str(tmp_path / "none.py"), tmp_path)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(FormatError, match=r"'neusight' is registered by .*neusight\.py already"):
        importer("neusight", "another")(lambda path: read("kernels", path))


def test_what_a_reader_cannot_read_is_one_line(own: Path) -> None:
    data = own.with_name("data.txt")
    data.write_text("one 0.5\n")
    with pytest.raises(FormatError, match=r"data\.txt cannot be read as my-format: ValueError: invalid literal"):
        read(str(own), data)
