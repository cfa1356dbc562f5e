# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a file holds data: a sparse file of a terabyte is read in the time that its data takes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

Extent = tuple[int, int]
"""(offset, length), in bytes."""

WORTHWHILE = 1 << 20
"""Bytes of holes below which a file is taken as a whole: file systems tell holes differently."""

_CHUNK = 1 << 20


def data_extents(descriptor: int, offset: int, length: int) -> tuple[Extent, ...]:
    """The parts of a file's `length` bytes from `offset` that are no holes (lseek(2), SEEK_HOLE).

    One part, all of it, when there is little to gain, or the file system knows no holes; an empty
    one when it is all a hole.
    """
    end = offset + length
    found: list[Extent] = []
    at = offset
    try:
        while at < end:
            try:
                start = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            if start >= end:
                break
            at = min(os.lseek(descriptor, start, os.SEEK_HOLE), end)
            found.append((start, at - start))
    except OSError:
        return ((offset, length),) if length else ()
    if length - sum(size for _, size in found) < WORTHWHILE:
        return ((offset, length),) if length else ()
    return tuple(found) or ((offset, 0),)


def read_extents(descriptor: int, extents: tuple[Extent, ...]) -> Iterator[bytes]:
    """The bytes of these parts, in pieces of at most 1 MiB that do not cross a part's end.

    Fewer where the file ends. Raises OSError.
    """
    for offset, length in extents:
        end = offset + length
        while offset < end:
            part = os.pread(descriptor, min(_CHUNK, end - offset), offset)
            if not part:
                return
            yield part
            offset += len(part)
