"""Tests of hwcost.extensions: what is imported, how often, and what is said of a file that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwcost.extensions import ExtensionError, from_file


def run(code: str, *extensions: Path) -> subprocess.CompletedProcess[str]:
    named = os.environ | {"HWCOST_EXTENSIONS": os.pathsep.join(map(str, extensions))}
    return subprocess.run([sys.executable, "-c", code], env=named, capture_output=True, text=True, timeout=300)


def test_a_file_that_extends_two_registries_runs_once(tmp_path: Path) -> None:
    both = tmp_path / "both.py"
    both.write_text(
        "from hwcost.rules.registry import Work, rule\n"
        "from hwcost.tracing.shapes.registry import has_shape_function, shape_function\n"
        "print('runs')\n"
        "rule('my_lib.twice')(lambda op: Work())\n"
        "assert has_shape_function('aten.relu.default')\n"  # fills the second registry while the first is being filled
        "shape_function('my_lib.twice.default')(lambda x: x)\n"
    )
    code = (
        "from hwcost.rules.registry import known_kinds\n"
        "from hwcost.tracing.shapes.registry import has_shape_function\n"
        "print('my_lib.twice' in known_kinds()[0], has_shape_function('my_lib.twice.default'))\n"
    )
    done = run(code, both)
    assert done.stdout.split() == ["runs", "True", "True"], done.stderr


def test_threads_wait_until_a_registry_is_complete() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from hwcost.rules.registry import known_kinds\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    found = {len(kinds) for kinds, _ in pool.map(lambda _: known_kinds(), range(8))}\n"
        "print(found == {len(known_kinds()[0])})\n"
    )
    done = run(code)
    assert done.stdout.split() == ["True"], done.stderr


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_of_anybody\n")
    with pytest.raises(
        ExtensionError, match=r"broken\.py cannot be imported: No module named 'no_such_module_of_anybody'"
    ):
        from_file(broken)
    with pytest.raises(ExtensionError, match="no Python file"):
        from_file(tmp_path / "missing.py")


def test_a_file_is_imported_again_once_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "changing_extension.py"
    file.write_text("VALUE = 1\n")
    first = from_file(file)
    assert from_file(file) is first
    file.write_text("VALUE = 1234\n")
    assert from_file(file).VALUE == 1234
