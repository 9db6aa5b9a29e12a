"""A hundred damaged files of each kind: the right answer, or one line; `make fuzz` tries 10,050."""

from __future__ import annotations

from pathlib import Path

from hwcost.extensions import from_file

KINDS = (
    "model", "model of before", "model, remade", "table", "table of before", "table, remade", "store",
    "store, changed rows", "export", "import hwcost", "import kernels", "import neusight", "device", "onnx", "kwargs",
)  # fmt: skip


def test_damaged_files_cost_one_line(tmp_path: Path) -> None:
    """One test for all kinds, since making the whole files takes longer than reading the damaged ones."""
    fuzz = from_file(Path(__file__).parent / "fuzz.py")
    kinds = {kind.name: kind for kind in fuzz.kinds(tmp_path)}
    assert tuple(kinds) == KINDS
    every = list[str]()
    for name, kind in kinds.items():
        counts, faults = fuzz.fuzz(kind, 100, seed=1, folder=tmp_path)
        every += faults
        assert counts["refused"] >= 10, (name, counts)  # that nothing is refused would say that nothing was damaged
    assert not every, "\n".join(every)
