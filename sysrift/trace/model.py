# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace holds, as Python values: events, segments, files, images, the end.

These are plain frozen data. How they look as bytes is `schema` (the authority) and `codec`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple


class EventKind(enum.IntEnum):
    """The kinds of event; the number is what the file holds."""

    SYSCALL = 1  # number, arguments, result; segments are what the kernel wrote
    # Number is the signal, result a `Delivery`. A SIGSEGV that came instead of a signal for whose
    # frame there was no room has that one's number as args[0]; args[1]: an instruction raised that.
    SIGNAL = 2
    TSC = 3  # rdtsc (number 0) or rdtscp (number 1) executed at `site`; result is the counter
    SHARED = 4  # others changed shared memory while the process waited in a computation, at `site`


class EventFlag(enum.IntFlag):
    """What else is to be known of an event."""

    GUESSED = 1  # no rule for this call: what the kernel wrote was found by comparing memory
    IMAGE = 2  # an image with this event's number follows: execve, or mappings changed otherwise
    UNFINISHED = 4  # the program ended inside this call: it has no result
    INCOMPLETE = 8  # a buffer the kernel wrote could not be read back
    IN_CODE = 16  # a signal delivered between two system calls, not at the boundary of one


class Delivery(enum.IntEnum):
    """What a delivered signal did (the `result` of a SIGNAL event)."""

    HANDLER = 1  # a handler was entered: REGISTERS, XSAVE and the frame's bytes are segments
    FATAL = 2  # the program ended by it
    STOPPED = 3  # the program was stopped by it for a while (SIGTSTP, ...): nothing to replay


class SegmentKind(enum.IntEnum):
    """What a segment's bytes are."""

    OUT = 0  # the kernel wrote them at `address`
    IN = 1  # the program handed them in (the leading bytes, for people to read)
    FILE = 2  # no bytes: `block` is the id of the file that was mapped
    REGISTERS = 3  # struct user_regs_struct after the event
    XSAVE = 4  # the xsave area after the event
    SIGINFO = 5  # siginfo_t of a signal
    FILE_SIZE = 6  # no bytes: the mapped file `block` was changed; `address` is its size now
    FILE_DATA = 7  # bytes at offset `address` of the file that the FILE_SIZE before it names
    POINT = 8  # where in a computation a signal came: `points.Point`


class Mapped(enum.IntFlag):
    """What else is to be known of a mapping: the `length` of its FILE segment."""

    READ_ONLY = 1  # its descriptor does not allow writing: a shared mapping stays read-only
    IN_STEP = 2  # the file is mapped already, and all that changed it since is in the trace


ABSOLUTE = 255
"""`Segment.base` of a segment that hangs on no argument: `offset` is its address."""


AFTER, BEFORE = 0, 1
"""`Segment.address` of REGISTERS: as the event left them, or as it found them."""


class Segment(NamedTuple):
    """A run of bytes that belongs to an event.

    `data` is None when the bytes lie in a block of their own (`block` is then its file offset;
    `Trace.segment_data` fetches them).
    """

    kind: int
    base: int
    address: int
    length: int
    block: int
    data: bytes | None


class Event(NamedTuple):
    """One numbered thing that crossed the kernel boundary. Numbers start at 1.

    A process that another one forked goes on with its parent's numbers: its first event has the
    number of the parent's call that made it. `task` is the `Process.id` that it belongs to.
    """

    number: int
    kind: int
    flags: int
    nr: int
    task: int
    time_us: int
    site: int
    rsp: int
    result: int
    input_crc: int
    args: tuple[int, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class FileReference:
    """A file (or an extent of a large one) that the program had mapped.

    `offset` and `length` say which bytes `sha256` covers; `chunks` are the file offsets of DATA
    blocks holding them when they are stored in the trace, else empty. A file with holes lists the
    parts that are none in `extents`, (offset, length) each: `sha256` and `chunks` are of these.
    `device` and `inode` tell one file from another of the same name.
    """

    id: int
    path: str
    size: int
    mtime_ns: int
    offset: int
    length: int
    sha256: str
    chunks: tuple[int, ...] = ()
    device: int = 0
    inode: int = 0
    extents: tuple[tuple[int, int], ...] = ()

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(offset, length) of the parts that `sha256` and `chunks` are of, in order."""
        return self.extents or (((self.offset, self.length),) if self.length else ())

    @property
    def is_stored(self) -> bool:
        """Whether the trace holds its bytes, or there are none."""
        return bool(self.chunks) or not any(length for _, length in self.parts)


class PageRun(NamedTuple):
    """Consecutive bytes of an image; `block` is the DATA block's file offset."""

    address: int
    length: int
    block: int


@dataclass(frozen=True)
class MappingImage:
    """A mapping of an image: `/proc/PID/maps`'s line and the pages that are not the file's."""

    start: int
    end: int
    prot: int  # PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4
    shared: bool
    offset: int
    file: int | None  # FileReference.id
    name: str
    runs: tuple[PageRun, ...] = ()


@dataclass(frozen=True)
class Image:
    """A whole process between two instructions: what replay starts from.

    `event` is the number of the last event before it (0: the start of the recording).
    `mm` holds the eleven addresses of `struct prctl_mm_map` (start_code .. env_end).
    """

    event: int
    task: int
    registers: bytes
    xsave: bytes
    auxv: bytes
    mm: tuple[int, ...]
    stack_limit: int
    exe: str
    exe_file: int
    mappings: tuple[MappingImage, ...]
    cpu: int = -1  # that it was bound to; -1: none


@dataclass(frozen=True)
class Program:
    """What a process executes after its event `event` (0: from the beginning)."""

    event: int
    exe: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Process:
    """A recorded process. Ids count from 1 (pids may come again within one recording).

    `how` is "exec" (the recorder started it), "attach", "fork", "vfork" or "clone"; of the last
    three `parent` is the id of the process whose event `parent_event` made it, else 0.
    """

    id: int
    pid: int
    how: str
    parent: int = 0
    parent_event: int = 0
    time_us: int = 0
    cpu: int = -1  # that it was bound to at its beginning; -1: none

    @property
    def first_event(self) -> int:
        """The number of its first event."""
        return max(self.parent_event, 1)


@dataclass(frozen=True)
class End:
    """How a process, or its recording, ended.

    `how` is "exited" (status), "killed" (signal), or "stopped" (recording stopped before the
    program's end; `message` says why). A trace without an end block has none of these.
    """

    how: str
    status: int = 0
    signal: int = 0
    message: str = ""
    events: int = 0
    duration_us: int = 0
    index_offset: int = 0  # of the INDEX block; 0: there is none, scan

    def to_json(self) -> dict[str, Any]:
        """The end as the JSON object that the END block holds."""
        return dict(self.__dict__)
