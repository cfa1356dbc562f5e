# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a block of events beside the recording: zlib lets other Python code run meanwhile."""

from __future__ import annotations

import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

from sysrift.trace import codec
from sysrift.trace.spool import Parked, Spool

_SITE_AT, _DELTA_AT, _SEGMENTS_AT = 2, 12, 36  # offsets in an EventRecord
_LENGTH_AT, _BLOCK_AT = 2, 14  # in a Segment
_WIDTH: int = codec.RECORD.size


SWITCH_INTERVAL = 0.0003  # seconds; 0.005 is the interpreter's own
_BEHIND = 8  # as many blocks wait: better larger than late


class RawRecords(NamedTuple):
    """Records whose site is an index into `sites`; `delta` becomes the time of the first one."""

    records: bytes
    sites: Sequence[int]
    delta: int


class Batch(NamedTuple):
    """Events of one process in the file's form, with what belongs to them."""

    records: bytes
    segments: bytes
    payload: bytes

    @property
    def events(self) -> int:
        """How many events."""
        return len(self.records) // _WIDTH

    @property
    def took_us(self) -> int:
        """The sum of all time differences but the first one."""
        return _sum(self.records[_WIDTH:], _WIDTH, _DELTA_AT, 4)

    def cut(self, count: int) -> tuple[Batch, Batch]:
        """The first `count` events, and the others."""
        records = self.records[: count * _WIDTH]
        width = codec.SEGMENT.size
        segments = self.segments[: width * _sum(records, _WIDTH, _SEGMENTS_AT, 2)]
        payload = self.payload[: _payload_of(segments)]
        rest = (self.records[len(records) :], self.segments[len(segments) :])
        return Batch(records, segments, payload), Batch(*rest, self.payload[len(payload) :])


def _sum(structures: bytes, width: int, at: int, size: int) -> int:
    """The sum of one field of all structures, without a step of Python for each."""
    total = 0
    for i in range(size):
        plane = structures[at + i :: width]
        if plane.count(0) != len(plane):  # (most are nothing but zeros)
            total += sum(plane) << 8 * i
    return total


def _payload_of(segments: bytes) -> int:
    """How many bytes of payload belong to segments: to those that name no block (or file)."""
    width: int = codec.SEGMENT.size
    total = _sum(segments, width, _LENGTH_AT, 4)
    count = len(segments) // width
    if all(segments[_BLOCK_AT + i :: width].count(0) == count for i in range(8)):
        return total
    elsewhere: int = sum(
        length for _, _, length, _, block in codec.SEGMENT.iter_unpack(segments) if block
    )
    return total - elsewhere


class Packing:
    """The streams of one block, which a `Packer` makes.

    `sites` are those of the records that are in the file's form already, with their indices; what
    others need is added to it.
    """

    def __init__(
        self,
        records: list[bytes | RawRecords],
        segments: list[bytes],
        payload: list[bytes],
        sites: dict[int, int],
    ) -> None:
        self.sites = sites
        self._records = records
        self._segments = segments
        self._payload = payload
        self._parked: Parked | None = None
        self._lengths: list[int] = []
        self.size = sum(map(len, self._bytes()))
        """Bytes of memory that it takes."""
        self._packed: list[tuple[int, int, bytes]] = []
        self._error: BaseException | None = None
        self._done = threading.Event()

    def _bytes(self) -> list[bytes]:
        """All that is to be packed, records first."""
        records = [p.records if isinstance(p, RawRecords) else p for p in self._records]
        return [*records, *self._segments, *self._payload]

    def park(self, spool: Spool) -> bool:
        """Wait in a file until its turn comes; False when that has no room."""
        parts = self._bytes()
        self._parked = spool.put(parts)
        if self._parked is None:
            return False
        self._lengths = [len(part) for part in parts]
        self._records = [
            part._replace(records=b"") if isinstance(part, RawRecords) else b""
            for part in self._records
        ]
        self._segments = [b""] * len(self._segments)
        self._payload = []
        self.size = 0
        return True

    def _unpark(self, parked: Parked) -> None:
        data, at, parts = parked.take(), 0, []
        for length in self._lengths:
            parts.append(data[at : at + length])
            at += length
        records, segments = len(self._records), len(self._segments)
        self._records = [
            part._replace(records=raw) if isinstance(part, RawRecords) else raw
            for part, raw in zip(self._records, parts)
        ]
        self._segments = parts[records : records + segments]
        self._payload = parts[records + segments :]

    @property
    def is_done(self) -> bool:
        """Whether `result` is there."""
        return self._done.is_set()

    def run(self, level: int) -> None:
        """Make the streams, the payload compressed so much (`codec.compress`)."""
        try:
            self._packed = self._pack(level)
        except BaseException as error:
            self._error = error
        self._done.set()

    def _pack(self, level: int) -> list[tuple[int, int, bytes]]:
        if self._parked is not None:
            self._unpark(self._parked)
        parts = [
            self._indexed(part) if isinstance(part, RawRecords) else part for part in self._records
        ]
        streams = [
            (codec.shuffle(b"".join(parts), codec.RECORD.size), codec.ZLIB_LEVEL),
            (codec.shuffle(b"".join(self._segments), codec.SEGMENT.size), codec.ZLIB_LEVEL),
            (b"".join(self._payload), level),
        ]
        self._records, self._segments, self._payload = [], [], []
        packed = []
        for raw, much in streams:
            codec_id, stored = codec.compress(raw, much)
            packed.append((codec_id, len(raw), stored))
        return packed

    def _indexed(self, raw: RawRecords) -> bytes:
        """The records as they are in the file: with indices into this block's sites."""
        records, sites, delta = raw
        width = codec.RECORD.size
        low, high = records[_SITE_AT::width], records[_SITE_AT + 1 :: width]
        changed = bytearray(records)
        used = set(low) if high.count(0) == len(high) else None
        indices = {} if used is None else {at: self._index(sites[at]) for at in used}
        if used is not None and max(indices.values()) < 256:
            table = bytearray(256)
            for at, index in indices.items():
                table[at] = index
            changed[_SITE_AT::width] = low.translate(bytes(table))
        else:
            for at in range(_SITE_AT, len(records), width):
                index = self._index(sites[records[at] | records[at + 1] << 8])
                changed[at : at + 2] = index.to_bytes(2, "little")
        struct.pack_into("<I", changed, _DELTA_AT, delta)
        return bytes(changed)

    def _index(self, site: int) -> int:
        return self.sites.setdefault(site, len(self.sites))

    def result(self) -> list[tuple[int, int, bytes]]:
        """(codec, raw length, stored bytes) of each stream; waits for them."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._packed


class Packer:
    """Threads that make `Packing`s, one after the other, on one of `cpus` (none: anywhere)."""

    def __init__(self, cpus: frozenset[int]) -> None:
        self._cpus = cpus
        self._waiting: queue.SimpleQueue[Packing | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def add(self, packing: Packing) -> None:
        """Have one made."""
        # What is recorded keeps a CPU for itself, where there is more than one.
        if not self._threads:
            # The recorder should not wait long for the interpreter: the program may wait for it.
            sys.setswitchinterval(SWITCH_INTERVAL)
        if len(self._threads) < max(1, (os.cpu_count() or 1) - 1):
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        self._waiting.put(packing)

    def _work(self) -> None:
        # Signals are for the main thread, which may wait in a system call that they interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if self._cpus:
            try:
                os.sched_setaffinity(0, self._cpus)
            except OSError:
                pass
        while (packing := self._waiting.get()) is not None:
            behind = self._waiting.qsize() > _BEHIND
            packing.run(codec.QUICK_LEVEL if behind else codec.ZLIB_LEVEL)

    def close(self) -> None:
        """Forget those that no thread has begun with; wait for the others."""
        try:
            while True:
                self._waiting.get_nowait()
        except queue.Empty:
            pass
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []
