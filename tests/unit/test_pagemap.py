# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages exist, asked in both ways that the kernel offers, of this very process."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import pytest

from sysrift.image import nonzero_parts
from sysrift.tracee import Mapping, pagemap, read_maps

PAGES = 3000


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, Mapping]]:
    """Memory of which every third page, and a long run, were written to."""
    area = mmap.mmap(-1, PAGES * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for page in (*range(0, 1000, 3), *range(1500, 2500)):
        area[page * 4096] = 1
    whole = next(m for m in read_maps(os.getpid()) if m.start <= start < m.end)
    yield area, whole._replace(start=start, end=start + PAGES * 4096)


def _pages(runs: Iterator[tuple[int, int]], start: int) -> set[int]:
    return {
        (address - start) // 4096 + page for address, length in runs for page in range(length >> 12)
    }


def test_both_ways_find_the_pages_that_exist(memory: tuple[mmap.mmap, Mapping]) -> None:
    mapping = memory[1]
    expected = {*range(0, 1000, 3), *range(1500, 2500)}
    descriptor = pagemap.open_pagemap(os.getpid())
    try:
        found = _pages(
            pagemap._classified(descriptor, mapping.start, mapping.end, False), mapping.start
        )
        assert found == expected
        try:
            scanned = list(pagemap._scanned(descriptor, mapping.start, mapping.end, False))
        except pagemap._ScanUnavailable:
            pytest.skip("no PAGEMAP_SCAN before Linux 6.7")
    finally:
        os.close(descriptor)
    assert _pages(iter(scanned), mapping.start) == expected
    assert scanned == sorted(scanned)


def test_without_a_pagemap_all_is_taken(memory: tuple[mmap.mmap, Mapping]) -> None:
    mapping = memory[1]
    assert list(pagemap.populated(-1, mapping)) == [(mapping.start, PAGES * 4096)]


def test_only_changed_pages_of_a_private_file_mapping(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "wb") as file:
        file.write(b"x" * 4096 * 64)
    with open(path, "r+b") as file:
        area = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
    assert area[:] == b"x" * 4096 * 64
    area[4096 * 10] = 0
    mapping = next(m for m in read_maps(os.getpid()) if m.name == path)
    for runs in (
        pagemap.populated_runs(os.getpid(), mapping),
        pagemap._classified(pagemap.open_pagemap(os.getpid()), mapping.start, mapping.end, True),
    ):
        assert list(runs) == [(mapping.start + 4096 * 10, 4096)]
    ctypes.c_char.from_buffer(area)
    area.close()


@pytest.mark.parametrize("length", [4096, 3 * 4096, 5 * 4096 - 100])
def test_parts_without_zeros_are_all_that_is_not_zero(length: int) -> None:
    for pattern in range(32):
        data = b"".join(
            (b"\0\1" if pattern >> page & 1 else b"\0\0") + bytes(4094) for page in range(5)
        )[:length]
        rebuilt = bytearray(length)
        for address, part in nonzero_parts(1 << 20, data):
            assert part.strip(b"\0")
            rebuilt[address - (1 << 20) : address - (1 << 20) + len(part)] = part
        assert bytes(rebuilt) == data
