"""Latency table files: Parquet with the structure in the schema's metadata, and what others read.

A table grows in a folder of parts beside its file, `t.parquet.parts`: one Parquet file for each task,
readable by itself, put in place by a rename. When all are there they are joined and the folder goes. A run
that was killed, or whose disk was full, goes on with the parts that it finds.

The endings `.csv` (the rows alone) and `.yaml` (the layout of Once-for-All, `key: {count, mean}` with the
mean in milliseconds) are for other programs and are not read again.

Format history:
    3  column shared; of later versions also traffic and reach_*_s, and in the metadata what makes a decision active,
       all of which older readers pass over
    2  rows of the places compressed; blocks that have no row; columns name, output_shape, stride, dtype, count
    1  first
"""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hwcost.table.schema import REQUIRED_COLUMNS, Head, Place, TableError

FORMAT = 3
_KEY = b"hwcost"
ENDINGS = (".parquet", ".csv", ".yaml", ".yml")


def _head_bytes(head: Head) -> bytes:
    """A table's head as the schema's metadata hold it."""
    places = [{"name": p.name, "decisions": p.decisions, "rows": _packed(p.rows)} for p in head.places]
    document = {"format": FORMAT, "meta": dict(head.meta), "places": places, "missing": head.missing}
    return json.dumps(document, sort_keys=True).encode()


def _packed(rows: NDArray[np.int32]) -> str:
    return base64.b64encode(zlib.compress(rows.astype("<i4").tobytes())).decode()


def _unpacked(rows: Any) -> NDArray[np.int32]:
    if isinstance(rows, str):
        return np.frombuffer(zlib.decompress(base64.b64decode(rows)), dtype="<i4").astype(np.int32)
    return np.array(rows, dtype=np.int32)  # format 1


# -- reading ------------------------------------------------------------------------------------


def read(path: Path) -> tuple[pa.Table, Head]:
    """Rows and head of a table's file.

    Raises:
        TableError: no such file, not a table, truncated, or of a newer format.
    """
    if path.suffix not in (".parquet", ""):
        raise TableError(f"a table is read from Parquet, but {path} ends in {path.suffix}; make it again as .parquet")
    try:
        with pq.ParquetFile(path) as file:
            rows = file.read()
    except FileNotFoundError as error:
        parts = Parts.folder_of(path)
        if parts.is_dir():
            raise TableError(f"{path} is unfinished ({parts} holds its parts); run its `hwcost table` again") from error
        raise TableError(f"no latency table {path}; make one with `hwcost table -o {path}`") from error
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise TableError(f"{path} is no Parquet file, or a truncated one ({reason}); make it again") from error
    head = _head(path, rows.schema.metadata or {})
    missing = REQUIRED_COLUMNS - set(rows.column_names)
    if missing:
        raise TableError(f"{path} lacks the columns {sorted(missing)}; make it again")
    numeric = {f.name for f in rows.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)}
    wrong = REQUIRED_COLUMNS - {"block"} - numeric
    if wrong:
        raise TableError(f"{path} must have numbers in the columns {sorted(wrong)}; make it again")
    return rows, head


def _head(path: Path, metadata: Mapping[bytes, bytes]) -> Head:
    if _KEY not in metadata:
        raise TableError(f"{path} is Parquet but no latency table of hwcost: its metadata lack {_KEY.decode()!r}")
    try:
        head = json.loads(metadata[_KEY])
        if head["format"] > FORMAT:
            raise TableError(
                f"{path} has table format {head['format']}, but this version reads up to {FORMAT}; update hwcost"
            )
        places = tuple(Place(p["name"], tuple(p["decisions"]), _unpacked(p["rows"])) for p in head["places"])
        return Head(places, head["meta"], tuple(head.get("missing", ())))
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{path} has metadata that cannot be read ({error}); make it again") from error


# -- writing ------------------------------------------------------------------------------------


def write(rows: pa.Table, head: Head, path: Path) -> None:
    """Write a whole table; a half-written file never takes the place of a whole one."""
    with _whole(path) as partial:
        _write(path.suffix, partial, iter([rows]), head)


def checked(path: str | Path) -> Path:
    """`path`, after making sure that its ending is one of a table's formats.

    Raises:
        TableError: it is not.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise TableError(f"a table's file must end in one of {', '.join(ENDINGS)}, but got {path}")
    return path


@contextmanager
def _whole(path: Path, kept: str = "") -> Iterator[Path]:
    """The name of a file to write, which is renamed to `path` at the end, or deleted where writing fails.

    `kept` ends the message of the TableError then raised.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise TableError(f"table {path} cannot be written: {_reason(error)}{kept}") from error
    finally:
        partial.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return "no space left on the device; make room"
    return error.strerror or str(error)


def _write(ending: str, path: Path, parts: Iterator[pa.Table], head: Head) -> None:
    if ending == ".csv":
        _write_text(path, parts, _csv)
    elif ending in (".yaml", ".yml"):
        _write_text(path, parts, _yaml)
    else:
        first = next(parts)
        schema = first.schema.with_metadata({_KEY: _head_bytes(head)})
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            writer.write_table(first.cast(schema))
            for part in parts:
                writer.write_table(part.cast(schema))


def _write_text(path: Path, parts: Iterator[pa.Table], rows: Callable[[IO[str], pa.Table, bool], None]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(parts):
            rows(file, part, number == 0)


def _csv(file: IO[str], part: pa.Table, first: bool) -> None:
    writer = csv.writer(file, lineterminator="\n")
    if first:
        writer.writerow(part.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in part.columns), strict=True))


def _yaml(file: IO[str], part: pa.Table, first: bool) -> None:
    columns = (part[name].to_pylist() for name in ("block", "count", "latency_s"))
    for key, count, seconds in zip(*columns, strict=True):
        file.write(f"{json.dumps(key)}: {{count: {count}, mean: {1000 * seconds:.9g}}}\n")


class Parts:
    """The parts of a table that is being made.

    Args:
        path: of the table.
        identity: what must be the same for a run to go on with the parts of another.

    Raises:
        TableError: the folder holds the parts of another table.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self.folder = path, self.folder_of(path)
        note, text = self.folder / "table.json", json.dumps(dict(identity), sort_keys=True)
        try:
            self.folder.mkdir(exist_ok=True)
            if not note.exists():
                with _whole(note) as partial:
                    partial.write_text(text)
        except OSError as error:
            raise TableError(f"table {path} cannot be written: {_reason(error)}") from error
        found = json.loads(note.read_text())
        other = [key for key, value in json.loads(text).items() if found.get(key) != value]
        if other:
            raise TableError(
                f"{self.folder} holds the parts of another table ({', '.join(other)} differ); "
                "finish that one first, or delete the folder"
            )

    @staticmethod
    def folder_of(path: Path) -> Path:
        """Where the parts of a table lie."""
        return path.with_name(path.name + ".parts")

    def has(self, number: int, keys: Sequence[str]) -> bool:
        """Whether a part is there and whole, and holds these blocks."""
        try:
            metadata = pq.read_schema(self._part(number)).metadata or {}
            return metadata.get(b"keys") == _digest(keys)
        except (OSError, pa.ArrowInvalid):
            return False

    def add(self, number: int, columns: Mapping[str, Any]) -> None:
        """Put a part in its place.

        Raises:
            TableError: the disk is full, for instance; the parts that are there stay.
        """
        part = pa.table(dict(columns)).replace_schema_metadata({b"keys": _digest(columns["block"])})
        with _whole(self._part(number), self._kept()) as partial:
            pq.write_table(part, partial, compression="zstd")

    def join(self, head: Head, count: int) -> None:
        """Make the table of `count` parts, and delete them."""
        with _whole(self.path, self._kept()) as partial:
            parts = (pq.read_table(self._part(i)).replace_schema_metadata(None) for i in range(count))
            _write(self.path.suffix, partial, parts, head)
        shutil.rmtree(self.folder)

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def _kept(self) -> str:
        return f"; {self.folder} keeps what was priced, and the same command goes on from there"


def _digest(keys: Sequence[str]) -> bytes:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest().encode()
