# SPDX-License-Identifier: GPL-2.0-or-later
"""Forging traces: a copy of a trace that is whole and valid, but not quite what happened.

Written by SysRift's own writer, so nothing but the comparison with the replayed program can notice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from sysrift.trace import ABSOLUTE, End, Event, Image, Segment, SegmentKind
from sysrift.trace.reader import Trace
from sysrift.trace.writer import OutSegment, TraceWriter
from sysrift.views.processes import all_events

_MASK = (1 << 64) - 1

Edit = Callable[[Event], "Event | Iterable[Event] | None"]
"""What becomes of an event: another one, several, or none."""


def events_of(path: Path) -> list[Event]:
    """All events of a trace's first process, with the bytes of every segment at hand."""
    trace = Trace(path)
    return [_whole(trace, event) for event in trace.events()]


def events_of_all(path: Path) -> list[Event]:
    """The events of all processes of a trace, in the order of their happening, likewise."""
    trace = Trace(path)
    return [_whole(trace, event) for event in all_events(trace)]


def _whole(trace: Trace, event: Event) -> Event:
    return event._replace(segments=tuple(_filled(trace, segment) for segment in event.segments))


def _filled(trace: Trace, segment: Segment) -> Segment:
    if segment.kind in (SegmentKind.FILE, SegmentKind.FILE_SIZE):
        return segment
    return segment._replace(data=trace.segment_data(segment), block=0)


def forge(
    source: Path,
    target: Path,
    edit: Edit = lambda event: event,
    *,
    image: Callable[[bytes, int], bytes] = lambda data, address: data,
    digest: Callable[[bytes], bytes] = lambda digest: digest,
    end: Callable[[End], End] = lambda end: end,
) -> Path:
    """Write a copy of the trace `source` to `target`, and return `target`.

    `edit` decides what becomes of each event, of whatever process (its `task`); `image` of each
    run of an image's bytes, which it gets with its address; `digest` of each memory checksum; `end`
    of how the first process ended.
    """
    trace = Trace(source)
    file = trace.file
    writer = TraceWriter(target, trace.metadata)
    for process in file.processes.values():
        number = writer.add_process(
            process.pid, process.how, process.parent, process.parent_event, process.time_us,
            process.cpu,
        )  # fmt: skip
        assert number == process.id
        for program in file.programs.get(process.id, []):
            writer.add_program(process.id, program)
    for number in sorted(trace.files):
        reference = trace.files[number]
        stored = writer.add_file(
            reference, trace.file_content(reference) if reference.chunks else None
        )
        assert stored.id == number
    writer.add_image(_copied(trace, writer, trace.image(0), image))
    for event in events_of_all(source):
        edited = edit(event)
        if edited is None:
            edited = ()
        for each in (edited,) if isinstance(edited, Event) else edited:
            _add(writer, each)
        checksum = file.checksums[event.task].get(event.number)
        if checksum is not None:
            writer.add_checksum(event.task, digest(checksum))
        taken = file.images(event.task).get(event.number)
        if taken is not None:
            writer.add_image(_copied(trace, writer, file.image_at(taken), image))
    for process_id, ended in sorted(file.ends.items()):
        if process_id != trace.process.id:
            writer.end_process(process_id, ended)
    for text in trace.notes:
        writer.note(text)
    if file.end is None:
        writer.flush()
        writer.abandon()
    else:
        writer.end_process(trace.process.id, end(trace.end))
        writer.close(end(dataclasses.replace(file.end, events=writer.events)))
    return target


def _add(writer: TraceWriter, event: Event) -> None:
    segments: list[OutSegment] = []
    for segment in event.segments:
        offset = segment.address
        if segment.base != ABSOLUTE and segment.kind != SegmentKind.FILE:
            offset = (segment.address - event.args[segment.base]) & _MASK
        data = (segment.length, segment.block) if segment.data is None else segment.data
        segments.append((segment.kind, segment.base, offset, data))
    writer.add_event(
        event.kind, event.flags, event.nr, event.task, event.time_us, event.site, event.rsp,
        event.result, event.input_crc, event.args, segments,
    )  # fmt: skip


def _copied(
    trace: Trace, writer: TraceWriter, image: Image, change: Callable[[bytes, int], bytes]
) -> Image:
    mappings = []
    for mapping in image.mappings:
        runs = []
        for run in mapping.runs:
            data = change(trace.data(run.block, run.length), run.address)
            runs.append(run._replace(block=writer.add_data(data)))
        mappings.append(dataclasses.replace(mapping, runs=tuple(runs)))
    return dataclasses.replace(image, mappings=tuple(mappings))


def with_output(event: Event, change: Callable[[bytes], bytes]) -> Event:
    """The event with other bytes where the kernel first wrote."""
    segments = list(event.segments)
    at = next(i for i, s in enumerate(segments) if s.kind == SegmentKind.OUT and s.length)
    data = change(segments[at].data or b"")
    assert len(data) == segments[at].length
    segments[at] = segments[at]._replace(data=data)
    return event._replace(segments=tuple(segments))


def flipped(data: bytes) -> bytes:
    """The same bytes but for one bit of the first."""
    return bytes([data[0] ^ 1]) + data[1:]
