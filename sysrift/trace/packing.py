# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a block of events beside the recording: zlib lets other Python code run meanwhile."""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Sequence
from typing import NamedTuple

from sysrift.trace import codec

_SITE_AT, _DELTA_AT = 2, 12  # offsets in an EventRecord

# What is recorded keeps a CPU for itself, where there is more than one.
_SLOTS = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) - 1))


class RawRecords(NamedTuple):
    """Records whose site is an index into `sites`; `delta` becomes the time of the first one."""

    records: bytes
    sites: Sequence[int]
    delta: int


class Packing(threading.Thread):
    """Makes the streams of a block in a thread of its own, on one of `cpus` (none: anywhere).

    `sites` are those of the records that are in the file's form already, with their indices; what
    others need is added to it.
    """

    def __init__(
        self,
        records: list[bytes | RawRecords],
        segments: list[bytes],
        payload: list[bytes],
        sites: dict[int, int],
        cpus: frozenset[int],
    ) -> None:
        super().__init__()
        self.sites = sites
        self.size = sum(map(len, payload))
        """Bytes of payload."""
        self._records = records
        self._segments = segments
        self._payload = payload
        self._cpus = cpus
        self._packed: list[tuple[int, int, bytes]] = []

    def run(self) -> None:
        """The thread."""
        # Signals are for the main thread, which may wait in a system call that they interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if self._cpus:
            try:
                os.sched_setaffinity(0, self._cpus)
            except OSError:
                pass
        with _SLOTS:
            self._packed = self._pack()

    def _pack(self) -> list[tuple[int, int, bytes]]:
        parts = [
            self._indexed(part) if isinstance(part, RawRecords) else part for part in self._records
        ]
        streams = [
            codec.shuffle(b"".join(parts), codec.RECORD.size),
            codec.shuffle(b"".join(self._segments), codec.SEGMENT.size),
            b"".join(self._payload),
        ]
        packed = []
        for raw in streams:
            codec_id, stored = codec.compress(raw)
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
        self.join()
        if not self._packed:
            self._packed = self._pack()
        return self._packed
