"""The house rules that a machine can check: who may import whom, sizes, words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A module imports from lower lines only; rooms of one line do not know each
# other. "a+b" is one room in two files, and a package is one room: within it files import freely.
LAYERS = (
    ("units", "cost", "shipped"),
    ("graph",),
    ("device+ceiling",),
    ("rules",),
    ("kernel",),
    ("tracing", "roofline"),
    ("runtimes",),
    ("measure",),
    ("calibration+kinds+paper+probes",),
    ("estimate", "templates"),
    ("accuracy",),
    ("features",),
    ("residual",),
    ("fitting+intervals+about+fitcache",),
    ("model+modelfile+compose+assemble",),
    ("table+tablefile+tablevalues+tablemerge+tablesum+lookup+pricing+generation+classical", "baselines"),
    ("advise",),
    ("importers", "report"),
    ("search",),
    ("cli",),
    ("__init__", "__main__"),  # the face, and `python -m hwcost`
)
ROOM = {module: room for layer in LAYERS for room in layer for module in room.split("+")}
HEIGHT = {module: i for i, layer in enumerate(LAYERS) for room in layer for module in room.split("+")}


def sources() -> dict[str, Path]:
    """Every module of the package by its dotted name, "hwcost.rules.matmul"."""
    found = {}
    for folder, prefix in ((ROOT / "hwcost", "hwcost"), (ROOT / "search", "hwcost.search")):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if folder.name == "hwcost" and inside.parts[0] in ("search", "datasets"):
                continue  # the links
            if folder.name == "search" and inside.parts[0] == "optunahub":
                continue  # a package for a registry: a user of hwcost, outside the wheel
            parts = inside.with_suffix("").parts
            found[".".join((prefix, *(p for p in parts if p != "__init__" or len(inside.parts) == 1)))] = path
    return found


SOURCES = sources()


def room_part(name: str) -> str:
    """ "matmul" of "hwcost.rules.matmul" lives in "rules"; the package itself in "__init__"."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything of hwcost that a file imports, inside functions too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] == "hwcost")
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source == "hwcost":
                yield from ((node.lineno, f"hwcost.{a.name}") for a in node.names)
            elif source.startswith("hwcost."):
                yield node.lineno, source
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hwcost":
            yield node.lineno, f"hwcost.{node.attr}"  # `import hwcost`, then hwcost.trace


def test_every_module_has_its_place() -> None:
    homeless = sorted({room_part(name) for name in SOURCES} - set(HEIGHT))
    assert not homeless, f"place {', '.join(homeless)} in LAYERS of {Path(__file__).name}: what may it import?"


@pytest.mark.parametrize("name", [n for n in SOURCES if room_part(n) not in ("__init__", "__main__")])
def test_imports_point_down(name: str) -> None:
    mine = room_part(name)
    for line, other in imports(SOURCES[name], name):
        part = room_part(other)
        if part in ("__init__", "__version__"):  # the name and version of the package itself
            continue
        place = f"{SOURCES[name].relative_to(ROOT)}:{line}"
        assert part in HEIGHT, f"{place}: {other} is no module of LAYERS; import a name from the module that defines it"
        down = HEIGHT[part] < HEIGHT[mine] or ROOM[part] == ROOM[mine]
        assert down, f"{place}: {mine} may not import {other}, which stands no lower"


def test_a_cached_fit_is_of_all_code_that_makes_it() -> None:
    """Where any of it changes, another fit may come out. Rooms that make kernels are no part: a fit gets them made."""
    from hwcost import fitcache

    reached, ahead = set[str](), ["hwcost.fitting", "hwcost.modelfile"]
    while ahead:
        if (name := ahead.pop()) not in reached and room_part(name) not in ("runtimes", "tracing", "__init__"):
            reached.add(name)
            ahead += [other for _, other in imports(SOURCES[name], name) if other in SOURCES]
    assert {"hwcost.measure.statistics", "hwcost.measure.flat", "hwcost.rules"} <= reached
    package = Path(fitcache.__file__).parent
    keyed = {path.relative_to(package) for path in fitcache.sources()}
    assert {SOURCES[name].relative_to(ROOT / "hwcost") for name in reached} <= keyed


def test_the_face_names_where_each_name_lives() -> None:
    import hwcost

    assert {room_part(f"hwcost.{place}") for place in hwcost._PLACES.values()} <= set(HEIGHT)


PYTHON_FILES = sorted([*SOURCES.values(), *(ROOT / "tests").rglob("*.py")])
ids = [str(path.relative_to(ROOT)) for path in PYTHON_FILES]


@pytest.mark.parametrize("path", PYTHON_FILES, ids=ids)
def test_search_is_imported_by_its_full_name(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not any(n.split(".")[0] == "search" for n in names), f"line {node.lineno}: the package is hwcost.search"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=ids)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


# A count is "flops", a rate "flop/s"; the capital word means either. The module that reads what
# people write knows it, and so do its tests. A path of one machine is of no use on another.
WORDS = {r"\b[GTM]?FLOPS\b": ("units.py", "test_units.py", "test_device.py"), r"(?<![\w.])/(work|root|home)/\w": ()}
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "*.toml",
        "Makefile",
        ".ci/*",
        "hwcost/**/*.py",
        "search/**/*.py",
        "tests/**/*.py",
        "datasets/**/*.toml",
        "datasets/**/*.md",
        "notebooks/*.ipynb",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path != Path(__file__)
)


@pytest.mark.parametrize("path", TEXTS, ids=[str(path.relative_to(ROOT)) for path in TEXTS])
def test_words(path: Path) -> None:
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for pattern, exempt in WORDS.items():
            assert path.name in exempt or not re.search(pattern, text), f"line {line}: {text.strip()}"
