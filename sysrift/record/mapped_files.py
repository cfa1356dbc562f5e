# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a program has mapped and changes by system calls: write, ftruncate and their like.

What such a call does to a file shows in the mappings, in memory that none of its arguments points
to. So it is put into the event as a change of the *file* (FILE_SIZE, FILE_DATA segments). A replay
does the same to its copy of the file, and the kernel makes it seen as it did then: in shared
mappings, in those pages of private ones that were not written to, and as a SIGBUS past the end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from sysrift.extents import data_extents, read_extents
from sysrift.record.call import Call
from sysrift.record.files import FileTable, Identity, Opened
from sysrift.syscalls import NAMES, BadAddress
from sysrift.trace.model import ABSOLUTE, EventFlag, SegmentKind
from sysrift.tracee import Mapping, Tracee, read_maps

if TYPE_CHECKING:
    from sysrift.record.recorder import Recorder

_PAGE = 4096
_INLINE = 64 << 10
"""Bytes above which what was written goes to a DATA block of its own."""

_END = 1 << 63
_AT_FDCWD = -100
_O_TRUNC, _O_APPEND = 0o1000, 0o2000
FICLONE, FICLONERANGE = 0x40049409, 0x4020940D
_FALLOC_WHOLE = 0x08 | 0x20  # FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE

Span = tuple[int, int]
"""(first, last + 1) byte of a file."""


class _Tracked(NamedTuple):
    file: int  # FileReference.id by which the trace knows it
    device: str  # as /proc/PID/maps names it; on some file systems not what stat(2) says
    inode: int


class MappedFiles:
    """The files, beside the system's own, that one process has mapped."""

    def __init__(self) -> None:
        self._files: dict[Identity, _Tracked] = {}
        self._extents: dict[tuple[str, int], list[Span]] | None = None
        self.added = 0
        """How often a file was mapped."""

    def __bool__(self) -> bool:
        return bool(self._files)

    def copy(self) -> MappedFiles:
        """What a forked process has."""
        other = MappedFiles()
        other._files = dict(self._files)
        other.added = self.added
        return other

    def clear(self) -> None:
        """Forget all (execve)."""
        self._files.clear()
        self.layout_changed()

    def layout_changed(self) -> None:
        """Mappings were made, moved or removed."""
        self._extents = None

    def has(self, identity: Identity, tracee: Tracee) -> bool:
        """Whether the file is mapped, and its changes are therefore in the trace."""
        tracked = self._files.get(identity)
        return tracked is not None and bool(self._spans(tracked, tracee))

    def changed_by(self, tracee: Tracee, descriptor: int) -> bool:
        """Whether writing to a descriptor may change a file that is mapped."""
        try:
            status = os.stat(_link(tracee, descriptor))
        except OSError:
            return True
        return (status.st_dev, status.st_ino) in self._files

    def add(self, opened: Opened, address: int, tracee: Tracee) -> None:
        """The file was mapped at `address`."""
        self.added += 1
        mapping = _mapping_at(tracee.pid, address)
        if mapping is not None:
            self._files[opened.identity] = _Tracked(opened.file, mapping.device, mapping.inode)
        self.layout_changed()

    def adopt(self, files: FileTable, tracee: Tracee) -> None:
        """Take over what a process that is attached to has mapped: files of data, not of code.

        They get the ids that its image, taken just now, has for them (`FileTable.mapped`).
        """
        self.added += 1
        maps = [mapping for mapping in read_maps(tracee.pid) if mapping.is_file]
        code = {(m.device, m.inode) for m in maps if m.prot & 4 and not m.shared}
        for mapping in maps:
            try:
                status = os.stat(f"/proc/{tracee.pid}/root{mapping.name}")
            except (OSError, ValueError):
                continue
            if status.st_ino != mapping.inode or (mapping.device, mapping.inode) in code:
                continue
            file = files.mapped(mapping, tracee.pid)
            if file is not None and (mapping.shared or not files.is_system(file)):
                identity = (status.st_dev, status.st_ino)
                self._files[identity] = _Tracked(file, mapping.device, mapping.inode)
        self.layout_changed()

    def prune(self, tracee: Tracee) -> None:
        """Forget what is not mapped any more."""
        for identity, tracked in list(self._files.items()):
            if not self._spans(tracked, tracee):
                del self._files[identity]

    def _spans(self, tracked: _Tracked, tracee: Tracee) -> list[Span]:
        """The parts of a file that are mapped."""
        if self._extents is None:
            self._extents = {}
            for mapping in read_maps(tracee.pid):
                if mapping.is_file:
                    span = (mapping.offset, mapping.offset + mapping.end - mapping.start)
                    self._extents.setdefault((mapping.device, mapping.inode), []).append(span)
        return self._extents.get((tracked.device, tracked.inode), [])

    def changed(self, recorder: Recorder, call: Call, result: int) -> None:
        """After a call of `WRITERS` that succeeded: add the changes of mapped files to it."""
        for path, span in WRITERS[call.nr](recorder.tracee, call.args, result):
            try:
                status = os.stat(path)
            except OSError:
                continue
            identity = (status.st_dev, status.st_ino)
            tracked = self._files.get(identity)
            if tracked is None:
                continue
            spans = self._spans(tracked, recorder.tracee)
            if not spans:
                del self._files[identity]  # not mapped any more
                continue
            call.segments.append(
                (SegmentKind.FILE_SIZE, ABSOLUTE, status.st_size, (0, tracked.file))
            )
            for first, last in _overlaps(spans, span(path), status.st_size):
                if not _store(recorder, call, path, first, last):
                    call.flags |= EventFlag.INCOMPLETE


def _mapping_at(pid: int, address: int) -> Mapping | None:
    return next((m for m in read_maps(pid) if m.start <= address < m.end), None)


def _overlaps(spans: list[Span], changed: Span, size: int) -> list[Span]:
    """The parts of `changed` that are mapped, each once, in order."""
    found: list[Span] = []
    end = min(changed[1], size)
    at = changed[0]
    for first, last in sorted(spans):
        first, last = max(first, at), min(last, end)
        if first < last:
            found.append((first, last))
            at = last
    return found


def _store(recorder: Recorder, call: Call, path: str, first: int, last: int) -> bool:
    """Add the bytes of a file to an event; False when they cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        extents = data_extents(descriptor, first, last - first)
        at = iter(extents)
        position = rest = 0
        for part in read_extents(descriptor, extents):
            if not rest:
                position, rest = next(at)
            stored: bytes | tuple[int, int] = part
            if len(part) > _INLINE:
                stored = (len(part), recorder.writer.add_data(part))
            call.segments.append((SegmentKind.FILE_DATA, ABSOLUTE, position, stored))
            position += len(part)
            rest -= len(part)
    except (OSError, StopIteration):
        return False
    finally:
        os.close(descriptor)
    return True


# -- which calls change which part of which file --------------------------------------------------

Change = tuple[str, Callable[[str], Span]]
"""The path of a file, and what gives the part of it that a call has changed."""

Writer = Callable[[Tracee, tuple[int, ...], int], "list[Change]"]


def _link(tracee: Tracee, descriptor: int) -> str:
    number = struct.unpack("<i", struct.pack("<I", descriptor & 0xFFFFFFFF))[0]
    return f"/proc/{tracee.pid}/fd/{number}"


def _position(link: str) -> tuple[int, int]:
    """Offset and open flags of a descriptor (proc_pid_fdinfo(5)); zeros when it is gone."""
    try:
        with open(link.replace("/fd/", "/fdinfo/"), encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        return int(fields["pos"]), int(fields["flags"], 8)
    except (OSError, ValueError, KeyError):
        return 0, 0


def _at_position(descriptor: int) -> Writer:
    """`result` bytes were written up to where the descriptor stands now."""

    def changes(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
        def span(link: str) -> Span:
            position, _ = _position(link)
            return position - result, position

        return [(_link(tracee, args[descriptor]), span)] if result > 0 else []

    return changes


def _at_offset(descriptor: int, offset: int) -> Writer:
    """`result` bytes were written at an offset that is an argument; -1: where it stands."""

    def changes(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
        def span(link: str) -> Span:
            position, flags = _position(link)
            if flags & _O_APPEND:  # pwrite(2), BUGS: it appends whatever the offset
                size = os.stat(link).st_size
                return size - result, size
            start = args[offset]
            if start >= 1 << 63:
                start = position - result
            return start, start + result

        return [(_link(tracee, args[descriptor]), span)] if result > 0 else []

    return changes


def _at_pointer(descriptor: int, pointer: int) -> Writer:
    """`result` bytes were written up to the offset behind an argument, if that is not NULL."""

    def changes(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
        def span(link: str) -> Span:
            if args[pointer]:
                try:
                    end = struct.unpack("<q", tracee.read(args[pointer], 8))[0]
                except BadAddress:
                    return 0, _END
            else:
                end = _position(link)[0]
            return end - result, end

        return [(_link(tracee, args[descriptor]), span)] if result > 0 else []

    return changes


def _nothing(_: str) -> Span:
    return 0, 0


def _everything(_: str) -> Span:
    return 0, _END


def _resized(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
    return [(_link(tracee, args[0]), _nothing)] if result == 0 else []


def _resized_by_path(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
    path = _path(tracee, _AT_FDCWD, args[0]) if result == 0 else ""
    return [(path, _nothing)] if path else []


def _path(tracee: Tracee, directory: int, address: int) -> str:
    """A path, for this process, of what a string of the program's names; "" when it cannot be."""
    name = tracee.read_some(address, 4096).split(b"\0", 1)[0]
    if not name:
        return ""
    if name.startswith(b"/"):
        return f"/proc/{tracee.pid}/root{os.fsdecode(name)}"
    where = "cwd" if directory == _AT_FDCWD else f"fd/{directory}"
    return f"/proc/{tracee.pid}/{where}/{os.fsdecode(name)}"


def _allocated(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
    if result:
        return []
    offset, length = args[2], args[3]
    whole = args[1] & _FALLOC_WHOLE
    return [(_link(tracee, args[0]), lambda _: (offset, _END if whole else offset + length))]


def _opened(flags: int) -> Writer:
    """O_TRUNC, in an argument; -1: always (creat)."""

    def changes(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
        cut = flags < 0 or args[flags] & _O_TRUNC
        return [(_link(tracee, result), _nothing)] if cut and result >= 0 else []

    return changes


def _opened_by_structure(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
    try:
        flags = struct.unpack("<Q", tracee.read(args[2], 8))[0]
    except BadAddress:
        return []
    return [(_link(tracee, result), _nothing)] if flags & _O_TRUNC and result >= 0 else []


def _cloned(tracee: Tracee, args: tuple[int, ...], result: int) -> list[Change]:
    request = args[1] & 0xFFFFFFFF
    clones = request in (FICLONE, FICLONERANGE) and result == 0
    return [(_link(tracee, args[0]), _everything)] if clones else []


WRITERS: dict[int, Writer] = {
    NAMES[name]: writer
    for name, writer in (
        ("write", _at_position(0)),
        ("writev", _at_position(0)),
        ("pwrite64", _at_offset(0, 3)),
        ("pwritev", _at_offset(0, 3)),
        ("pwritev2", _at_offset(0, 3)),
        ("sendfile", _at_position(0)),
        ("copy_file_range", _at_pointer(2, 3)),
        ("splice", _at_pointer(2, 3)),
        ("ftruncate", _resized),
        ("truncate", _resized_by_path),
        ("fallocate", _allocated),
        ("open", _opened(1)),
        ("openat", _opened(2)),
        ("openat2", _opened_by_structure),
        ("creat", _opened(-1)),
        ("ioctl", _cloned),
    )
}
