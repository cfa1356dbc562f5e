# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading files by the parts that hold data, and what is made of them when they are mapped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysrift.extents import WORTHWHILE, data_extents, read_extents
from sysrift.record.files import FileTable
from sysrift.trace.model import FileReference

MEBI = 1 << 20
BLOCK = 1 << 16


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_small_holes_are_read(file: int) -> None:
    os.ftruncate(file, WORTHWHILE - 1)
    os.pwrite(file, b"end", WORTHWHILE - 4)
    assert data_extents(file, 0, WORTHWHILE - 1) == ((0, WORTHWHILE - 1),)
    assert b"".join(read_extents(file, ((0, WORTHWHILE - 1),))).endswith(b"\0end")


def test_large_holes_are_left_out(file: int) -> None:
    os.ftruncate(file, 1 << 40)
    os.pwrite(file, b"a" * BLOCK, 64 * MEBI)
    os.pwrite(file, b"b" * 3 * MEBI, 512 << 30)
    extents = data_extents(file, 0, 1 << 40)
    if extents == ((0, 1 << 40),):
        pytest.skip("this file system knows no holes")
    pieces = list(read_extents(file, extents))
    assert b"".join(pieces).strip(b"\0") == b"a" * BLOCK + b"b" * 3 * MEBI
    assert all(len(piece) <= MEBI for piece in pieces)
    first, last = 64 * MEBI + 5, (512 << 30) + 7
    cut = data_extents(file, first, last - first)
    assert cut[0] == (first, cut[0][1]) and sum(cut[-1]) == last


def test_a_file_that_is_all_hole(file: int) -> None:
    os.ftruncate(file, 8 * MEBI)
    assert data_extents(file, 0, 8 * MEBI) == ((0, 0),)
    assert list(read_extents(file, ((0, 0),))) == []
    assert data_extents(file, 0, 0) == ()


def table() -> tuple[FileTable, list[tuple[FileReference, bytes | None]]]:
    """A file table, and what it put into the trace."""
    added: list[tuple[FileReference, bytes | None]] = []

    def add(reference: FileReference, content: object) -> FileReference:
        body = None if content is None else b"".join(content)  # type: ignore[call-overload]
        stored = FileReference(**{**reference.__dict__, "id": len(added) + 1, "chunks": (1,)})
        added.append((stored, body))
        return stored

    return FileTable(add), added


def test_sparse_file_is_stored_by_its_data(file: int) -> None:
    files, added = table()
    os.ftruncate(file, 1 << 40)
    os.pwrite(file, b"x" * BLOCK, 1 << 39)
    started = time.monotonic()
    opened = files.opened(os.getpid(), file, 0, 1 << 40, shared=True)
    assert opened is not None and opened.writable and opened.size == 1 << 40
    reference, body = added[0]
    if not reference.extents:
        pytest.skip("this file system knows no holes")
    assert time.monotonic() - started < 5
    assert body is not None and body.strip(b"\0") == b"x" * BLOCK
    assert reference.parts == reference.extents


def test_file_written_by_its_mapping_is_looked_at_again(file: int) -> None:
    # What a mapping writes need not show in the times: nothing is taken for known by them.
    files, added = table()
    os.pwrite(file, b"1" * 8192, 0)
    os.utime(file, ns=(0, 0))
    one = files.opened(os.getpid(), file, 0, 8192, shared=True)
    os.pwrite(file, b"2", 5000)
    os.utime(file, ns=(0, 0))
    two = files.opened(os.getpid(), file, 4096, 4096, shared=True)
    assert one is not None and two is not None and one.file != two.file
    assert one.identity == two.identity
    assert added[1][1] == b"1" * 904 + b"2" + b"1" * 3191
    assert (added[1][0].offset, added[1][0].length) == (4096, 4096)
    again = files.opened(os.getpid(), file, 4096, 4096, shared=True)
    assert again is not None and again.file == two.file and len(added) == 2


def test_descriptor_that_is_only_read(file: int) -> None:
    files, _ = table()
    os.pwrite(file, b"1" * 10, 0)
    reading = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    try:
        opened = files.opened(os.getpid(), reading, 0, 10, shared=True)
        assert opened is not None and not opened.writable
    finally:
        os.close(reading)
    assert files.opened(os.getpid(), os.open("/dev/null", os.O_RDWR), 0, 1, shared=True) is None
