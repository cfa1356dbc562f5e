# SPDX-License-Identifier: GPL-2.0-or-later
"""A block of events: as the bytes that it consists of, and as events, one by one or all of them.

Making an `Event` takes some microseconds; who needs a few of a block does not pay for the others,
and who plays the records as they are (replay/player.py) for none. Runs in GDB's Python too.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from sysrift.errors import TraceError
from sysrift.trace import codec
from sysrift.trace.model import ABSOLUTE, Event, EventKind, Segment, SegmentKind

MAX_STREAM = 1 << 30
_MASK = 0xFFFFFFFFFFFFFFFF
_FLAGS_AT, _NR_AT, _TASK_AT, _DELTA_AT, _SEGMENTS_AT = 1, 4, 8, 12, 36  # offsets in an EventRecord
_LENGTH_AT, _BLOCK_AT = 2, 14  # ... and in a SegmentRecord


class EventsBlock:
    """The raw bytes of a block of events, its streams unpacked.

    Attributes: `count` of records, `sites` (addresses by index), `first` (of each process with
    events here, the number of its first one), and the bytes of `records`, `segments` and `payload`,
    as the schema has them. Raises TraceError, struct.error, IndexError or KeyError from any method
    when the block is damaged.
    """

    def __init__(self, raw: bytes) -> None:
        self.count, segment_count, self._time_us, site_count = codec.EVENTS_HEAD.unpack_from(raw)
        at = codec.EVENTS_HEAD.size
        self.sites = struct.unpack_from(f"<{site_count}Q", raw, at)
        at += 8 * site_count
        span_count = struct.unpack_from("<I", raw, at)[0]
        at += 4
        if span_count > self.count:
            raise TraceError("damaged trace: a block of events has wrong spans")
        self.first: dict[int, int] = {}
        for index in range(span_count):
            process, first, _ = codec.SPAN.unpack_from(raw, at + index * codec.SPAN.size)
            self.first[process] = first
        at += span_count * codec.SPAN.size
        heads = []
        for _ in range(3):
            heads.append(codec.STREAM.unpack_from(raw, at))
            at += codec.STREAM.size
        streams = []
        for codec_id, raw_length, stored_length in heads:
            if raw_length > MAX_STREAM or at + stored_length > len(raw):
                raise TraceError("damaged trace: a block of events is cut off")
            streams.append(codec.decompress(codec_id, raw[at : at + stored_length], raw_length))
            at += stored_length
        if (
            len(streams[0]) != self.count * codec.RECORD.size
            or len(streams[1]) != segment_count * codec.SEGMENT.size
        ):
            raise TraceError("damaged trace: a block of events has another length than it says")
        self.segment_count = segment_count
        self.records = codec.unshuffle(streams[0], codec.RECORD.size)
        self.segments = codec.unshuffle(streams[1], codec.SEGMENT.size)
        self.payload = streams[2]
        self._single: dict[int, Event] = {}

    # -- events ---------------------------------------------------------------------------------

    @cached_property
    def by_process(self) -> dict[int, tuple[Event, ...]]:
        """All events, of each process."""
        events: dict[int, list[Event]] = defaultdict(list)
        for index, event in enumerate(self.in_order()):
            events[event.task].append(self._single.get(index, event))
        return {task: tuple(own) for task, own in events.items()}

    @property
    def is_whole(self) -> bool:
        """Whether all events have been made."""
        return "by_process" in self.__dict__

    def in_order(self) -> Iterator[Event]:
        """All events, as they happened."""
        numbers = dict(self.first)
        segments = codec.SEGMENT.iter_unpack(self.segments)
        time_us, position = self._time_us, 0
        for record in codec.RECORD.iter_unpack(self.records):
            time_us += record[5]
            task = record[4]
            number = numbers[task]
            numbers[task] = number + 1
            event, position = self._event(number, record, segments, time_us, position)
            yield event

    def event(self, process: int, number: int) -> Event:
        """One event; the same object whenever it is asked for."""
        if self.is_whole:
            return self.by_process[process][number - self.first[process]]
        index = self.index(process, number)
        event = self._single.get(index)
        if event is None:
            if len(self._single) > self.count // 4:
                return self.by_process[process][number - self.first[process]]
            segment, position = self._segments_before[index], 0
            if segment:
                position = self._payload_before[segment]
            record = codec.RECORD.unpack_from(self.records, index * codec.RECORD.size)
            segments = codec.SEGMENT.iter_unpack(
                memoryview(self.segments)[segment * codec.SEGMENT.size :]
            )
            time_us = self._time_us + self._times[index]
            event, _ = self._event(number, record, segments, time_us, position)
            self._single[index] = event
        return event

    def _event(
        self,
        number: int,
        record: tuple[int, ...],
        segments: Iterator[tuple[int, ...]],
        time_us: int,
        position: int,
    ) -> tuple[Event, int]:
        """The event of a record, and where the payload of the next one begins."""
        kind, flags, site, nr, task, _, rsp, result, crc, parts = record[:10]
        args = record[10:]
        own: list[Segment] = []
        for _ in range(parts):
            what, base, length, offset, block = next(segments, (0, 0, -1, 0, 0))
            if length < 0 or (base != ABSOLUTE and base > 5):
                raise TraceError(f"damaged trace: event {number} has too few segments")
            address = offset if base == ABSOLUTE else (args[base] + offset) & _MASK
            data: bytes | None = None
            if not block:
                data = self.payload[position : position + length]
                position += length
                if len(data) != length:
                    raise TraceError(f"damaged trace: event {number} is cut off")
            elif what == SegmentKind.FILE:
                address = offset
            own.append(Segment(what, base, address, length, block, data))
        event = Event(
            number, kind, flags, nr, task, time_us, self.sites[site], rsp, result, crc, args,
            tuple(own),
        )  # fmt: skip
        return event, position

    @cached_property
    def writes(self) -> list[tuple[int, int, int]]:
        """(index of the record, address, length) of all memory that the kernel wrote; a length of
        -1 where it changed a mapped file instead."""
        found = []
        segments = codec.SEGMENT.iter_unpack(self.segments)
        for index, record in enumerate(codec.RECORD.iter_unpack(self.records)):
            for _ in range(record[9]):
                what, base, length, offset, _ = next(segments)
                if what == SegmentKind.OUT:
                    address = offset if base == ABSOLUTE else (record[10 + base] + offset) & _MASK
                    found.append((index, address, length))
                elif what in (SegmentKind.FILE_SIZE, SegmentKind.FILE_DATA):
                    found.append((index, 0, -1))
        return found

    @cached_property
    def calls(self) -> tuple[int, ...]:
        """The number of the system call of each record; -1 where that is no call."""
        numbers = _column(self.records, codec.RECORD.size, _NR_AT, 4)
        kinds = self.records[:: codec.RECORD.size]
        return tuple(nr if kind == EventKind.SYSCALL else -1 for nr, kind in zip(numbers, kinds))

    # -- records --------------------------------------------------------------------------------

    def index(self, process: int, number: int) -> int:
        """The index of an event's record; IndexError when it is not here."""
        at = number - self.first[process]
        if at < 0 or at >= self.count:
            raise IndexError(number)
        return at if len(self.first) == 1 else self._indices[process][at]

    def indices(self, process: int) -> Sequence[int]:
        """The indices of a process's records, in order."""
        return range(self.count) if len(self.first) == 1 else self._indices[process]

    def glance(self, process: int, number: int) -> tuple[int, int]:
        """The kind and the flags of an event."""
        at = self.index(process, number) * codec.RECORD.size
        return self.records[at], self.records[at + _FLAGS_AT]

    @cached_property
    def is_sound(self) -> bool:
        """Whether there are all the segments, sites, bytes and processes that the records name."""
        columns = _column(self.records, codec.RECORD.size, 2, 2)
        return (
            max(columns, default=0) < len(self.sites)
            and self._segments_before[-1] <= self.segment_count
            and self._payload_before[-1] <= len(self.payload)
            and set(self._tasks) <= set(self.first)
        )

    @cached_property
    def _tasks(self) -> tuple[int, ...]:
        return _column(self.records, codec.RECORD.size, _TASK_AT, 4)

    @cached_property
    def _indices(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {process: [] for process in self.first}
        for index, task in enumerate(self._tasks):
            found[task].append(index)
        return found

    @cached_property
    def _segments_before(self) -> list[int]:
        """How many segments there are before each record's, and in all."""
        width = codec.RECORD.size
        return list(accumulate(_column(self.records, width, _SEGMENTS_AT, 2), initial=0))

    @cached_property
    def _payload_before(self) -> list[int]:
        """How many bytes of payload there are before each segment's, and in all."""
        width = codec.SEGMENT.size
        lengths = _column(self.segments, width, _LENGTH_AT, 4)
        if any(any(self.segments[_BLOCK_AT + n :: width]) for n in range(8)):
            blocks = _column(self.segments, width, _BLOCK_AT, 8)
            lengths = tuple(0 if block else length for length, block in zip(lengths, blocks))
        return list(accumulate(lengths, initial=0))

    @cached_property
    def _times(self) -> list[int]:
        """The time of each record, in microseconds since the block's."""
        return list(accumulate(_column(self.records, codec.RECORD.size, _DELTA_AT, 4)))


def _column(records: bytes, width: int, at: int, size: int) -> tuple[int, ...]:
    """The little-endian integers of `size` bytes at `at` of all records of `width` bytes."""
    count = len(records) // width
    planes = bytearray(count * size)
    for n in range(size):
        planes[n::size] = records[at + n :: width]
    return struct.unpack(f"<{count}{ {2: 'H', 4: 'I', 8: 'Q'}[size] }", bytes(planes))
