# SPDX-License-Identifier: GPL-2.0-or-later
"""Synthetic traces: what a recorder might have written, made without recording anything."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sysrift.syscalls import NAMES
from sysrift.trace import codec
from sysrift.trace.model import (
    Delivery,
    End,
    Event,
    EventFlag,
    EventKind,
    FileReference,
    Image,
    MappingImage,
    PageRun,
    Program,
    SegmentKind,
)
from sysrift.trace.reader import Trace
from sysrift.trace.writer import TraceWriter, absolute

PID = 4242
SITE = 0x7FFFF7EC5A0B
RSP = 0x7FFFFFFFE2F8
BUFFER = 0x5555555592A0
ENOENT = -2

METADATA: dict[str, Any] = {
    "argv": ["/opt/work/crasher", "--in file", "it's"],
    "exe": "/opt/work/crasher",
    "cwd": "/opt/work",
    "envp": ["LANG=C"],
    "started": "2026-02-03T10:20:30.456+01:00",
    "recorder": "0.1.0",
    "kernel": "6.1.0-test",
    "machine": "x86_64",
    "cpu_model": "Test CPU",
    "cpu_count": 2,
    "host": "testhost",
    "checksum_every": 0,
    "clock": "monotonic",
}

EXITED = End("exited", status=0, duration_us=218_000)
SEGFAULT = struct.pack("<iii4xQ", 11, 0, 1, 0).ljust(128, b"\0")


def image(writer: TraceWriter, event: int = 0, pages: bytes = b"\x90" * 4096) -> Image:
    """An image of one mapping, its bytes put into the trace."""
    reference = writer.add_file(
        FileReference(0, "/opt/work/crasher", 8, 1, 0, 8, "ab" * 32), [b"\x7fELF", b"\2\1\1\0"]
    )
    block = writer.add_data(pages)
    mapping = MappingImage(
        0x400000, 0x402000, 5, False, 0, reference.id, reference.path,
        (PageRun(0x401000, len(pages), block),),
    )  # fmt: skip
    return Image(
        event, 1, bytes(216), bytes(832), b"auxv" * 4, tuple(range(11)), 8 << 20,
        "/opt/work/crasher", reference.id, (mapping,),
    )  # fmt: skip


class Builder:
    """Writes a trace event by event; `time` advances by 100 us each.

    `process` is whose events they are; `fork` makes another one.
    """

    def __init__(self, path: Path, **metadata: Any) -> None:
        self.path = path
        self.writer = TraceWriter(path, {**METADATA, **metadata})
        self.process = self.writer.add_process(PID, "exec")
        self.writer.add_image(image(self.writer))
        self.time = 1000

    def call(
        self,
        name: str | int,
        *args: int,
        result: int = 0,
        segments: tuple[Any, ...] = (),
        flags: int = 0,
    ) -> int:
        """A system call by name or number."""
        nr = NAMES[name] if isinstance(name, str) else name
        return self._event(EventKind.SYSCALL, nr, args, result, segments, flags)

    def signal(self, number: int, siginfo: bytes = b"", delivery: int = Delivery.FATAL) -> int:
        """A signal's delivery."""
        segments = (absolute(SegmentKind.SIGINFO, 0, siginfo),) if siginfo else ()
        return self._event(EventKind.SIGNAL, number, (), delivery, segments)

    def tsc(self, counter: int, number: int = 0) -> int:
        """An rdtsc (0) or rdtscp (1)."""
        return self._event(EventKind.TSC, number, (), counter, ())

    def _event(
        self, kind: int, nr: int, args: tuple[int, ...], result: int, segments: Any, flags: int = 0
    ) -> int:
        self.time += 100
        return self.writer.add_event(
            kind, flags, nr, self.process, self.time, SITE, RSP, result, 0,
            (*args, *(0,) * (6 - len(args))), segments,
        )  # fmt: skip

    def fork(self, how: str = "fork") -> int:
        """`process` makes a child by a call; returns its id. `process` stays who it is."""
        parent = self.process
        event = self.writer.number(parent) + 1
        child = self.writer.add_process(
            PID + self.writer._processes, how, parent, event, self.time, -1
        )
        self.process = child
        self.call("clone", 0x1200011)
        self.process = parent
        self.call("clone", 0x1200011, result=PID + child - 1)
        return child

    def execute(self, exe: str, *argv: str) -> int:
        """`process` becomes another program; returns the event's number."""
        event = self.call("execve", BUFFER, flags=EventFlag.IMAGE)
        self.writer.add_program(self.process, Program(event, exe, argv or (exe,)))
        taken = image(self.writer, event)
        self.writer.add_image(replace(taken, task=self.process, exe=exe))
        return event

    def end(self, process: int, end: End = EXITED) -> None:
        """Process `process` is over."""
        self.writer.end_process(process, end)

    def close(self, end: End = EXITED) -> Path:
        """Close the trace as a recorder does."""
        self.writer.close(End(**{**end.to_json(), "events": self.writer.events}))
        return self.path

    def cut_off(self) -> Path:
        """Leave the trace as a killed recorder does."""
        self.writer.flush()
        self.writer.abandon()
        return self.path


def path_argument(text: bytes, argument: int = 1) -> tuple[Any, ...]:
    """The segment of a path that the program handed in."""
    return ((SegmentKind.IN, argument, 0, text + b"\0"),)


def fill(builder: Builder) -> Builder:
    """A bit of everything: 8 events, 2 of them failed system calls, a note and checksums."""
    call = builder.call
    call("brk", 0, result=0x555555576000)  # 1
    call("openat", 0xFFFFFF9C, BUFFER, 0, result=3, segments=path_argument(b"/etc/motd"))
    call("read", 3, BUFFER, 64, result=5, segments=((SegmentKind.OUT, 1, 0, b"hi \xff\n"),))
    builder.tsc(123456789)
    call("openat", 0xFFFFFF9C, BUFFER, 0, result=ENOENT, segments=path_argument(b"/no/such"))
    builder.writer.note("a remark of the recorder")
    call(999, 1, 2, result=-38, flags=EventFlag.GUESSED)
    builder.writer.add_checksum(builder.process, b"0123456789abcdef")
    call("write", 1, BUFFER, 3, result=3, segments=((SegmentKind.IN, 1, 0, b"abc"),))
    builder.signal(11, SEGFAULT)
    return builder


def crashed(path: Path) -> Path:
    """A closed trace of a program that dies of SIGSEGV."""
    return fill(Builder(path)).close(End("killed", signal=11, duration_us=2500))


def cut_off(path: Path) -> Path:
    """The same, its recorder killed at the end."""
    return fill(Builder(path)).cut_off()


@dataclass
class Contents:
    """All that can be read from a trace."""

    metadata: dict[str, Any]
    files: dict[int, tuple[FileReference, bytes]]
    notes: list[str]
    checksums: dict[int, bytes]
    images: dict[int, tuple[Image, bytes]]
    events: list[tuple[Event, tuple[bytes, ...]]]
    end: End | None

    def begins(self, whole: Contents) -> bool:
        """Whether this is `whole`, or a part of it from its beginning on."""
        return (
            self.metadata == whole.metadata
            and self.files.items() <= whole.files.items()
            and self.notes == whole.notes[: len(self.notes)]
            and self.checksums.items() <= whole.checksums.items()
            and all(whole.images.get(event) == own for event, own in self.images.items())
            and self.events == whole.events[: len(self.events)]
            and self.end in (None, whole.end)
        )


def contents(path: Path) -> Contents:
    """Read everything that there is. Raises TraceError as the reader does."""
    with Trace(path) as trace:
        list(trace.file.blocks())
        trace.file.payload_bytes()
        events = [
            (
                event,
                tuple(
                    trace.segment_data(segment)
                    for segment in event.segments
                    if segment.kind != SegmentKind.FILE
                ),
            )
            for event in trace.events()
        ]
        images = {}
        for number in [0, *(event.number for event, _ in events)]:
            if trace.has_image(number):
                taken = trace.image(number)
                pages = [trace.data(r.block, r.length) for m in taken.mappings for r in m.runs]
                images[number] = (taken, b"".join(pages))
        return Contents(
            trace.metadata,
            {id_: (file, b"".join(trace.file_content(file))) for id_, file in trace.files.items()},
            trace.notes,
            trace.checksums,
            images,
            events,
            trace.end,
        )


def block(kind: int, flags: int, raw: bytes, codec_id: int = 0, first: int = 0) -> bytes:
    """The bytes of a block of any type."""
    head = (kind, codec_id, flags, len(raw), len(raw))
    crc = zlib.crc32(raw, zlib.crc32(codec.BLOCK_HEADER.pack(*head, 0, 0, first)))
    return codec.BLOCK_HEADER.pack(*head, crc, 0, first) + raw
