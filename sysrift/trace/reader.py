# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a trace: one process's events, from its recording's beginning, by number.

A forked process begins with its parent's history: events 1 to N-1 of its timeline are the
parent's, event N is the call that made it, as it returned in the child. So replaying it needs
nothing of its own. Runs in GDB's Python too: standard library and `construct` only.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sysrift.errors import TraceError
from sysrift.trace.file import MAX_BLOCK, BlockEntry, TraceFile
from sysrift.trace.model import (
    End,
    Event,
    FileReference,
    Image,
    Process,
    Segment,
)

__all__ = ["MAX_BLOCK", "BlockEntry", "Part", "Trace"]


class Part(NamedTuple):
    """Events `first` to `first` + `length` - 1 of a timeline: those of a process in a block."""

    first: int
    length: int
    offset: int
    process: int


class Trace:
    """One process of an open trace file: its timeline.

    Attributes: `file` (all that is the whole recording's), `process`, `event_count`, `checksums`
    (of memory, by event number), and those of `file` that are used most.
    Raises TraceError from any method when the file is not what it should be.
    """

    def __init__(self, path: str | Path | TraceFile, process: int | None = None) -> None:
        """Open `path`, or look at another process of an open file. None: the first process."""
        self.file = path if isinstance(path, TraceFile) else TraceFile(path)
        try:
            self.process = self._find(process)
            self._follow()
        except BaseException:
            if path is not self.file:
                self.close()
            raise

    def _find(self, process: int | None) -> Process:
        number = min(self.file.processes) if process is None else process
        if number not in self.file.processes:
            raise TraceError(f"{self.path} has no process {number}")
        return self.file.processes[number]

    def _follow(self) -> None:
        """Lay out the timeline: the ancestors' parts, then the process's own."""
        self._firsts: list[int] = []
        self._parts: list[Part] = []
        self._images: dict[int, int] = {}
        self.checksums: dict[int, bytes] = {}
        line = [self.process]
        while line[-1].parent:
            line.append(self.file.processes[line[-1].parent])
        number = 1
        for process, child in zip(line[::-1], [*line[-2::-1], None]):
            until = child.parent_event - 1 if child is not None else 1 << 62
            for span in self.file.spans(process.id):
                length = min(span.length, until - span.first + 1)
                if length <= 0:
                    break
                if span.first != number:
                    raise TraceError(f"damaged trace: event {number} of {self.path} is missing")
                self._firsts.append(span.first)
                self._parts.append(Part(span.first, length, span.offset, process.id))
                number += length
            for event, offset in self.file.images(process.id).items():
                if event <= until:
                    self._images[event] = offset
            for event, digest in self.file.checksums[process.id].items():
                if event <= until:
                    self.checksums[event] = digest
        self.event_count = number - 1
        # An image is written at once, the events before it may not have come to that.
        self._images = {
            event: offset for event, offset in self._images.items() if event <= self.event_count
        }
        self._now: tuple[Event, ...] = ()
        self._now_first = self._now_end = 0

    def of(self, process: int) -> Trace:
        """The timeline of another process of the same file."""
        return Trace(self.file, process)

    def close(self) -> None:
        """Close the file, for all processes."""
        self.file.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what belongs to the whole recording ----------------------------------------------------

    @property
    def path(self) -> Path:
        """The file's path."""
        return self.file.path

    @property
    def metadata(self) -> dict[str, Any]:
        """What was recorded, where, on which machine."""
        return self.file.metadata

    @property
    def files(self) -> dict[int, FileReference]:
        """The mapped files, by id."""
        return self.file.files

    @property
    def notes(self) -> list[str]:
        """The recorder's remarks."""
        return self.file.notes

    @property
    def processes(self) -> Mapping[int, Process]:
        """All recorded processes, by id."""
        return self.file.processes

    def data(self, block: int, length: int) -> bytes:
        """The bytes of a DATA block, which must have `length` of them."""
        return self.file.data(block, length)

    def file_content(self, reference: FileReference) -> Iterator[bytes]:
        """The stored bytes of a file, piece by piece; nothing when the trace does not hold them."""
        return self.file.file_content(reference)

    # -- how it ended ---------------------------------------------------------------------------

    @property
    def end(self) -> End | None:
        """How the process ended; None when the recording was cut off before."""
        return self.file.end_of(self.process.id)

    @property
    def closed(self) -> bool:
        """Whether the recording ended in an orderly way."""
        return self.file.end is not None

    # -- programs and images --------------------------------------------------------------------

    @property
    def beginning(self) -> int:
        """After which event a look at this process begins: its own first image, or its birth.

        0 for the first process.
        """
        if not self.process.parent:
            return 0
        executed = self.file.programs.get(self.process.id, [])
        own = [program.event for program in executed if program.event in self._images]
        return min(own, default=min(self.process.parent_event, self.event_count))

    def has_image(self, event: int) -> bool:
        """Whether an image was taken right after event number `event`."""
        return event in self._images

    def image_before(self, event: int) -> int:
        """The last event, before event number `event`, after which there is an image; else 0."""
        return max((taken for taken in self._images if taken < event), default=0)

    def image(self, event: int = 0) -> Image:
        """The image taken right after event number `event` (0: the start)."""
        offset = self._images.get(event)
        if offset is None:
            raise TraceError(f"{self.path} has no image at event {event}: it is cut off there")
        return self.file.image_at(offset)

    # -- events ---------------------------------------------------------------------------------

    def event(self, number: int) -> Event:
        """Event `number`, from 1 to `event_count`; IndexError outside of that."""
        if self._now_first <= number < self._now_end:
            return self._now[number - self._now_first]
        if not 1 <= number <= self.event_count:
            raise IndexError(number)
        index = bisect.bisect_right(self._firsts, number) - 1
        part = self._parts[index]
        event = self.file.block_event(part.offset, part.process, number)
        if self.file.block(part.offset).is_whole:
            self._look_at(index)
        return event

    def part(self, number: int) -> Part:
        """Where event `number` and its neighbours are."""
        return self._parts[bisect.bisect_right(self._firsts, number) - 1]

    def glance(self, number: int) -> tuple[int, int]:
        """The kind and the flags of an event."""
        if self._now_first <= number < self._now_end:
            event = self._now[number - self._now_first]
            return event.kind, event.flags
        part = self.part(number)
        return self.file.block_glance(part.offset, part.process, number)

    def _look_at(self, part: int) -> None:
        """Make `_now` the events of a part of the timeline."""
        first, length, offset, process = self._parts[part]
        events = self.file.block_events(offset).get(process, ())
        if len(events) < length or events[0].number != first:
            raise TraceError(f"damaged trace: events from {first} on are not readable")
        self._now, self._now_first, self._now_end = events, first, first + length

    def events(self, first: int = 1, last: int | None = None) -> Iterator[Event]:
        """Events `first` to `last` (inclusive; None: all), block by block."""
        number = max(first, 1)
        stop = self.event_count if last is None else min(last, self.event_count)
        while number <= stop:
            self._look_at(bisect.bisect_right(self._firsts, number) - 1)
            start, end = self._now_first, min(self._now_end, stop + 1)
            yield from self._now[number - start : end - start]
            number = end

    def segment_data(self, segment: Segment) -> bytes:
        """The bytes of an event's segment, wherever they lie."""
        if segment.data is not None:
            return segment.data
        return self.data(segment.block, segment.length)
