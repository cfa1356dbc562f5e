# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing a trace: append-only, whole blocks, valid up to the last one whatever dies."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import struct
import uuid
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sysrift.errors import RecordError
from sysrift.trace import codec
from sysrift.trace.model import (
    ABSOLUTE,
    End,
    FileReference,
    Image,
    Process,
    Program,
    SegmentKind,
)
from sysrift.trace.packing import Batch, Packer, Packing, RawRecords
from sysrift.trace.schema import (
    MAJOR,
    MINOR,
    BlockFlag,
    BlockType,
    ChecksumsBlock,
    Codec,
    FileHeader,
    ImageBlock,
    IndexBlock,
    Trailer,
)
from sysrift.trace.spool import Spool

EVENTS_PER_BLOCK = 4096
PAYLOAD_PER_BLOCK = 1 << 20
CHUNK = 1 << 20
"""Bytes of a DATA block; a longer run is cut into several, so that memory stays flat."""

_OPTIONAL = {BlockType.NOTE, BlockType.INDEX}

_REMEMBERED = 4096
"""DATA blocks whose content is remembered, to store it once."""

_MOST_SITES = 65535
_DELTA_AT = 12  # offset in an EventRecord
_DELTA = struct.Struct("<I")

OutSegment = tuple[int, int, int, bytes | tuple[int, int]]
"""(SegmentKind, base argument or ABSOLUTE, offset from it, bytes); instead of bytes
(length, block) when they are in a DATA block already, or, for FILE, (0, file id)."""


MOST_PACKINGS, MOST_PACKED = 512, 16 << 20
"""Blocks of events that may wait to be packed, and their bytes in memory: more waits in a file."""


class _Packed(NamedTuple):
    """A block of events that is being packed."""

    packing: Packing
    head: tuple[int, int, int]  # how many events, how many segments, time
    spans: bytes
    first: int


class TraceWriteError(OSError):
    """The trace file cannot take what should be written (a full disk, ...)."""


class TraceWriter:
    """Writes one trace file.

    Every method that writes raises TraceWriteError when the file cannot take it; the file then
    still ends with a whole block (a partly written one is cut off again).
    """

    def __init__(
        self, path: Path, metadata: dict[str, Any], cpus: frozenset[int] = frozenset()
    ) -> None:
        """Create `path` (never overwriting one in place: an old file is replaced).

        Events are compressed on one of `cpus`, by default where the caller runs.
        """
        try:
            # An old trace may be open in a replay: leave that one its file. An empty one is a
            # name that was reserved for this recording.
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                path.unlink()
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RecordError(f"cannot write the trace {path}: {error.strerror}") from None
        self.path = path
        self.uuid = uuid.uuid4()
        self.events = 0
        self.images = 0
        self.overhead_bytes = 0
        self._lost = False  # a block of events could not be written: none may follow it
        self._offset = 0
        self._index: list[tuple[int, int, int, int, int]] = []
        self._files = 0
        self._processes = 0
        self._numbers: dict[int, int] = {}  # the last event's number, of each living process
        self._spans: dict[int, list[int]] = {}
        self._recent: OrderedDict[bytes, int] = OrderedDict()
        self._records: list[bytes | RawRecords] = []  # each holds one or more
        self._segments: list[bytes] = []
        self._record_count = 0
        self._segment_count = 0
        self._payload: list[bytes] = []
        self._payload_size = 0
        self._sites: dict[int, int] = {}
        self._raw_sites: dict[int, int] = {}
        self._checksums: list[tuple[int, int, bytes]] = []
        self._block_first = 1
        self._written = 0  # events that are in the file
        self._packings: deque[_Packed] = deque()
        self._packer = Packer(cpus)
        self._spool = Spool(path.parent)
        self._block_time = 0
        self._last_time = 0
        self._write(
            FileHeader.build(
                {"major": MAJOR, "minor": MINOR, "length": 32, "uuid": self.uuid.bytes}
            )
        )
        self.add_json(BlockType.METADATA, metadata)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._offset

    @property
    def pending(self) -> bool:
        """Whether there are events that are not in the file yet."""
        return bool(self._records or self._packings)

    # -- blocks ---------------------------------------------------------------------------------

    def _write(self, *parts: bytes | memoryview) -> None:
        start = self._offset
        try:
            for part in parts:
                view = memoryview(part)
                while view:
                    written = os.write(self._fd, view)
                    view = view[written:]
                    self._offset += written
        except OSError as error:
            # Disk full: cut the part that went in, so that the file ends with a whole block (and
            # there is room again for the END block that says why).
            self._offset = start
            try:
                os.ftruncate(self._fd, start)
                os.lseek(self._fd, start, os.SEEK_SET)
            except OSError:
                pass
            raise TraceWriteError(error.errno, error.strerror) from error

    def add_block(
        self,
        kind: BlockType,
        raw: bytes,
        *,
        process: int = 0,
        first: int = 0,
    ) -> int:
        """Append a block and return its file offset.

        Events that came before it are in the file before it; unless it is DATA, which they need.
        """
        if kind != BlockType.DATA:
            self._settle()
        return self._append(kind, codec.compress(raw), len(raw), process, first, 0)

    def _append(
        self,
        kind: BlockType,
        packed: tuple[int, bytes],
        length: int,
        process: int,
        first: int,
        count: int,
    ) -> int:
        """Append what `codec.compress` has made of `length` bytes."""
        codec_id, stored = packed
        flags = 0 if kind in _OPTIONAL else int(BlockFlag.REQUIRED)
        head = (int(kind), int(codec_id), flags, len(stored), length)
        crc = zlib.crc32(stored, zlib.crc32(codec.BLOCK_HEADER.pack(*head, 0, process, first)))
        offset = self._offset
        self._write(codec.BLOCK_HEADER.pack(*head, crc, process, first) + stored)
        self._index.append((int(kind), offset, process, first, count))
        return offset

    def add_json(
        self, kind: BlockType, value: dict[str, Any], process: int = 0, first: int = 0
    ) -> int:
        """Append a block that holds a JSON object."""
        raw = json.dumps(value, sort_keys=True).encode()
        return self.add_block(kind, raw, process=process, first=first)

    def add_data(self, data: bytes) -> int:
        """Append a DATA block of at most CHUNK bytes and return its file offset.

        The same bytes again, a short while later, are the same block: processes that execute the
        same program begin with much the same memory.
        """
        key = hashlib.blake2b(data, digest_size=16).digest()
        known = self._recent.get(key)
        if known is not None:
            self._recent.move_to_end(key)
            return known
        offset = self._recent[key] = self.add_block(BlockType.DATA, data)
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return offset

    def prepare_space(self, length: int) -> None:
        """Fill the file with zeros ahead, so that writing there is quick later; see `trim_space`.

        Should there be no space for that, nothing is done.
        """
        zeros = bytes(CHUNK)
        try:
            for at in range(self._offset, self._offset + length, CHUNK):
                os.pwrite(self._fd, zeros, at)
        except OSError:
            self.trim_space()

    def trim_space(self) -> None:
        """Cut off what `prepare_space` made and was not needed."""
        try:
            os.ftruncate(self._fd, self._offset)
        except OSError:
            pass

    @staticmethod
    def raw_data_checksum(data: bytes | memoryview) -> int:
        """What `add_raw_data` wants to know of `data`; may be computed in another thread."""
        return zlib.crc32(data, zlib.crc32(codec.BLOCK_HEADER.pack(*_raw_data_head(data), 0, 0, 0)))

    def add_raw_data(self, data: bytes | memoryview, checksum: int) -> int:
        """Append a DATA block that is not compressed, for when time matters more than space."""
        offset = self._offset
        self._write(codec.BLOCK_HEADER.pack(*_raw_data_head(data), checksum, 0, 0), data)
        self._index.append((int(BlockType.DATA), offset, 0, 0, 0))
        return offset

    def note(self, text: str) -> None:
        """Append a remark for the user of the trace."""
        self.add_json(BlockType.NOTE, {"text": text}, first=self.events)

    # -- processes ------------------------------------------------------------------------------

    def add_process(
        self,
        pid: int,
        how: str,
        parent: int = 0,
        parent_event: int = 0,
        time_us: int = 0,
        cpu: int = -1,
    ) -> int:
        """Begin a process (see `model.Process`) and return its id.

        It need not be told before the call that made it: its parent's event `parent_event`.
        """
        self._processes += 1
        process = Process(self._processes, pid, how, parent, parent_event, time_us, cpu)
        self._numbers[process.id] = process.first_event - 1
        self.add_json(BlockType.PROCESS, dict(process.__dict__), process=process.id)
        return process.id

    def add_program(self, process: int, program: Program) -> None:
        """Say what a process executes from now on."""
        value = {**program.__dict__, "argv": list(program.argv)}
        self.add_json(BlockType.PROGRAM, value, process=process, first=program.event)

    def end_process(self, process: int, end: End) -> None:
        """Say how a process ended; it has no more events.

        `events` of it is the number of the last one, by which a reader notices that the recording
        was cut off before they were written.
        """
        full = dataclasses.replace(end, events=self._numbers.pop(process, 0))
        self.add_json(BlockType.PROCESS_END, full.to_json(), process=process)

    def number(self, process: int) -> int:
        """The number of a process's newest event; before its first, the number before that."""
        return self._numbers[process]

    # -- files and images -----------------------------------------------------------------------

    def add_file(self, reference: FileReference, content: Iterable[bytes] | None) -> FileReference:
        """Append a file reference, with its bytes when `content` (chunks of them) is given.

        Returns the reference as it is in the trace, with its id.
        """
        chunks = () if content is None else tuple(self.add_data(part) for part in content)
        self._files += 1
        stored = FileReference(**{**reference.__dict__, "id": self._files, "chunks": chunks})
        self.add_json(BlockType.FILE, {**stored.__dict__, "chunks": list(chunks)})
        return stored

    def add_image(self, image: Image) -> None:
        """Append an image. Events that came before it may follow it in the file."""
        mappings = [
            {
                **mapping.__dict__,
                "file": -1 if mapping.file is None else mapping.file,
                "runs": [run._asdict() for run in mapping.runs],
            }
            for mapping in image.mappings
        ]
        raw = ImageBlock.build({**image.__dict__, "mm": list(image.mm), "mappings": mappings})
        self.images += 1
        self.add_block(BlockType.IMAGE, raw, process=image.task, first=image.event)

    # -- events ---------------------------------------------------------------------------------

    def add_event(
        self,
        kind: int,
        flags: int,
        nr: int,
        task: int,
        time_us: int,
        site: int,
        rsp: int,
        result: int,
        input_crc: int,
        args: Sequence[int],
        segments: Sequence[OutSegment] = (),
    ) -> int:
        """Append an event of process `task` and return its number.

        See `model.Event` for what the fields mean.
        """
        site_index = self._site_index(site)
        delta = max(time_us - self._last_time, 0)
        if delta > 0xFFFFFFFF or not self._records:
            if self._records:
                self.flush()
                site_index = self._sites[site] = 0
            self._block_time = time_us
            delta = 0
        self._last_time = time_us
        for segment_kind, base, offset, data in segments:
            if isinstance(data, tuple):
                length, block = data
            else:
                length, block = len(data), 0
                self._payload.append(data)
                self._payload_size += length
            self._segments.append(codec.SEGMENT.pack(segment_kind, base, length, offset, block))
        count = len(segments)
        self._segment_count += count
        self._record_count += 1
        self._records.append(
            codec.RECORD.pack(
                kind, flags, site_index, nr, task, delta, rsp, result, input_crc, count, *args
            )
        )
        return self._count_events(task, 1)

    def _site_index(self, site: int) -> int:
        index = self._sites.get(site)
        if index is None:
            if len(self._sites) + sum(self._raw_sites.values()) >= _MOST_SITES:
                self.flush()
            index = self._sites[site] = len(self._sites)
        return index

    def _count_events(self, task: int, count: int) -> int:
        """So many more records of a process are there; returns the last one's number."""
        self.events += count
        first = self._numbers[task] + 1
        number = self._numbers[task] = first + count - 1
        span = self._spans.get(task)
        if span is None:
            self._spans[task] = [first, count]
        else:
            span[1] += count
        if self._record_count >= EVENTS_PER_BLOCK or self._payload_size >= PAYLOAD_PER_BLOCK:
            self._hand_over()
        return number

    def add_records(
        self,
        task: int,
        records: bytes,
        segments: bytes,
        payload: bytes,
        sites: Sequence[int],
        times_us: tuple[int, int],
    ) -> None:
        """Append events of process `task` that are in the file's form already.

        `records` is one EventRecord after the other, whose site is an index into `sites` (which may
        grow later), and the first one's time the difference to `times_us[0]`; the last one's is
        `times_us[1]`, in microseconds. `segments` and `payload` are theirs.
        """
        rest = Batch(records, segments, payload)
        before, last = times_us
        while rest.events:
            batch, rest = rest.cut(max(EVENTS_PER_BLOCK - self._record_count, 1))
            before = self._add_batch(task, batch, sites, before)
        self._last_time = max(self._last_time, last)

    def _add_batch(self, task: int, batch: Batch, sites: Sequence[int], before: int) -> int:
        """Events that fit into the block at hand; returns the time of the last one."""
        self._raw_sites[id(sites)] = len(sites)
        if len(self._sites) + sum(self._raw_sites.values()) > _MOST_SITES:
            self.flush()
            self._raw_sites = {id(sites): len(sites)}
        if not self._records:
            self._block_time = self._last_time = before
        delta: int = _DELTA.unpack_from(batch.records, _DELTA_AT)[0]
        shifted = min(max(before + delta - self._last_time, 0), 0xFFFFFFFF)
        took = batch.took_us
        self._last_time += shifted + took
        self._records.append(RawRecords(batch.records, sites, shifted))
        self._segments.append(batch.segments)
        self._payload.append(batch.payload)
        self._payload_size += len(batch.payload)
        self._record_count += batch.events
        self._segment_count += len(batch.segments) // codec.SEGMENT.size
        self._count_events(task, batch.events)
        return before + delta + took

    def add_checksum(self, process: int, digest: bytes) -> None:
        """Note the checksum of a process's writable memory as it is after its newest event."""
        self._checksums.append((process, self._numbers[process], digest))

    def flush(self) -> None:
        """Write the events gathered so far; they are in the file afterwards."""
        self._hand_over()
        self._settle()
        if self._checksums:
            raw = ChecksumsBlock.build(
                [
                    {"process": process, "event": event, "digest": digest}
                    for process, event, digest in self._checksums
                ]
            )
            self.add_block(BlockType.CHECKSUMS, raw)
            self._checksums = []

    def flush_soon(self) -> None:
        """See that the events gathered so far are in the file before long, without waiting for it.

        Call it again as long as there are `pending` ones.
        """
        self._hand_over()
        self._write_packed()
        if not self._packings:
            self.flush()  # checksums

    def _hand_over(self) -> None:
        """Have the events gathered so far packed; the next may follow before that is done."""
        if not self._records:
            return
        packing = Packing(self._records, self._segments, self._payload, self._sites)
        head = (self._record_count, self._segment_count, self._block_time)
        spans = struct.pack("<I", len(self._spans))
        spans += b"".join(codec.SPAN.pack(process, *s) for process, s in self._spans.items())
        self._forget_events()
        self._write_packed()
        waiting = packing.size + sum(each.packing.size for each in self._packings)
        full = waiting > MOST_PACKED and not packing.park(self._spool)
        while self._packings and (full or len(self._packings) >= MOST_PACKINGS):
            self._write_events(self._packings.popleft())
            full = full and sum(each.packing.size for each in self._packings) > MOST_PACKED
        self._refuse_gap()
        self._packings.append(_Packed(packing, head, spans, self._block_first))
        self._block_first += head[0]
        self._packer.add(packing)

    def _refuse_gap(self) -> None:
        if self._lost:
            raise TraceWriteError(errno.EIO, "events before these could not be written")

    def _write_packed(self) -> None:
        """Write the blocks of events that have been packed."""
        while self._packings and self._packings[0].packing.is_done:
            self._write_events(self._packings.popleft())

    def _settle(self) -> None:
        """Write the blocks of events that are being packed."""
        while self._packings:
            self._write_events(self._packings.popleft())

    def _write_events(self, packed: _Packed) -> None:
        packing, head, spans, first = packed
        streams = packing.result()
        self._refuse_gap()
        sites = list(packing.sites)
        parts = [
            codec.EVENTS_HEAD.pack(*head, len(sites)),
            struct.pack(f"<{len(sites)}Q", *sites),
            spans,
        ]
        for codec_id, length, stored in streams:
            parts.append(codec.STREAM.pack(codec_id, length, len(stored)))
        parts.extend(stored for _, _, stored in streams)
        body = b"".join(parts)
        self._lost = True  # unless it can be written
        self._append(BlockType.EVENTS, (Codec.NONE, body), len(body), 0, first, head[0])
        self._lost = False
        self.overhead_bytes += codec.BLOCK_HEADER.size + len(body) - len(streams[2][2])
        self._written = first + head[0] - 1

    def _forget_events(self) -> None:
        self._records, self._segments, self._payload = [], [], []
        self._record_count = self._segment_count = self._payload_size = 0
        self._sites = {}
        self._raw_sites = {}
        self._spans = {}

    def _abandon_packings(self) -> None:
        self._packings.clear()
        self._packer.close()

    def drop_pending(self) -> None:
        """Forget events that are not in the file; after a failed write."""
        self._abandon_packings()
        self._forget_events()
        self._checksums = []
        self.events = self._written

    # -- the end --------------------------------------------------------------------------------

    def close(self, end: End) -> None:
        """Write what is pending, the index, and how it ended."""
        self.flush()
        entries = [
            {
                "type": kind,
                "offset": offset,
                "process": process,
                "first_event": first,
                "count": count,
            }
            for kind, offset, process, first, count in self._index
        ]
        offset = self.add_block(BlockType.INDEX, IndexBlock.build(entries))
        self._finish(dataclasses.replace(end, index_offset=offset))

    def close_short(self, end: End) -> None:
        """Write only how it ended: for a file that can take little more (disk full)."""
        self.drop_pending()
        self._finish(end)

    def _finish(self, end: End) -> None:
        offset = self.add_json(BlockType.END, end.to_json(), first=self.events)
        self._write(Trailer.build({"end_offset": offset}))
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._abandon_packings()
        self._spool.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _raw_data_head(data: bytes | memoryview) -> tuple[int, int, int, int, int]:
    return (BlockType.DATA, Codec.NONE, BlockFlag.REQUIRED, len(data), len(data))


def absolute(kind: SegmentKind, address: int, data: bytes) -> OutSegment:
    """A segment at an address that no argument points to."""
    return (kind, ABSOLUTE, address, data)
