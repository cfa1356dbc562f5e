# SPDX-License-Identifier: GPL-2.0-or-later
"""Storing the memory of a process that waits: as fast as memory can be copied.

A running process that is attached to stands still while its image is taken. So memory is read by
process_vm_readv(2), a megabyte at a time, and written as it is: compressing would take ten to
twenty times longer. One thread reads and computes checksums, the other writes, where there are two
processors.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import threading
from collections.abc import Iterator
from typing import NamedTuple

from sysrift.image import CHUNK
from sysrift.trace.model import PageRun
from sysrift.trace.writer import TraceWriter
from sysrift.tracee import Tracee
from sysrift.tracee.pagemap import PAGE

COMPRESSED = 512 << 10
"""The first bytes in small runs are compressed all the same: the data of libraries and a small
process's heap, in some 10 ms."""

_SMALL = 128 << 10

_THREADED = 4 * CHUNK
"""Runs shorter than this are not worth a thread."""

_BUFFERS = 6
_SHORTEST_GAP = 16 * PAGE
"""Zeros shorter than this are stored: a block of their own behind them would cost more time."""

_ZEROS = bytes(PAGE)


_HURRIED = -15
"""The nice value; raising it back needs no privilege."""

_PREPARED_FROM = 64 << 20
"""Bytes of memory from which making room in the page cache beforehand is worth its time."""


def prepare(writer: TraceWriter, pid: int) -> None:
    """While a process still runs: have room in the page cache for what it has in memory.

    Pages that a file gets for the first time cost the kernel more than copying into them does, and
    on a virtual machine, whose memory comes when it is touched, many times more.
    """
    resident = available = 0
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            for line in status:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    resident += int(line.split()[1]) << 10
        with open("/proc/meminfo", encoding="ascii") as memory:
            available = next(
                int(line.split()[1]) << 10 for line in memory if line.startswith("MemAvailable:")
            )
    except (OSError, ValueError, StopIteration):
        return
    if resident >= _PREPARED_FROM:
        writer.prepare_space(min(resident + resident // 64, available // 2))


@contextlib.contextmanager
def hurry() -> Iterator[None]:
    """While a process waits for it, the recorder goes before others, where it may say so."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _HURRIED)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.restype = ctypes.c_ssize_t


class _Buffer:
    """A megabyte that memory is read into, again and again."""

    def __init__(self) -> None:
        self.data = bytearray(CHUNK)
        self.view = memoryview(self.data)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.data))

    def fill(self, tracee: Tracee, address: int, length: int) -> int:
        """Read memory of the tracee; returns how many of the bytes there are."""
        here, there = _IoVec(self._address, length), _IoVec(address, length)
        got = _libc.process_vm_readv(
            tracee.pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0
        )  # fmt: skip
        got = max(int(got), 0)
        if got < length:
            # Not readable for the program itself, or not there.
            rest = tracee.read_some(address + got, length - got)
            self.data[got : got + len(rest)] = rest
            got += len(rest)
        return got


class _Part(NamedTuple):
    """Memory that is ready to be written."""

    address: int
    data: memoryview
    checksum: int


class Snapshot:
    """Stores memory of a stopped tracee; its `store` is an `image.StoreMemory`."""

    def __init__(self, writer: TraceWriter, compressed: int = COMPRESSED) -> None:
        self._writer = writer
        self._compressed = compressed
        self._buffer = _Buffer()

    def store(self, tracee: Tracee, start: int, length: int, keep_zeros: bool) -> list[PageRun]:
        """Store memory, zeros left out unless `keep_zeros`, and say where it is."""
        if length >= _THREADED:
            return self._store_ahead(tracee, start, length, keep_zeros)
        runs = []
        for at in range(start, start + length, CHUNK):
            got = self._buffer.fill(tracee, at, min(CHUNK, start + length - at))
            runs += self._write(_parts(self._buffer, at, got, keep_zeros))
        return runs

    def _write(self, parts: list[_Part]) -> list[PageRun]:
        runs = []
        for address, data, checksum in parts:
            if len(data) <= min(_SMALL, self._compressed):
                self._compressed -= len(data)
                block = self._writer.add_data(bytes(data))
            else:
                block = self._writer.add_raw_data(data, checksum)
            runs.append(PageRun(address, len(data), block))
        return runs

    def _store_ahead(
        self, tracee: Tracee, start: int, length: int, keep_zeros: bool
    ) -> list[PageRun]:
        """`store`, with a thread that reads what is written next."""
        free: queue.SimpleQueue[_Buffer | None] = queue.SimpleQueue()
        full: queue.SimpleQueue[tuple[_Buffer, list[_Part]] | None] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            free.put(_Buffer())

        def read() -> None:
            try:
                for at in range(start, start + length, CHUNK):
                    buffer = free.get()
                    if buffer is None:
                        return
                    got = buffer.fill(tracee, at, min(CHUNK, start + length - at))
                    full.put((buffer, _parts(buffer, at, got, keep_zeros)))
            finally:
                full.put(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        runs = []
        try:
            while (item := full.get()) is not None:
                buffer, parts = item
                runs += self._write(parts)
                del parts, item
                free.put(buffer)
        finally:
            free.put(None)
            reader.join()
        return runs


def _parts(buffer: _Buffer, address: int, length: int, keep_zeros: bool) -> list[_Part]:
    """What is to be stored of the first `length` bytes of a buffer, which were at `address`."""
    spans = [(0, length)] if keep_zeros else _without_zeros(buffer.data, length)
    parts = []
    for start, end in spans:
        data = buffer.view[start:end]
        parts.append(_Part(address + start, data, TraceWriter.raw_data_checksum(data)))
    return parts


def _without_zeros(data: bytearray, length: int) -> list[tuple[int, int]]:
    """(start, end) of what lies between long runs of pages of zeros."""
    spans: list[tuple[int, int]] = []
    for index, first in enumerate(data[:length:PAGE]):
        at = index * PAGE
        if first == 0 and data.startswith(_ZEROS[: length - at], at, length):
            continue
        end = min(at + PAGE, length)
        if spans and at - spans[-1][1] < _SHORTEST_GAP:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((at, end))
    return spans
