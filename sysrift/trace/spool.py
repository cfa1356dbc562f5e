# SPDX-License-Identifier: GPL-2.0-or-later
"""A file where events wait that are recorded faster than it can be compressed.

A program that reads files (`grep -r`) brings hundreds of MB a second, zlib takes tens. Rather than
to have the program wait, or to hold all of that in memory, it is put beside the trace meanwhile.
The file has no name, so that it is gone whatever happens (open(2), O_TMPFILE).
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

_MOST = 4 << 30
"""Bytes that may wait."""

_MOST_PARTS = 16
"""Parts that are written one by one."""


class Parked:
    """Bytes that wait."""

    def __init__(self, spool: Spool, offset: int, length: int) -> None:
        self._spool = spool
        self._offset = offset
        self._length = length

    def take(self) -> bytes:
        """The bytes; once only. May be called in any thread. Raises OSError."""
        return self._spool.take(self._offset, self._length)


class Spool:
    """The file, in `directory`; it is made when something comes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._end = 0
        self._waiting = 0
        self._lock = threading.Lock()

    def put(self, parts: Sequence[bytes]) -> Parked | None:
        """Put bytes there; None when there is no room for them (or for such a file)."""
        length = sum(map(len, parts))
        with self._lock:
            offset = self._end
            try:
                if self._fd < 0:
                    self._fd = _unnamed_file(self._directory)
                if offset + length > _MOST:
                    return None
                at = offset
                for part in parts if len(parts) <= _MOST_PARTS else [b"".join(parts)]:
                    view = memoryview(part)
                    while view:
                        written = os.pwrite(self._fd, view, at)
                        at += written
                        view = view[written:]
            except OSError:
                return None
            self._end = offset + length
            self._waiting += 1
        return Parked(self, offset, length)

    def take(self, offset: int, length: int) -> bytes:
        """What was put at an offset. Raises OSError."""
        data = bytearray(length)
        view = memoryview(data)
        at = 0
        while at < length:
            got = os.preadv(self._fd, [view[at:]], offset + at)
            if not got:
                raise OSError("the spool file was cut off")
            at += got
        with self._lock:
            self._waiting -= 1
            if not self._waiting:
                self._end = 0
                os.ftruncate(self._fd, 0)
        return bytes(data)

    def close(self) -> None:
        """Give the file up, with all that is in it."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _unnamed_file(directory: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError:
        # Not every file system has that.
        fd, name = tempfile.mkstemp(prefix=".sysrift-", dir=directory)
        os.unlink(name)
        return fd
