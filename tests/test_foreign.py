"""Tests of hwcost.foreign: files of limited size, archives and tables that unpack to little, texts without commands."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwcost import foreign
from hwcost.foreign import (
    SEAL,
    is_whole,
    one_line,
    parquet_table,
    parsed_json,
    printable,
    read_bytes,
    read_text,
    real_number,
    seal_file,
    sealed,
    unzipped,
    whole_number,
)


def test_files_are_read_and_what_is_none_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: opening it as usual would wait for ever
    assert read_bytes(tmp_path / "a") == read_bytes(tmp_path / "link") == b"abc"
    for name, said in (
        ("pipe", "pipe or a device"),
        ("dangling", "No such file"),
        ("loop", "symbolic"),
        ("", "directory"),
    ):
        with pytest.raises(OSError, match=said):
            read_bytes(tmp_path / name)
    with pytest.raises(OSError, match="pipe or a device"):
        read_bytes("/dev/zero")
    with pytest.raises(OSError, match="NUL"):
        read_bytes("a\0b")
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_bytes(tmp_path / "a", most=2)


def test_texts_are_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes("\ufeffé".encode())
    assert read_text(tmp_path / "marked") == "é"
    (tmp_path / "other").write_bytes("né".encode("utf-16"))
    with pytest.raises(OSError, match="UTF-8 text, but byte 0 is not"):
        read_text(tmp_path / "other")


def test_a_seal_is_the_digest_of_all_other_bytes(tmp_path: Path) -> None:
    whole = sealed(b"head " + SEAL + b" tail")
    digits = hashlib.blake2b(b"head hwcost blake2b  tail", digest_size=32).hexdigest().encode()
    assert whole == b"head hwcost blake2b " + digits + b" tail"
    (tmp_path / "f").write_bytes(b"head " + SEAL + b" tail")
    seal_file(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == whole
    assert is_whole(whole) is True
    assert is_whole(b"another file") is None


def test_every_flipped_bit_of_a_sealed_file_is_told() -> None:
    whole = sealed(np.random.default_rng(0).bytes(300) + SEAL)
    for at in range(len(whole)):
        for bit in range(8):
            changed = whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]
            assert is_whole(changed) is not True, at


def archive(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
    return sink.getvalue()


def test_an_archive_unpacks_to_little() -> None:
    held = {"a": b"x" * 600, "b": b"y" * 400}
    assert unzipped(archive(**held), most=1000) == held
    with pytest.raises(ValueError, match="unpacks to more than 999 bytes"):
        unzipped(archive(**held), most=999)
    lying = archive(a=b"x" * 5000).replace(struct.pack("<I", 5000), struct.pack("<I", 10))  # says it unpacks to 10
    with pytest.raises(ValueError, match="damaged archive"):
        unzipped(lying)
    with pytest.raises(ValueError, match="1001 members"):
        unzipped(archive(**{str(n): b"" for n in range(1001)}))
    with pytest.raises(ValueError, match="damaged archive"):
        unzipped(b"PK\x05\x06")


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def test_a_table_unpacks_to_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand references to one text of a megabyte are a file of some bytes, and 20 GB of text."""
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 1_000_000]))
    small = parquet(pa.table({"a": repeated}).replace_schema_metadata(None))
    assert len(small) < 200_000
    with pytest.raises(ValueError, match="texts would unpack to more than"):
        parquet_table(small)
    table = pa.table({"a": ["b", "a", None, "b"], "n": [1, 2, 3, 4]})
    assert parquet_table(parquet(table)).equals(table)
    monkeypatch.setattr(foreign, "LARGEST", 300)
    few = pa.table({"a": ["bb", "aaa", "bb"] * 20})
    assert parquet_table(parquet(few)).equals(few)  # read as numbered texts, since 60 times the longest is too large
    with pytest.raises(ValueError, match="would unpack to"):
        parquet_table(parquet(pa.table({"n": range(1000)})))
    monkeypatch.setattr(foreign, "_MOST_CELLS", 10)
    with pytest.raises(ValueError, match="claims 60 rows"):
        parquet_table(parquet(few))
    with pytest.raises(ValueError, match=r"too small|smaller"):
        parquet_table(b"PAR1")


def test_json_within_limits() -> None:
    assert parsed_json('{"a": [1, NaN]}')["a"][0] == 1
    for text in ("[" * 100_000, "{", "[1" + "0" * 5000 + "]", b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            parsed_json(text)
    for text in ("NaN", "-Infinity", "1e999"):
        with pytest.raises(ValueError, match="number"):
            parsed_json(text, finite=True)


def test_numbers_are_numbers() -> None:
    assert (whole_number(3, "n"), real_number(3, "x"), real_number(float("inf"), "x", finite=False)) == (3, 3.0, np.inf)
    for wrong in (True, 1.0, "1", None, -1, 1 << 63):
        with pytest.raises(ValueError, match="n must be a whole number from 0"):
            whole_number(wrong, "n")
    for wrong in (True, "1", None, float("nan"), float("inf"), 10**400, [1]):
        with pytest.raises(ValueError, match="x must be a number, but is"):
            real_number(wrong, "x")


def test_control_characters_become_escapes() -> None:
    text = "a\x1b[31m\x07\x9b\u202e\u200b\u2028\ud800é µ 日本\ttab"
    assert printable(text) == r"a\x1b[31m\x07\x9b\u202e\u200b\u2028\ud800é µ 日本" + "\ttab"
    assert one_line("a\n  b\r\n\x00") == r"a b \x00"
    assert len(one_line("x" * 10_000)) == 403
    escaped = printable('"\x9b\ud800\u2028"', lambda character: json.dumps(character)[1:-1])
    assert escaped.isascii()
    assert json.loads(escaped) == "\x9b\ud800\u2028"
