# SPDX-License-Identifier: GPL-2.0-or-later
"""`/proc/PID/pagemap`: which pages of a mapping exist (Documentation/admin-guide/mm/pagemap.rst).

A process of a gigabyte has a quarter of a million pages, and some programs reserve terabytes, so
nothing here looks at pages one by one in Python: the kernel's PAGEMAP_SCAN (since Linux 6.7) gives
runs and passes over what was never touched; without it, the entries are classified bytewise.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator

from sysrift.tracee.maps import Mapping

PAGE = 4096

# include/uapi/linux/fs.h: struct pm_scan_arg, struct page_region, PAGE_IS_*.
_PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN = struct.Struct("<12Q")
_REGION = struct.Struct("<3Q")
_REGIONS_AT_ONCE = 1024
_IS_FILE, _IS_PRESENT, _IS_SWAPPED, _IS_ZERO = 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAX_PAGES_AT_ONCE = 1 << 16

# The highest byte of a pagemap entry: bit 63 present, 62 swapped, 61 the file's own page.
_PRESENT, _SWAPPED, _FILE_PAGE = 0x80, 0x40, 0x20
_EXISTS = bytes(bool(top & (_PRESENT | _SWAPPED)) for top in range(256))
_IS_OWN = bytes(bool(top & (_PRESENT | _SWAPPED)) and not top & _FILE_PAGE for top in range(256))
_RUN = re.compile(rb"\x01+")


class _ScanUnavailable(Exception):
    """The kernel has no PAGEMAP_SCAN."""


def populated_runs(pid: int, mapping: Mapping) -> Iterator[tuple[int, int]]:
    """(address, length) of the runs of pages of `mapping` that may hold bytes of their own.

    For a private file mapping these are the pages that were written to, for others the pages that
    exist at all. All of it, as one run, when pagemap cannot be read.
    """
    pagemap = open_pagemap(pid)
    try:
        yield from populated(pagemap, mapping)
    finally:
        if pagemap >= 0:
            os.close(pagemap)


def open_pagemap(pid: int) -> int:
    """A descriptor of a process's pagemap, -1 when it cannot be had."""
    try:
        return os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def populated(pagemap: int, mapping: Mapping) -> Iterator[tuple[int, int]]:
    """`populated_runs`, by an open pagemap; -1: there is none."""
    if pagemap < 0:
        yield mapping.start, mapping.end - mapping.start
        return
    private_file = mapping.is_file and not mapping.shared
    try:
        yield from _scanned(pagemap, mapping.start, mapping.end, private_file)
    except _ScanUnavailable:
        yield from _classified(pagemap, mapping.start, mapping.end, private_file)


def _scanned(
    descriptor: int, start: int, end: int, private_file: bool
) -> Iterator[tuple[int, int]]:
    """The runs by PAGEMAP_SCAN. A page of anonymous memory that is the zero page is left out."""
    excluded = _IS_FILE if private_file else _IS_ZERO
    regions = ctypes.create_string_buffer(_REGION.size * _REGIONS_AT_ONCE)
    while start < end:
        request = bytearray(
            _SCAN.pack(
                _SCAN.size, 0, start, end, 0, ctypes.addressof(regions), _REGIONS_AT_ONCE, 0,
                excluded, excluded, _IS_PRESENT | _IS_SWAPPED, _IS_PRESENT,
            )
        )  # fmt: skip
        try:
            count = fcntl.ioctl(descriptor, _PAGEMAP_SCAN, request)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EPERM):
                raise _ScanUnavailable from None
            raise
        for index in range(count):
            first, last, _ = _REGION.unpack_from(regions, index * _REGION.size)
            yield first, last - first
        walked = _SCAN.unpack(request)[4]
        if walked <= start:
            return
        start = walked


def _classified(
    descriptor: int, start: int, end: int, private_file: bool
) -> Iterator[tuple[int, int]]:
    """The runs from the entries themselves; those of different reads are not joined."""
    wanted = _IS_OWN if private_file else _EXISTS
    for first in range(start, end, _MAX_PAGES_AT_ONCE * PAGE):
        count = min(_MAX_PAGES_AT_ONCE, (end - first) // PAGE)
        entries = os.pread(descriptor, count * 8, first // PAGE * 8)
        for run in _RUN.finditer(entries[7::8].translate(wanted)):
            yield first + run.start() * PAGE, (run.end() - run.start()) * PAGE
