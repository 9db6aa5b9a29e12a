"""Reading what others wrote: files, archives and texts, within limits, so that a bad one costs one line.

A file may be damaged on its way, or made to harm: it may be a pipe that never ends, unpack to a thousand times its
size, or hold text that moves a terminal's cursor. What is read here is a regular file of limited size; what is unpacked
is counted while it is unpacked; and `printable` shows control characters instead of sending them to a terminal.

Files that hwcost writes hold a digest of all their bytes (`SEAL`), so that a damaged one is told from a whole one:

    content = sealed(content that holds SEAL once)           is_whole(content) -> True, False, or None without a seal
"""

from __future__ import annotations

import errno
import io
import json
import math
import mmap
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

# What reading damaged content may raise: where it is read, these become one line that names the file.
BAD_CONTENT = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
LARGEST = 1 << 30  # bytes of a file, and of all that an archive or a table unpacks to
_MOST_MEMBERS = 1000  # of an archive
_MOST_CELLS = 1 << 28  # of a table: rows times columns

# -- files --------------------------------------------------------------------------------------


def read_bytes(path: str | os.PathLike[str], most: int = LARGEST) -> bytes:
    """The content of a regular file of at most `most` bytes; opening a pipe or a device never waits.

    Raises:
        OSError: there is no such file, it is a folder, a pipe or a device, or too large; `strerror` says which.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise OSError(errno.EINVAL, "a name must not hold a NUL character", name.replace("\0", "\\0"))
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        state = os.fstat(handle)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, and a file is needed", name)
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes, which is as much as is read", name)
    return content


def read_text(path: str | os.PathLike[str], most: int = LARGEST) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        OSError: as of `read_bytes`, or the file is no UTF-8 text.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        said = f"it must be UTF-8 text, but byte {error.start} is not"
        raise OSError(errno.EINVAL, said, os.fspath(path)) from error


# -- digests ------------------------------------------------------------------------------------

_MARK = b"hwcost blake2b "
_DIGITS = 64
SEAL = _MARK + b"0" * _DIGITS


def sealed(content: bytes) -> bytes:
    """A file's content, with the digits of its last `SEAL` replaced by the digest of all other bytes."""
    at = content.rindex(SEAL) + len(_MARK)
    return content[:at] + _digest(content, at) + content[at + _DIGITS :]


def seal_file(path: str | os.PathLike[str]) -> None:
    """`sealed`, of a file that was written, in its place and in bounded memory."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.rfind(SEAL) + len(_MARK)
        with memoryview(content) as view:
            content[at : at + _DIGITS] = _digest(view, at)


def is_whole(content: bytes) -> bool | None:
    """Whether the bytes of a sealed file are those that were sealed; None for a file without a seal."""
    at = content.rfind(_MARK)
    if at < 0:
        return None
    at += len(_MARK)
    return content[at : at + _DIGITS] == _digest(content, at)


def _digest(content: bytes | memoryview, at: int) -> bytes:
    """Hex digits of the BLAKE2b digest of all bytes but the `_DIGITS` that start at `at`."""
    whole = blake2b(digest_size=_DIGITS // 2)
    with memoryview(content) as view, view[:at] as before, view[at + _DIGITS :] as after:
        whole.update(before)
        whole.update(after)
    return whole.hexdigest().encode()


# -- archives and tables ------------------------------------------------------------------------


def unzipped(content: bytes, most: int = LARGEST) -> dict[str, bytes]:
    """The members of a zip archive, by name.

    Raises:
        ValueError: it is no zip archive, a member is damaged, has a name twice or a form that is not read, or all of
            them together are larger than `most` bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _members(archive, most)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # zipfile lets errors of many modules through
        raise ValueError(f"a damaged archive, {_brief(error)}") from error


def _members(archive: zipfile.ZipFile, most: int) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > _MOST_MEMBERS:
        raise ValueError(f"an archive of {len(entries)} members, where at most {_MOST_MEMBERS} are read")
    held, left = dict[str, bytes](), most
    for entry in entries:
        if entry.filename in held:
            raise ValueError(f"an archive with two members {entry.filename!r:.80}")
        with archive.open(entry) as member:
            found = member.read(left + 1)  # to its end, where the checksum is compared
        if len(found) > left:
            raise ValueError(f"an archive that unpacks to more than {most:,} bytes")
        held[entry.filename], left = found, left - len(found)
    return held


def parquet_table(content: bytes) -> pa.Table:
    """The table of a Parquet file.

    Raises:
        ValueError: it is no Parquet file, is damaged, or unpacks to more than `LARGEST` bytes; one line says which.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(pa.BufferReader(content))
        repeated = _checked_claims(metadata)
        with pq.ParquetFile(pa.BufferReader(content), metadata=metadata, read_dictionary=repeated) as file:
            table = file.read(use_threads=False)  # pyarrow's threads may abort a process that ends at once
        table.validate(full=True)  # texts are UTF-8, offsets lie inside
        return _spelt_out(table) if repeated else table
    except MemoryError as error:
        raise ValueError("it claims to be larger than the memory") from error
    except Exception as error:  # pyarrow raises many types
        raise ValueError(_brief(error)) from error


def _checked_claims(metadata: Any) -> list[str]:
    """Refuse a Parquet file that says it would unpack to more than `LARGEST` bytes, before anything is unpacked.

    Returns:
        The columns of text of which each row may repeat one long text, so that they would become larger than that.
    """
    rows = metadata.num_rows
    if rows < 0 or rows * max(metadata.num_columns, 1) > _MOST_CELLS:
        raise ValueError(f"it claims {rows} rows, which is more than is read")
    # Not the metadata of each column: pyarrow ends the process where those of a damaged file contradict themselves.
    size = sum(max(metadata.row_group(i).total_byte_size, 0) for i in range(metadata.num_row_groups))
    if size > LARGEST:
        raise ValueError(f"it would unpack to {size:,} bytes, of which at most {LARGEST:,} are read")
    columns = [metadata.schema.column(i) for i in range(metadata.num_columns)] if rows * size > LARGEST else []
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY" and "." not in column.path]


def _spelt_out(table: pa.Table) -> pa.Table:
    """A table whose columns of numbered texts become columns of texts, where these are not too large together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = 0
    for number, field in enumerate(table.schema):
        if not pa.types.is_dictionary(field.type):
            continue
        for chunk in table.column(number).chunks:
            lengths = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
            size += pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0
        if size > LARGEST:
            raise ValueError(f"its texts would unpack to more than {LARGEST:,} bytes")
        texts = table.column(number).cast(field.type.value_type)
        table = table.set_column(number, pa.field(field.name, field.type.value_type, metadata=field.metadata), texts)
    return table


# -- values -------------------------------------------------------------------------------------


def whole_number(value: object, name: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
    """The value of a field, a whole number from `least` to `most`.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, but is {_shown(value)}")
    return value


def real_number(value: object, name: str, least: float = -math.inf, *, finite: bool = True) -> float:
    """The value of a field, a number from `least` on; infinity only where it need not be `finite`, and never NaN.

    Raises:
        ValueError: it is none.
    """
    try:
        number = float(value) if type(value) in (int, float) else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.nan
    if not number >= least or (finite and not math.isfinite(number)):
        rule = "a number" if least == -math.inf else f"a number from {least:g} on"
        raise ValueError(f"{name} must be {rule}, but is {_shown(value)}")
    return number


def text_value(value: object, name: str) -> str:
    """The value of a field, a text.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, but is {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A value for a message; a list or an object by its type, since it may be large."""
    if isinstance(value, int) and abs(value) >> 64:
        return "a number of more than 19 digits"
    return f"{value!r:.60}" if isinstance(value, (bool, int, float, str)) or value is None else type(value).__name__


# -- texts --------------------------------------------------------------------------------------


def parsed_json(text: str | bytes, *, finite: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: UTF-8 where it is bytes.
        finite: refuse NaN and Infinity, which Python writes but JSON does not know.

    Raises:
        ValueError: it is no JSON, is nested too deep, or holds a number that is not finite although it must be.
    """
    try:
        return json.loads(
            text, parse_constant=_no_constant if finite else None, parse_float=_finite if finite else None
        )
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.40} is too large a number")
    return number


def printable(text: str, escape: Callable[[str], str] | None = None) -> str:
    """The text with its control characters as escapes, as "\\x1b" for the one that starts a terminal's commands.

    So are characters that reorder text or are invisible, lone surrogates and line separators; newline and tab stay.

    Args:
        text: any text.
        escape: how a character is written; by default as in a Python string.
    """
    if text.isascii() and text.isprintable():
        return text
    write = escape or (lambda character: character.encode("unicode_escape").decode())
    return _UNPRINTABLE.sub(lambda found: found[0] if _is_shown(found[0]) else write(found[0]), text)


_UNPRINTABLE = re.compile(r"[^ -~\n\t]")


@lru_cache(maxsize=1 << 12)
def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def one_line(text: object, most: int = 400) -> str:
    """Any text, such as another library's message, as one printable line of at most `most` characters."""
    line = printable(" ".join(str(text)[: 2 * most].split()))
    return line if len(line) <= most else f"{line[:most]}..."


def _brief(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0]) if lines else type(error).__name__
